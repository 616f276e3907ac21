"""Events per worker CPU second: `python -m benchmarks.throughput [--events 100000] [--roles stream] [--roles stream,sink]`.

All events (tutors, sessions and feedback; no tutor events) stand in Kafka before the worker starts, so it always has as
much as it can take. One worker process works them off; it is done when every group has committed every record of its
topics and the last metrics have been published and, with the sink, written. Counted is the process's CPU time (user and
system, all threads) from the first batch of raw records until then: imports, checks and joining the group are left out,
waiting for the end to be noticed (about 1.5 s of an idle worker) is not. What came out is compared with the oracle
before anything is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.conditions import Conditions
from benchmarks.ground import Deployment, Ground, Loaded, prepare_database
from benchmarks.judging import judge_metrics, judge_rows
from benchmarks.progress import changelog_bytes, progress
from tutormax_streams.simulation import history

SEED = 1
DAYS = 90
EVENTS_PER_TUTOR = 328  # of the simulation, in 90 days, without tutor events
SAMPLED_TUTORS = 100
KINDS = ("tutors", "sessions", "feedback")


@dataclass(frozen=True, slots=True)
class Throughput:
    """Figures of one run."""

    roles: str
    events: int
    tutors: int
    mean_event_bytes: float
    partitions: int
    cpu_seconds: float
    start_up_cpu_seconds: float
    wall_seconds: float
    peak_rss_mib: float
    changelog_records_per_event: float
    changelog_bytes_per_event: float
    verdict: str

    @property
    def events_per_cpu_second(self) -> float:
        return self.events / self.cpu_seconds

    def lines(self) -> list[str]:
        return [
            f"{self.roles}: {self.events_per_cpu_second:,.0f} events per worker CPU second",
            (
                f"  {self.events:,} events ({', '.join(KINDS)}) of {self.mean_event_bytes:.0f} bytes on average, "
                f"{self.tutors} tutors x {DAYS} days, {self.partitions} partitions"
            ),
            (
                f"  {self.cpu_seconds:.2f} CPU s in {self.wall_seconds:.1f} s, after {self.start_up_cpu_seconds:.2f} CPU s "
                "of start-up"
            ),
            f"  peak RSS {self.peak_rss_mib:.0f} MiB",
            (
                f"  changelogs: {self.changelog_records_per_event:.2f} records and "
                f"{self.changelog_bytes_per_event:.0f} bytes (keys and values) per event"
            ),
            f"  right: {self.verdict}",
        ]


async def loaded_history(deployment: Deployment, events: int, kinds: tuple[str, ...] = KINDS) -> Loaded:
    """About `events` events of the simulation, as many tutors as that takes; some tutors sampled for the oracle."""
    tutors = max(SAMPLED_TUTORS, round(events / EVENTS_PER_TUTOR))
    every = tutors // SAMPLED_TUTORS
    records = (record for record in history(SEED, tutors, DAYS, datetime.now(UTC)) if record.topic in kinds)
    return await deployment.load(records, lambda tutor_id: int(tutor_id.rpartition("_")[2]) % every == 0)


async def measure(deployment: Deployment, roles: tuple[str, ...], events: int) -> Throughput:
    """One run on a fresh deployment; its worker is stopped afterwards. Raises `Wrong`, `Unfinished`."""
    await prepare_database(deployment.conninfo)
    loaded = await loaded_history(deployment, events)
    began = time.monotonic()
    with deployment.worker(*roles) as worker:
        async with progress(deployment.settings) as watch:
            await watch.drained(worker, *roles)
            usage, wall_seconds = worker.usage, time.monotonic() - began
            records = await watch.changelog_records()
        start_up = worker.cpu_seconds_before_work
        now_us = time.time_ns() // 1000
        judge = judge_rows if "sink" in roles else judge_metrics
        verdict = await judge(deployment, loaded, now_us)
    held, size = await changelog_bytes(deployment.settings)
    return Throughput(
        roles=" + ".join(roles),
        events=loaded.total,
        tutors=loaded.events["tutors"],
        mean_event_bytes=loaded.mean_bytes,
        partitions=deployment.settings.kafka_partitions,
        cpu_seconds=usage.cpu_seconds - start_up,
        start_up_cpu_seconds=start_up,
        wall_seconds=wall_seconds,
        peak_rss_mib=usage.peak_rss_mib,
        changelog_records_per_event=records / loaded.total,
        changelog_bytes_per_event=size / max(held, 1) * records / loaded.total,
        verdict=verdict,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=24)
    parser.add_argument("--roles", action="append", help="stream, or stream,sink; both by default")
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        for roles in options.roles or ("stream", "stream,sink"):
            with ground.deployment(partitions=options.partitions) as deployment:
                figures = asyncio.run(measure(deployment, tuple(roles.split(",")), options.events))
            print("\n".join(figures.lines()), flush=True)


if __name__ == "__main__":
    main()
