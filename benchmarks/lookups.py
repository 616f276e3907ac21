"""Latency of lookups: `python -m benchmarks.lookups [--rate 500] [--seconds 60] [--tutors 300]`.

One worker is asked for tutors at a steady rate, three times `/tutors/{id}/metrics` and once `/tutors/{id}/performance`,
which asks PostgreSQL for the tutor's risk to leave. Half of what it is asked belongs to a second worker and is forwarded.
Each of the two is sent 200 events a second all the while. What the asked one took in, by its own count, is printed beside
what it was sent; less than four fifths over the whole time is no measurement. Requests are begun by the clock, whether or
not earlier ones have been answered, and latency counts from the moment at which a request was due. Beside them, in the
same run and at a tenth of the rate, stands a no-op: `/livez` of the same worker.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import aiohttp
import psycopg

from benchmarks.conditions import Conditions
from benchmarks.freshness import quantile, session_payload, tutor_id, tutor_payload
from benchmarks.ground import Deployment, Ground, MeasuredWorker, prepare_database
from benchmarks.intake import intake
from benchmarks.memory import ready
from tests.flow.users import PREDICTIONS_TABLE
from tutormax_streams import kafka, topics
from tutormax_streams.postgres.platform_tables import USERS_TABLE
from tutormax_streams.topics import Topics
from tutormax_streams.web.access import token_for
from tutormax_streams.web.lookups import HOPS

EVENTS_PER_SECOND = 200  # sent to each worker
WORKERS = 2
SETTLED = 0.95  # of these events, in so many looks one after the other: what had waited comes in a lump
SETTLED_LOOKS = 3
AT_LEAST = 0.8  # of what was sent in the time measured; what was sent last is still under way
WARM_SESSIONS = 20  # of each tutor
LOOK_SECONDS = 2.0  # over which a rate is taken
SETTLE_SECONDS = 90.0  # after a rebalance, at most
NO_OP_EVERY = 10  # requests
PERFORMANCE_EVERY = 4  # requests of each kind
KINDS = ("local", "forwarded", "no-op")
PREDICTIONS = """
INSERT INTO churn_predictions
SELECT 'pred_' || tutor_id, tutor_id, now(), 50, 'MEDIUM', 0.1, 0.3, 0.5, 0.7, '{}', '1.0', now(), now() FROM tutors
"""


@dataclass(slots=True)
class Answers:
    """Seconds by kind of request, and what was answered; the events that the worker asked took in meanwhile."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    statuses: Counter[str] = field(default_factory=Counter)
    events_per_second: float = 0.0
    sent_per_second: float = 0.0  # to that worker
    settled_seconds: float = 0.0  # from the first of the events until that worker took in its share

    def p99_ms(self, kind: str) -> float:
        return quantile(sorted(self.seconds[kind]), 0.99) * 1000

    def lines(self, rate: int, seconds: float) -> list[str]:
        return [
            f"lookups at {rate:,} requests/s for {seconds:g} s of a worker that took in {self.events_per_second:.0f} events/s:",
            *(f"  {self.line(kind)}" for kind in KINDS),
            f"  it was sent {self.sent_per_second:.0f} events/s",
            f"  it took in its share {self.settled_seconds:.0f} s after the second worker had joined",
            "  answers: " + ", ".join(f"{count:,} {status}" for status, count in sorted(self.statuses.items())),
        ]

    def line(self, kind: str) -> str:
        ordered = sorted(self.seconds[kind])
        named = [(f"p{share * 100:g}", quantile(ordered, share)) for share in (0.5, 0.95, 0.99)]
        figures = ", ".join(f"{name} {value * 1000:.1f}" for name, value in [*named, ("max", ordered[-1])])
        return f"{kind}: {figures} ms over {len(ordered):,} requests"


async def _owned(client: aiohttp.ClientSession, worker: MeasuredWorker, tutors: int) -> set[str]:
    """The tutors whose state is at `worker`: it answers without asking another."""
    found = set()
    for number in range(tutors):
        async with client.get(f"{worker.url}/tutors/{tutor_id(number)}/metrics", headers={HOPS: "1"}) as response:
            if response.status == 200:
                found.add(tutor_id(number))
    return found


async def _taken_in(worker: MeasuredWorker) -> tuple[float, float]:
    """Raw records that the worker has dealt with so far, and when it said so."""
    _, body = await asyncio.to_thread(worker.get, "/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith("tutormax_events_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines), time.monotonic()


async def _settled(worker: MeasuredWorker) -> float:
    """Wait until the worker takes in its share of the events: seconds that took. TimeoutError if it never does."""
    began, looks = time.monotonic(), 0
    async with asyncio.timeout(SETTLE_SECONDS):
        taken_in, at = await _taken_in(worker)
        while looks < SETTLED_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            before, since = taken_in, at
            taken_in, at = await _taken_in(worker)
            looks = looks + 1 if taken_in - before >= SETTLED * EVENTS_PER_SECOND * (at - since) else 0
    return time.monotonic() - began - SETTLED_LOOKS * LOOK_SECONDS


