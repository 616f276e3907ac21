"""Faults of PostgreSQL and of the ways to it. Windows stay fresh all the while: on topic `metrics`, and for who asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import psycopg

from models.metrics import decode
from tests.faults.load import Probe
from tests.faults.registry import fault
from tests.faults.run import Run
from tests.flow import users
from tests.flow.processes import Worker
from tutormax_streams import kafka
from tutormax_streams.embedded.server import HOST

AWAY_SECONDS = 60.0
MOST_WINDOW_AGE_SECONDS = 15.0
MOST_LATE_ANSWERS = 0.02  # of all
LONGEST_ROUND_SECONDS = 2.0  # on average, for a question to every worker
CUT_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tutormax-streams'"
REPEATED = "a transaction met another writer's and is repeated: deadlock detected"
TROUBLE = "trouble made by a test"
WRITTEN = ("tutors", "sessions", "student_feedback", "tutor_events", "tutor_performance_metrics")


@asynccontextmanager
async def watched_by(watch: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """It watches while this lasts. What ends it before is raised at the end."""
    watching = asyncio.create_task(watch)
    try:
        yield
    finally:
        failure = watching.exception() if watching.done() else None
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if failure is not None:
        raise failure


@asynccontextmanager
async def fresh_lookups(run: Run) -> AsyncIterator[None]:
    """While this lasts, every worker answers with fresh figures, its own and others', whatever PostgreSQL does."""
    head = {"Authorization": f"Bearer {users.token(users.STAFF)}"}
    asked = late = 0
    most_age = MOST_WINDOW_AGE_SECONDS * run.patience
    async with aiohttp.ClientSession(headers=head, timeout=aiohttp.ClientTimeout(total=10)) as client:

        async def age(worker: Worker, probe: Probe) -> float:
            """Of the oldest session that the answer does not count; infinite without an answer."""
            url = f"http://{HOST}:{worker.port}/tutors/{probe.tutor_id}/metrics?window=7day"
            try:
                async with client.get(url) as response:
                    found = (await response.json())["metrics"] if response.status == 200 else None
            except (aiohttp.ClientError, TimeoutError):
                found = None
            if found is None:
                return float("inf")
            counted = found["sessions_completed"]
            return time.monotonic() - probe.acknowledged[counted] if counted < len(probe.acknowledged) else 0.0

        async def watch() -> None:
            nonlocal asked, late
            while True:
                for worker in run.running:
                    asked += 1
                    late += await age(worker, run.rng.choice(run.load.probes)) > most_age
                await asyncio.sleep(0.3)

        for worker in run.workers:  # who asks is remembered from now on
            for probe in run.load.probes:
                until = time.monotonic() + 60
                while await age(worker, probe) > most_age / 2:
                    assert time.monotonic() < until, f"{worker.name} does not know {probe.tutor_id}"
                    await asyncio.sleep(0.2)
        began = time.monotonic()
        async with watched_by(watch()):
            yield
    run.notes["lookups"] = f"{asked:,}, {late} late or unanswered"
    least = max(1.0, (time.monotonic() - began) / LONGEST_ROUND_SECONDS * len(run.workers))
    assert asked >= least, f"only {asked} lookups"
    assert late <= asked * MOST_LATE_ANSWERS, f"{late} of {asked} lookups were late or unanswered"


@asynccontextmanager
async def fresh_windows(run: Run) -> AsyncIterator[None]:
    """What is published, and what is answered, stays fresh."""
    async with fresh_lookups(run), fresh_records(run):
        yield


@asynccontextmanager
async def fresh_records(run: Run) -> AsyncIterator[None]:
    """While this lasts, the windows that are published follow the probes, whatever PostgreSQL does."""
    counted: dict[str, int] = {}
    oldest = 0.0
    most_age = MOST_WINDOW_AGE_SECONDS * run.patience
    caught_up = asyncio.Event()

    async def read() -> None:
        nonlocal oldest
        async with kafka.consumer(run.deployment.settings) as client:
            ends = await kafka.log_ends(run.deployment.settings, [run.deployment.topics.metrics])
            client.assign(list(ends))
            await client.seek_to_beginning()
            while True:
                for records in (await client.getmany(timeout_ms=300)).values():
                    for record in records:
                        update = decode(record.value)
                        counted[update.tutor_id] = update.windows["7day"].sessions_completed
                now = time.monotonic()
                ages = [
                    now - probe.acknowledged[counted.get(probe.tutor_id, 0)]
                    for probe in run.load.probes
                    if counted.get(probe.tutor_id, 0) < len(probe.acknowledged)
                ]
                if max(ages, default=0.0) < most_age / 2:
                    caught_up.set()
                if caught_up.is_set():
                    oldest = max([oldest, *ages])

    async with watched_by(read()):
        await asyncio.wait_for(caught_up.wait(), 60)
        yield
    run.notes["oldest window (s)"] = max(float(run.notes.get("oldest window (s)", 0)), round(oldest, 1))
    assert oldest < most_age, f"windows were {oldest:.1f} s old while PostgreSQL was in trouble"


