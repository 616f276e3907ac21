"""The campaign: break everything, one fault after the other, and look whether all is right afterwards.

    python -m tests.faults.campaign [--only kill9,kafka-stall] [--seed 7] [--times 100] [--list]

Each run prints a line and appends it to docs/reliability.jsonl, of which docs/reliability.md is made. The exit code is
1 if any run was not right. A run is repeated by its seed. Campaigns may run side by side, each on servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import of_everything, of_inputs, of_kafka, of_postgres, of_state, of_workers, results
from tests.faults.ground import Ground
from tests.faults.registry import FAULTS, Fault
from tests.faults.results import Result
from tests.faults.run import begun

MODULES = (of_workers, of_kafka, of_postgres, of_inputs, of_state, of_everything)  # they fill `FAULTS`


async def play(
    ground: Ground, fault: Fault, seed: int, *, times: int, is_short: bool = False, keep: Path | None = None
) -> Result:
    """One run. What the workers of a run that is not right wrote goes to the directory `keep`."""
    async with begun(ground, fault, seed, times=times, is_short=is_short) as run:
        result = await run.play()
        if keep is not None and not result.is_right:
            run.keep_logs(keep)
        return result


def chosen(only: str | None, but: str | None, *, soak: bool) -> list[Fault]:
    """By their names, or all that are not long."""
    names = [name.strip() for name in only.split(",")] if only else list(FAULTS)
    unknown = sorted({*names, *(but.split(",") if but else ())} - FAULTS.keys())
    if unknown:
        raise SystemExit(f"there is no fault {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    faults = [FAULTS[name] for name in names if not but or name not in but.split(",")]
    return sorted((f for f in faults if only or soak or not f.is_apart), key=lambda f: f.number)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="names of faults, separated by commas")
    parser.add_argument("--but", help="names of faults to leave out")
    parser.add_argument("--seed", type=int, help="of all random choices; a random one if not given")
    parser.add_argument("--times", type=int, help="how often the fault happens in its run")
    parser.add_argument("--all", action="store_true", help="also those with targets of their own: soak")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    parser.add_argument("--results", type=Path, default=results.RESULTS, help="file that results are appended to")
    parser.add_argument("--keep", type=Path, help="directory for the workers' logs of runs that were not right")
    options = parser.parse_args(arguments)
    faults = chosen(options.only, options.but, soak=options.all)
    if options.list:
        for fault in faults:
            print(f"{fault.number:>3}  {fault.name:<24} x{fault.times:<9} {fault.sentence}")
        return 0
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it has much to say of a broker that is away
    seed = random.SystemRandom().randrange(10_000) if options.seed is None else options.seed
    wrong = 0
    with Ground() as ground:
        print(
            f"{len(faults)} faults on {ground.kafka.description}, {ground.postgres.description}, seed {seed}",
            flush=True,
        )
        for fault in faults:
            print(f"{time.strftime('%H:%M:%S')} {fault.name}: {fault.sentence}", flush=True)
            result = asyncio.run(play(ground, fault, seed, times=options.times or fault.times, keep=options.keep))
            results.append(result, options.results)
            print(result.line(), flush=True)
            if not result.is_right:
                wrong += 1
                print(result.trouble(), flush=True)
    if options.results == results.RESULTS:
        from docs import reliability  # which imports this module

        reliability.main()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
