"""How fast one worker takes its tables from their changelogs: `python -m benchmarks.recovery [--tutors 300]`.

A worker works off a history; then it is started twice more: once with its local tables (the start alone), once without
them (the start and the recovery of every record). The difference is the recovery. The figure for 10,000 tutors is an
extrapolation by records, not a measurement: so many changelog records a tutor as here, at the speed found here.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.conditions import Conditions
from benchmarks.ground import Deployment, Ground, MeasuredWorker, Usage, prepare_database
from benchmarks.memory import ready
from benchmarks.progress import progress
from tutormax_streams.simulation import history

DAYS = 90
LARGE_TUTORS = 10_000


@dataclass(frozen=True, slots=True)
class Recovery:
    """One cold start beside a warm one."""

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


async def start(worker: MeasuredWorker) -> tuple[float, Usage]:
    """Seconds until it is ready, and what it has used by then."""
    began = time.monotonic()
    await asyncio.to_thread(worker.start)
    await ready(worker)
    return time.monotonic() - began, worker.usage


async def measure(deployment: Deployment, tutors: int) -> Recovery:
    """On a deployment that has worked off the history of `tutors`, and whose worker is stopped."""
    with deployment.worker("stream") as worker:
        await ready(worker)
        await asyncio.to_thread(worker.stop)
        warm_seconds, warm = await start(worker)
        await asyncio.to_thread(worker.stop)
        shutil.rmtree(deployment.settings.data_dir)
        async with progress(deployment.settings) as watch:
            records = await watch.changelog_records()
        cold_seconds, cold = await start(worker)
        return Recovery(
            tutors=tutors,
            records=records,
            seconds=cold_seconds - warm_seconds,
            cpu_seconds=cold.cpu_seconds - warm.cpu_seconds,
            start_seconds=warm_seconds,
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