async def away(run: Run, how: str, seconds: float) -> None:
    async with fresh_windows(run):
        await asyncio.to_thread(getattr(run.ground.postgres, how))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(run.ground.postgres.start)
        run.is_over()


@fault("postgres-restart", 7, "PostgreSQL is restarted in order")
async def restart(run: Run) -> None:
    await away(run, "stop", 0)


@fault("postgres-kill9", 7, "SIGKILL of PostgreSQL, started again at once", times=3)
async def kill(run: Run) -> None:
    for _ in range(run.times):
        await away(run, "kill", 0)
        await asyncio.sleep(run.rng.uniform(2, 8))


@fault("postgres-down", 7, "PostgreSQL is down for 60 s", within=30.0)
async def down(run: Run) -> None:
    await away(run, "stop", AWAY_SECONDS)


@fault(
    "postgres-down-short", 7, "PostgreSQL is down for 12 s; platform's formula literally", short_times=1, within=30.0,
    settings={"TUTORMAX_ENGAGEMENT_MODE": "upstream"},
)  # fmt: skip
async def down_shortly(run: Run) -> None:
    """The sink says that it waits and why; the stream stays ready; liveness does not fail."""
    async with fresh_windows(run):
        await asyncio.to_thread(run.ground.postgres.stop)
        await asyncio.sleep(8)
        for worker in run.workers:
            report = await asyncio.to_thread(worker.health)
            assert report is not None
            assert report["roles"]["stream"]["ready"], report
            assert any("PostgreSQL" in reason for reason in report["roles"]["sink"]["reasons"]), report
            assert worker.get("/livez") == b'{"alive":true}', worker.get("/livez")
            assert not report["ready"]
        assert run.metric("sink_retries") > 2
        names = run.deployment.topics
        assert await run.deployment.lag(names.enriched, names.metrics) > 0  # offsets wait for what is not written
        await asyncio.sleep(4)
        await asyncio.to_thread(run.ground.postgres.start)


@fault("postgres-lock", 7, "the table of metrics is locked for 60 s, and then that of sessions", within=30.0)
async def lock(run: Run) -> None:
    for table in ("tutor_performance_metrics", "sessions"):
        retries = run.metric("sink_retries")
        async with fresh_windows(run):
            await run.sql(f"LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep({AWAY_SECONDS})")
        assert run.metric("sink_retries") > retries, f"no sink ever met the lock of {table}"


@fault("postgres-slow", 7, "everything that is sent to PostgreSQL takes 500 ms longer, for 60 s", proxied=True)
async def slow(run: Run) -> None:
    async with fresh_windows(run):
        for doors in run.doors:
            doors.postgres.slow(0.5)
        seconds, count = run.metric("sink_seconds_sum"), run.metric("sink_seconds_count")
        await asyncio.sleep(AWAY_SECONDS)
        seconds, count = run.metric("sink_seconds_sum") - seconds, run.metric("sink_seconds_count") - count
        for doors in run.doors:
            doors.postgres.mend()
    run.notes["duration of a write (s)"] = round(seconds / count, 2)
    assert seconds >= 0.5 * count, "writes were as quick as ever"


@fault("postgres-cut", 6, "one worker's connections to PostgreSQL are cut for 60 s", proxied=True)
async def cut(run: Run) -> None:
    await _door(run, "cut")


@fault("postgres-stall", 6, "one worker's connections to PostgreSQL are stalled for 60 s", proxied=True)
async def stall(run: Run) -> None:
    await _door(run, "stall")


async def _door(run: Run, what: str) -> None:
    worker, doors = run.rng.choice(list(zip(run.workers, run.doors, strict=True)))
    async with fresh_windows(run):
        mended = time.monotonic() + AWAY_SECONDS
        getattr(doors.postgres, what)()
        await worker.until(lambda told: "waits for PostgreSQL" in str(told), AWAY_SECONDS)
        await asyncio.sleep(mended - time.monotonic())
        doors.postgres.mend()


# -- errors that PostgreSQL answers with --------------------------------------------------------------------------------


@asynccontextmanager
async def raising(run: Run, state: str, share: float) -> AsyncIterator[None]:
    """Writes to the platform's tables fail with this SQLSTATE, one statement in 1/`share`."""
    await insist(
        run,
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF random() < "
        f"{share} THEN RAISE EXCEPTION '{TROUBLE}' USING ERRCODE = '{state}'; END IF; RETURN NULL; END $$;"
        + "".join(
            f"CREATE TRIGGER trouble AFTER INSERT OR UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION trouble();"
            for table in WRITTEN
        ),
    )
    try:
        yield
    finally:
        await insist(run, "DROP FUNCTION trouble CASCADE")


async def insist(run: Run, statement: str) -> None:
    """Run it although workers hold locks on the same tables in another order: who is the victim is PostgreSQL's choice."""
    for _ in range(20):
        with suppress(psycopg.errors.DeadlockDetected):
            return await run.sql(statement)
    raise AssertionError(f"it was the victim of a deadlock 20 times: {statement[:60]}")


