"""The figures that need a large deployment: `python -m benchmarks.scale [--tutors 2500] [--times 2]`, some 15 minutes.

With its defaults 2,500 tutors x 90 days with two histories each: 0.9 million sessions and 0.7 million ratings. Printed
are the memory of one stream + sink worker that holds all of it, and how fast the tables are read from their changelogs.
The next `make bench` puts what was printed on docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import memory, recovery
from benchmarks.conditions import Conditions
from benchmarks.ground import Ground, prepare_database

PRINTED = Path(__file__).resolve().parents[1] / "docs" / "benchmarks-large.txt"


async def run(ground: Ground, tutors: int, times: int, live_seconds: float) -> AsyncIterator[str]:
    """Lines, as they are found."""
    with ground.deployment() as deployment:
        await prepare_database(deployment.conninfo)
        loaded = await deployment.load(memory.histories(tutors, times, datetime.now(UTC)))
        yield f"{loaded.total:,} events stand in Kafka"
        yield (await memory.measure(deployment, loaded, live_seconds)).line()
        yield (await recovery.measure(deployment, tutors)).line()


async def report(tutors: int, times: int, live_seconds: float) -> None:
    """Print what is found, and keep it for the page."""
    with Ground() as ground:
        lines = Conditions.now(ground.stack.description).lines()
        print("\n".join(lines), flush=True)
        async for line in run(ground, tutors, times, live_seconds):
            print(line, flush=True)
            lines.append(line)
    PRINTED.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tutors", type=int, default=2500)
    parser.add_argument(
        "--times", type=int, default=2, help=f"histories of {memory.SESSIONS_PER_TUTOR} sessions a tutor"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of live events before the last look at memory")
    options = parser.parse_args()
    asyncio.run(report(options.tutors, options.times, options.seconds))


if __name__ == "__main__":
    main()
