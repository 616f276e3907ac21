"""Resident memory of a stream + sink worker: `python -m benchmarks.memory [--tutors 300] [--sessions-per-tutor 180]`.

The worker first works off the whole history of the tutors from Kafka (its peak), then is started again on its tables as
they are and given 50 events a second (what it needs from day to day). RSS is VmRSS, its peak VmHWM: all pages of the
process, those of shared libraries (some 40 MiB) included.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from benchmarks.conditions import Conditions
from benchmarks.ground import Deployment, Ground, Loaded, MeasuredWorker, prepare_database
from benchmarks.progress import progress
from tutormax_streams.producer import publish_live, publisher
from tutormax_streams.simulation import Record, Trickle, history

DAYS = 90
SESSIONS_PER_TUTOR = 180  # of one simulated history; a tutor can have several
LIVE_EVENTS_PER_SECOND = 50.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What one worker held, and the memory it took, in MiB."""

    tutors: int
    sessions: int
    feedback: int
    tutor_events: int
    after_history_mib: float
    peak_mib: float
    live_mib: float
    live_seconds: float

    def line(self) -> str:
        return (
            f"{self.tutors:,} tutors x {DAYS} days ({self.sessions:,} sessions, {self.feedback:,} feedback, "
            f"{self.tutor_events:,} tutor events): RSS {self.live_mib:.0f} MiB after a restart and "
            f"{self.live_seconds:.0f} s of {LIVE_EVENTS_PER_SECOND:g} ev/s; {self.after_history_mib:.0f} MiB after the "
            f"history was worked off at once, {self.peak_mib:.0f} MiB at its peak"
        )


def histories(tutors: int, times: int, now: datetime) -> Iterator[Record]:
    """`times` histories of the same tutors, as if they had worked so much more."""
    return chain.from_iterable(history(seed, tutors, DAYS, now) for seed in range(1, times + 1))


async def live(deployment: Deployment, tutors: int, seconds: float) -> None:
    """Publish events in real time."""
    trickle = Trickle(1, tutors, datetime.now(UTC), LIVE_EVENTS_PER_SECOND)
    async with publisher(deployment.settings) as out:
        await publish_live(out, trickle, seconds=seconds)


async def ready(worker: MeasuredWorker, seconds: float = 600.0) -> float:
    """Wait until the worker says it is ready: seconds that took."""
    began = time.monotonic()
    while (await asyncio.to_thread(worker.get, "/readyz"))[0] != 200:
        worker.ensure_running()
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"the worker is not ready after {seconds:.0f} s: {worker.last_words()}")
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def live_mib(deployment: Deployment, tutors: int, seconds: float) -> float:
    """RSS of a worker that finds its tables as another left them, after so many seconds of live events."""
    with deployment.worker("stream", "sink") as worker:
        await ready(worker)
        await live(deployment, tutors, seconds)
        return worker.usage.rss_mib


async def measure(deployment: Deployment, loaded: Loaded, live_seconds: float) -> Memory:
    """On a deployment whose history stands in Kafka and was not worked off yet."""
    with deployment.worker("stream", "sink") as worker:
        async with progress(deployment.settings) as watch:
            await watch.drained(worker, "stream", "sink", seconds=3600.0)
        worked_off = worker.usage
    return Memory(
        tutors=len(loaded.ids["tutors"]),
        sessions=len(loaded.ids["sessions"]),
        feedback=len(loaded.ids["feedback"]),
        tutor_events=len(loaded.ids.get("tutor-events", ())),
        after_history_mib=worked_off.rss_mib,
        peak_mib=worked_off.peak_rss_mib,
        live_mib=await live_mib(deployment, loaded.events["tutors"], live_seconds),
        live_seconds=live_seconds,
    )


async def run(ground: Ground, tutors: int, times: int, live_seconds: float) -> Memory:
    with ground.deployment() as deployment:
        await prepare_database(deployment.conninfo)
        loaded = await deployment.load(histories(tutors, times, datetime.now(UTC)))
        return await measure(deployment, loaded, live_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tutors", type=int, default=300)
    parser.add_argument("--times", type=int, default=1, help=f"histories of {SESSIONS_PER_TUTOR} sessions a tutor")
    parser.add_argument("--seconds", type=float, default=60.0, help="of live events before the last look")
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        print(asyncio.run(run(ground, options.tutors, options.times, options.seconds)).line())


if __name__ == "__main__":
    main()