async def in_trouble(run: Run, state: str, share: float, seconds: float) -> None:
    before = told(run, TROUBLE)
    async with fresh_windows(run), raising(run, state, share):
        await asyncio.sleep(seconds)
    met = run.notes["times that logs tell of it"] = told(run, TROUBLE) - before
    assert met, "no sink ever met it"


def told(run: Run, words: str) -> int:
    """How often logs say so."""
    return sum(worker.log.read_text(errors="replace").count(words) for worker in run.workers)


@fault("postgres-disk-full", 7, "PostgreSQL answers every write with 'disk full' for 30 s", short_times=1, within=30.0)
async def disk_full(run: Run) -> None:
    await in_trouble(run, "53100", 1.0, 30.0 if not run.is_short else 8.0)


@fault("postgres-serialisation", 7, "one write in three fails to serialise, for 30 s")
async def serialisation(run: Run) -> None:
    await in_trouble(run, "40001", 0.33, 30.0)


@fault("postgres-deadlocks", 7, "rivals lock rows of metrics, in any order and in the opposite of ours, for 30 s")
async def deadlocks(run: Run) -> None:
    """PostgreSQL's victim is who looks first why it waits, which each does once. The rival in opposite order is in no
    hurry to look, so it is our sink that loses, and repeats what it had begun."""
    ended = time.monotonic() + 30
    died = 0

    async def rival(statement: str) -> None:
        nonlocal died
        with suppress(psycopg.OperationalError):
            try:
                await run.sql(statement)
            except psycopg.errors.DeadlockDetected:
                died += 1
        await asyncio.sleep(0.05)

    async def in_any_order() -> None:
        tutors = [probe.tutor_id for probe in run.load.probes]
        while time.monotonic() < ended:
            run.rng.shuffle(tutors)
            await rival(
                "".join(
                    f"UPDATE tutor_performance_metrics SET created_at = created_at WHERE tutor_id = '{tutor}';"
                    " SELECT pg_sleep(0.05);"
                    for tutor in tutors
                )
            )

    async def in_opposite_order() -> None:
        while time.monotonic() < ended:
            await rival(
                "SET LOCAL deadlock_timeout = '3s'; DO $$ DECLARE id text; BEGIN FOR id IN SELECT metric_id FROM "
                "tutor_performance_metrics ORDER BY metric_id DESC LOOP UPDATE tutor_performance_metrics SET created_at "
                "= created_at WHERE metric_id = id; PERFORM pg_sleep(0.001); END LOOP; END $$"
            )

    async with fresh_windows(run):
        await asyncio.gather(in_any_order(), in_any_order(), in_opposite_order())
    ours = told(run, REPEATED)
    run.notes |= {"deadlocks that hit a rival": died, "deadlocks that hit our sink": ours}
    assert died, "no rival was ever the victim"
    assert ours, "our sink was never the victim"


@fault("postgres-connections", 7, "PostgreSQL has no connection left for 30 s", within=30.0)
async def no_connections(run: Run) -> None:
    taken: list[psycopg.AsyncConnection[Any]] = []
    async with fresh_windows(run):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(psycopg.OperationalError):
                while True:
                    taken.append(
                        await psycopg.AsyncConnection.connect(run.deployment.database, application_name="somebody")
                    )
            # Workers that hold the last ones lose them, and pause before they try again: then it is our turn.
            with suppress(psycopg.Error):
                cut = await taken[0].execute(CUT_SESSIONS)
                await taken[0].commit()
                if not cut.rowcount:
                    await asyncio.sleep(0.5)
        waited = run.load.age()
        for connection in taken:
            await connection.close()
    run.notes["connections taken"] = len(taken)
    assert waited > 15, f"rows were {waited:.1f} s old: sinks had connections all the while"


@fault("postgres-sessions", 7, "all sessions of PostgreSQL are terminated", times=10)
async def sessions(run: Run) -> None:
    for _ in range(run.times):
        await run.sql(CUT_SESSIONS)
        run.is_over()
        await asyncio.sleep(run.rng.uniform(0.2, 3))


@fault("sigterm-without-postgres", 16, "SIGTERM while PostgreSQL is away", within=30.0)
async def sigterm_without_postgres(run: Run) -> None:
    await asyncio.to_thread(run.ground.postgres.stop)
    await asyncio.sleep(3)
    worker = run.rng.choice(run.workers)
    began = time.monotonic()
    code = await worker.stop()
    run.notes["stopped within (s)"] = round(time.monotonic() - began, 1)
    assert code == 0, f"{worker.name} ended with {code} after SIGTERM"
    worker.start()
    report = await worker.until(lambda told: told["roles"]["stream"]["ready"])
    assert "waits for PostgreSQL" in str(report["roles"]["sink"]), report
    await asyncio.to_thread(run.ground.postgres.start)
