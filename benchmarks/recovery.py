"""How fast one worker takes its tables from their changelogs: `python -m benchmarks.recovery [--tutors 300]`.

A worker works off a history; then it is started `STARTS` times with its local tables (the start alone) and as often
without them (the start and the recovery of every record), in turn. The quickest of each stands for it, because other
work only ever adds; the difference is the recovery. The figure for 10,000 tutors is an extrapolation by records, not a
measurement: so many changelog records a tutor as here, at the speed found here.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.conditions import Conditions
from benchmarks.ground import Deployment, Ground, MeasuredWorker, prepare_database
from benchmarks.memory import ready
from benchmarks.progress import progress
from tutormax_streams.simulation import history

DAYS = 90
LARGE_TUTORS = 10_000
STARTS = 3


@dataclass(frozen=True, slots=True)
class Recovery:
    """The quickest cold start beside the quickest warm one."""

    tutors: int
    records: int
    seconds: float  # cold start to ready, less warm start to ready
    cpu_seconds: float  # likewise
    start_seconds: float  # warm

    @property
    def extrapolated_seconds(self) -> float:
        return self.seconds / self.tutors * LARGE_TUTORS

    def line(self) -> str:
        return (
            f"recovery of {self.tutors:,} tutors x {DAYS} days, {self.records:,} changelog records: "
            f"{self.seconds:.1f} s beyond a start of {self.start_seconds:.1f} s, {self.records / self.seconds:,.0f} "
            f"records/s, {self.records / self.cpu_seconds:,.0f} records per CPU second; extrapolated to "
            f"{LARGE_TUTORS:,} tutors: {self.extrapolated_seconds:.0f} s"
        )


async def start(worker: MeasuredWorker) -> tuple[float, float]:
    """Seconds until it is ready, and CPU seconds used by then."""
    began = time.monotonic()
    await asyncio.to_thread(worker.start)
    await ready(worker)
    return time.monotonic() - began, worker.usage.cpu_seconds


async def measure(deployment: Deployment, tutors: int) -> Recovery:
    """On a deployment that has worked off the history of `tutors`, and whose worker is stopped."""
    with deployment.worker("stream") as worker:
        await ready(worker)
        await asyncio.to_thread(worker.stop)
        async with progress(deployment.settings) as watch:
            records = await watch.changelog_records()
        warm, cold = [], []
        for _ in range(STARTS):
            warm.append(await start(worker))
            await asyncio.to_thread(worker.stop)
            shutil.rmtree(deployment.settings.data_dir)
            cold.append(await start(worker))
            await asyncio.to_thread(worker.stop)
    start_seconds = min(warm)[0]
    return Recovery(
        tutors=tutors,
        records=records,
        seconds=min(cold)[0] - start_seconds,
        cpu_seconds=min(cpu for _, cpu in cold) - min(cpu for _, cpu in warm),
        start_seconds=start_seconds,
    )


async def run(ground: Ground, tutors: int) -> Recovery:
    with ground.deployment() as deployment:
        await prepare_database(deployment.conninfo)
        await deployment.load(history(1, tutors, DAYS, datetime.now(UTC)))
        with deployment.worker("stream") as worker:
            async with progress(deployment.settings) as watch:
                await watch.drained(worker, "stream", seconds=3600.0)
        return await measure(deployment, tutors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tutors", type=int, default=300)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        print(asyncio.run(run(ground, options.tutors)).line())


if __name__ == "__main__":
    main()
