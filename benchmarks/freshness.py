"""Seconds from produce to committed row: `python -m benchmarks.freshness [--rate 200] [--seconds 30] [--tutors 300]`.

Every event is a new session of one of the tutors, so a tutor's row tells by `sessions_completed` how many of its events
it holds; PostgreSQL is asked every 20 ms. Latency counts from the moment the event is handed to the producer. Beside
it stands a no-op of the same run: the time from producing a record to consuming it from the same broker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from aiokafka import TopicPartition

from benchmarks.conditions import Conditions
from benchmarks.ground import Deployment, Ground, prepare_database
from tutormax_streams import kafka, topics
from tutormax_streams.topics import Topics

POLL_SECONDS = 0.02
WARM_SESSIONS = 20  # of each tutor, before anything is measured
READ = """SELECT tutor_id, sessions_completed FROM tutor_performance_metrics WHERE "window" = 'SEVEN_DAY'"""


@dataclass(frozen=True, slots=True)
class Freshness:
    """Latencies of one rate, in seconds, sorted."""

    rate: int
    seconds: list[float]
    no_op: list[float]

    def line(self) -> str:
        return (
            f"{self.rate:,} ev/s: {described(self.seconds)} s over {len(self.seconds):,} events; "
            f"no-op {described(self.no_op)} s"
        )


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def described(ordered: list[float]) -> str:
    named = [(f"p{share * 100:g}", quantile(ordered, share)) for share in (0.5, 0.95, 0.99)]
    return ", ".join(f"{name} {value:.2f}" for name, value in [*named, ("max", ordered[-1])])


def tutor_id(number: int) -> str:
    return f"tutor_{number:05d}"


def tutor_payload(number: int, now: datetime) -> bytes:
    born = (now - timedelta(days=200)).isoformat()
    return json.dumps(
        {
            "tutor_id": tutor_id(number), "name": f"Tutor {number}", "email": f"tutor{number}@example.org", "age": 30,
            "location": "Here", "education_level": "PhD", "subjects": ["Physics"], "subject_type": "STEM",
            "onboarding_date": born, "tenure_days": 200, "behavioral_archetype": "steady",
            "baseline_sessions_per_week": 12, "status": "active", "created_at": born, "updated_at": now.isoformat(),
        }
    ).encode()  # fmt: skip


def session_payload(tutor: int, number: int, now: datetime) -> bytes:
    start = (now - timedelta(minutes=5 + number % 5000)).isoformat()
    return json.dumps(
        {
            "session_id": f"session-{tutor}-{number}", "tutor_id": tutor_id(tutor), "student_id": f"student_{tutor:05d}",
            "session_number": number + 1, "is_first_session": number == 0, "scheduled_start": start,
            "actual_start": start, "duration_minutes": 60, "subject": "Physics", "session_type": "1-on-1",
            "tutor_initiated_reschedule": False, "no_show": False, "late_start_minutes": 0, "engagement_score": 0.9,
            "learning_objectives_met": True, "technical_issues": False, "created_at": now.isoformat(),
            "updated_at": now.isoformat(),
        }
    ).encode()  # fmt: skip


async def measure(deployment: Deployment, rates: list[int], seconds: float, tutors: int) -> list[Freshness]:
    """Each rate in turn on one warm deployment, whose worker is running."""
    settings, names = deployment.settings, Topics.of(deployment.settings)
    sent: dict[str, list[float]] = defaultdict(list)  # tutor -> when its n-th event was handed over
    found: list[Freshness] = []
    async with kafka.producer(settings) as producer:
        now = datetime.now(UTC)
        for number in range(tutors):
            await producer.send(names.raw("tutors"), tutor_payload(number, now))
            for session in range(WARM_SESSIONS):
                await producer.send(names.raw("sessions"), session_payload(number, session, now))
                sent[tutor_id(number)].append(0.0)
        await producer.flush()
        async with await psycopg.AsyncConnection.connect(settings.conninfo, autocommit=True) as connection:
            held: dict[str, int] = dict.fromkeys(sent, 0)
            await _until_all_held(connection, held, sent, [])
            for rate in rates:
                latencies: list[float] = []
                watching = asyncio.ensure_future(_watch(connection, held, sent, latencies))
                began = time.perf_counter()
                for event in range(int(rate * seconds)):
                    wait = began + event / rate - time.perf_counter()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    tutor = event % tutors
                    number = len(sent[tutor_id(tutor)])
                    sent[tutor_id(tutor)].append(time.perf_counter())
                    value = session_payload(tutor, number, datetime.now(UTC))
                    await producer.send(names.raw("sessions"), value)
                await producer.flush()
                watching.cancel()
                await asyncio.wait([watching])
                await _until_all_held(connection, held, sent, latencies)
                found.append(Freshness(rate, sorted(latencies), await _no_op(deployment)))
    return found


async def _look(
    connection: psycopg.AsyncConnection, held: dict[str, int], sent: dict[str, list[float]], latencies: list[float]
) -> None:
    rows = await (await connection.execute(READ)).fetchall()
    now = time.perf_counter()
    for tutor, completed in rows:
        if completed > held[tutor]:
            latencies += [now - at for at in sent[tutor][held[tutor] : completed] if at]
            held[tutor] = completed


async def _watch(
    connection: psycopg.AsyncConnection, held: dict[str, int], sent: dict[str, list[float]], latencies: list[float]
) -> None:
    while True:
        await _look(connection, held, sent, latencies)
        await asyncio.sleep(POLL_SECONDS)


async def _until_all_held(
    connection: psycopg.AsyncConnection, held: dict[str, int], sent: dict[str, list[float]], latencies: list[float]
) -> None:
    while any(held[tutor] < len(times) for tutor, times in sent.items()):
        await _look(connection, held, sent, latencies)
        await asyncio.sleep(POLL_SECONDS)


async def _no_op(deployment: Deployment, samples: int = 200) -> list[float]:
    """Produce one record, wait until it is consumed, again and again."""
    name = f"{deployment.settings.kafka_topic_prefix}no-op"
    async with kafka.admin_client(deployment.settings) as admin:
        if name not in await admin.list_topics():
            await topics.create(admin, deployment.settings, [topics.Plan(name, 1, "delete")])
    latencies = []
    async with kafka.producer(deployment.settings) as producer, kafka.consumer(deployment.settings) as consumer:
        partition = TopicPartition(name, 0)
        consumer.assign([partition])
        await consumer.seek_to_end(partition)
        await consumer.position(partition)
        for _ in range(samples):
            began = time.perf_counter()
            await producer.send(name, b"no-op", partition=0)
            await consumer.getone()
            latencies.append(time.perf_counter() - began)
    return sorted(latencies)


async def run(ground: Ground, rates: list[int], seconds: float, tutors: int) -> tuple[list[Freshness], float]:
    """Figures by rate, and the worker's peak RSS in MiB."""
    with ground.deployment() as deployment:
        await prepare_database(deployment.conninfo)
        await topics.ensure(deployment.settings)
        with deployment.worker("stream", "sink") as worker:
            return await measure(deployment, rates, seconds, tutors), worker.usage.peak_rss_mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, action="append", help="events per second; 50, 200 and 1000 by default")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--tutors", type=int, default=300)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        found, peak = asyncio.run(run(ground, options.rate or [50, 200, 1000], options.seconds, options.tutors))
        print("\n".join(figures.line() for figures in found))
        print(f"peak RSS of the worker {peak:.0f} MiB, {options.tutors} tutors")


if __name__ == "__main__":
    main()