async def _history(deployment: Deployment, tutors: int) -> None:
    names = Topics.of(deployment.settings)
    async with kafka.producer(deployment.settings) as producer:
        for number in range(tutors):
            await producer.send(names.raw("tutors"), tutor_payload(number, datetime.now(UTC)))
            for session in range(WARM_SESSIONS):
                await producer.send(names.raw("sessions"), session_payload(number, session, datetime.now(UTC)))
        await producer.flush()


async def _predictions(deployment: Deployment, tutors: int) -> None:
    """One of each tutor, in the platform's table, once the tutors are in theirs."""
    async with await psycopg.AsyncConnection.connect(deployment.conninfo, autocommit=True) as connection:
        stored = 0
        while stored < tutors:
            await asyncio.sleep(0.2)
            counted = await (await connection.execute("SELECT count(*) FROM tutors")).fetchone()
            stored = counted[0] if counted else 0
        await connection.execute(PREDICTIONS_TABLE)
        await connection.execute(PREDICTIONS)


async def measure(deployment: Deployment, token: str, rate: int, seconds: float, tutors: int) -> Answers:
    """On a deployment with a user. Raises RuntimeError where one of the two workers owns nobody, or the one that is asked
    leaves too much of what it is sent lying."""
    await topics.ensure(deployment.settings)
    await _history(deployment, tutors)
    answers = Answers()
    headers = {"Authorization": f"Bearer {token}"}
    with deployment.worker("stream", "sink") as asked:
        await ready(asked)
        deployment.environment["TUTORMAX_DATA_DIR"] = str(deployment.directory / "other")
        with deployment.worker("stream", "sink") as other, ExitStack() as running:
            await ready(other)
            await ready(asked)
            async with aiohttp.ClientSession(
                headers=headers, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
            ) as client:
                owned = {"local": sorted(await _owned(client, asked, tutors))}
                owned["forwarded"] = sorted(await _owned(client, other, tutors))
                if not all(owned.values()):
                    raise RuntimeError(f"tutors by worker: {[len(ids) for ids in owned.values()]}")

                async def ask(kind: str, path: str, due: float) -> None:
                    try:
                        async with client.get(f"{asked.url}{path}") as response:
                            await response.read()
                            answers.statuses[f"{kind} {response.status}"] += 1
                    except (aiohttp.ClientError, TimeoutError) as failure:
                        answers.statuses[f"{kind} {type(failure).__name__}"] += 1
                    answers.seconds[kind].append(time.perf_counter() - due)

                await _predictions(deployment, tutors)
                sent = running.enter_context(
                    intake(deployment.settings, tutors, WARM_SESSIONS, WORKERS * EVENTS_PER_SECOND)
                )
                answers.settled_seconds = await _settled(asked)
                sent_before = sent()
                before, since = await _taken_in(asked)
                asking: set[asyncio.Task[None]] = set()
                began = time.perf_counter()
                for number in range(int(rate * seconds)):
                    due = began + number / rate
                    if (wait := due - time.perf_counter()) > 0:
                        await asyncio.sleep(wait)
                    kind = KINDS[number % 2]
                    task = asyncio.create_task(ask(kind, _path(owned[kind], number), due))
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                    if number % NO_OP_EVERY == 0:
                        task = asyncio.create_task(ask("no-op", "/livez", due))
                        asking.add(task)
                        task.add_done_callback(asking.discard)
                await asyncio.gather(*asking)
                sent_after = sent()
                after, until = await _taken_in(asked)
                words = asked.last_words()
    answers.events_per_second = (after - before) / (until - since)
    answers.sent_per_second = (sent_after - sent_before) / WORKERS / (until - since)
    if answers.events_per_second < AT_LEAST * answers.sent_per_second:
        raise RuntimeError(
            f"the worker asked took in {answers.events_per_second:.0f} of {answers.sent_per_second:.0f} events a second: {words}"
        )
    return answers


def _path(tutors: list[str], number: int) -> str:
    what = "performance" if number // 2 % PERFORMANCE_EVERY == 0 else "metrics"
    return f"/tutors/{tutors[number % len(tutors)]}/{what}"


@asynccontextmanager
async def signed_in(ground: Ground) -> AsyncIterator[tuple[Deployment, str]]:
    """A fresh deployment with a user who may read everything, and a token of theirs."""
    key = secrets.token_urlsafe(32)
    with ground.deployment(SECRET_KEY=key, TUTORMAX_WEB_RATE_PER_MINUTE="0") as deployment:
        await prepare_database(deployment.conninfo)
        async with await psycopg.AsyncConnection.connect(deployment.conninfo, autocommit=True) as connection:
            await connection.execute(USERS_TABLE)
            await connection.execute(
                "INSERT INTO users (id, email, hashed_password, is_active, is_superuser, is_verified, roles)"
                " VALUES (1, 'bench@example.org', '', true, false, true, '{ADMIN}')"
            )
        yield deployment, token_for(1, key, expires_at=time.time() + 3600)


async def run(ground: Ground, rate: int, seconds: float, tutors: int) -> Answers:
    """`measure` on a deployment of its own."""
    async with signed_in(ground) as (deployment, token):
        return await measure(deployment, token, rate, seconds, tutors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=500, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tutors", type=int, default=300)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        answers = asyncio.run(run(ground, options.rate, options.seconds, options.tutors))
    print("\n".join(answers.lines(options.rate, options.seconds)))


if __name__ == "__main__":
    main()
