"""CPU cost of the sink's client side: `python -m benchmarks.sink` prints rows per CPU second of this process, and how
long the audit takes. `--audit-tutors 2500` audits at the scale of 0.9 M sessions (filling the tables takes minutes)."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import psycopg
import uvloop

from benchmarks.conditions import Conditions
from models.events import Enriched, Event, Feedback, Origin, Session, Tutor
from models.metrics import MetricsUpdated, WindowInputs, metrics_updated, window_metrics
from models.rows import metric_id
from models.versions import digest
from tutormax_streams.audit import audit
from tutormax_streams.embedded import EmbeddedPostgres
from tutormax_streams.postgres import schema
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.loads import Loader
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter

T = 1_764_504_000_000_000
TUTORS = 300
BATCHES = 40
Item = TypeVar("Item")

FILL = """
SET session_replication_role = replica;
INSERT INTO tutors SELECT 'a' || n, 'n', 'a' || n, now(), 'ACTIVE', '{}', NULL, NULL, 12, NULL, now(), now()
FROM generate_series(1, %(tutors)s) AS n;
INSERT INTO sessions
SELECT 'a' || n || '-' || m, 'a' || n, 'student_00001', m %% 5, t - m * interval '6 hours', t, 60, 'French',
    'ONE_ON_ONE', m %% 11 = 0, m %% 20 = 0, m %% 17, 0.8, m %% 3 > 0, false, now(), now()
FROM generate_series(1, %(tutors)s) AS n, generate_series(1, 360) AS m, to_timestamp(%(t)s) AS t;
INSERT INTO student_feedback
SELECT 'a' || n || '-' || m, 'a' || n || '-' || m, 'student_00001', 'a' || n, m %% 5 + 1, m %% 5 = 1, 5, 5, 5, 5, 5,
    NULL, NULL, '', now(), now()
FROM generate_series(1, %(tutors)s) AS n, generate_series(1, 280) AS m;
"""


def enriched(event: Event) -> Enriched:
    return Enriched(event, digest(event), Origin("sessions", 0, 0, 0), {})


def tutors() -> list[Enriched]:
    return [
        enriched(Tutor(f"t{n}", "n", f"t{n}@x", T, "active", ("French",), None, None, 12.0, "steady", T, T))
        for n in range(TUTORS)
    ]


def session(n: int, version: int) -> Enriched:
    number = f"{n * 7919:08x}-9b49-448e-b40c-3481aca6141f"
    start = T - n * 60_000_000
    figures = (start, start, 60, "French", "1-on-1", False, False, 2, 0.862, True, False, T, T + version)
    return enriched(Session(number, f"t{n % TUTORS}", f"student_{n % 900:05d}", 1, *figures))


def feedback(n: int, version: int) -> Enriched:
    number = f"{n * 7919:08x}-9b49-448e-b40c-3481aca6141f"
    ratings = (5, True, 5, 4, 4, 5, 4, True, (), "a word or two of praise", T + version, T)
    return enriched(Feedback(f"f{number}", number, f"student_{n % 900:05d}", f"t{n % TUTORS}", *ratings))


def update(n: int, position: int) -> tuple[int, MetricsUpdated]:
    inputs = WindowInputs(scheduled=9, completed=9, on_time=9, ratings=5, rating_sum=23)
    windows = {
        window: window_metrics(window, metric_id(f"t{n}", window), inputs, "normalized", login_known=False)
        for window in ("7day", "30day", "90day")
    }
    return 0, metrics_updated(f"t{n}", windows, as_of_us=T, epoch=1, position=position)


async def measured(
    name: str, batches: Iterable[list[Item]], write: Callable[[list[Item]], Awaitable[object]], rows_per_item: int = 1
) -> None:
    made = list(batches)
    rows = sum(map(len, made)) * rows_per_item
    cpu, wall = time.process_time(), time.perf_counter()
    for batch in made:
        await write(batch)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(f"  {name:<44}{rows / cpu:>12,.0f}{rows / wall:>12,.0f}")


def batches(make: Callable[[int, int], Item], size: int, version: int, first: int = 0) -> Iterator[list[Item]]:
    for batch in range(BATCHES):
        yield [make(first + batch * size + n, version) for n in range(size)]


async def run(url: str, audit_tutors: int) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await schema.ensure_platform_tables(connection)
        await schema.ensure_side_tables(connection)
    async with Database(url) as database:
        records, metrics = RecordWriter(database, lambda: T), MetricsWriter(database, Judge(lambda: T, 5.0))
        await records.write(tutors())
        print(f"  {'':<44}{'rows/CPU-s':>12}{'rows/s':>12}")
        for size in (200, 500, 1000):
            first = size * 1_000_000
            for name, make, version in (
                ("sessions, new", session, 0),
                ("sessions, later versions", session, 1),
                ("sessions, replayed", session, 1),
                ("feedback, new", feedback, 0),
            ):
                await measured(f"{name}, by {size}", batches(make, size, version, first), records.write)
        flushes = [[update(n, position) for n in range(TUTORS)] for position in range(BATCHES)]
        await measured(f"metrics of {TUTORS} tutors, three rows each", flushes, metrics.write, 3)
        cpu, rows, after = time.process_time(), 0, ""
        loader = Loader(database)
        while True:
            page = await loader.page("session", after, 2000)
            rows += len(page.events)
            if page.last is None:
                break
            after = page.last
        print(f"  {'sessions, loaded as events':<44}{rows / (time.process_time() - cpu):>12,.0f}")
        await audited(url, database, metrics, audit_tutors)


async def audited(url: str, database: Database, metrics: MetricsWriter, number: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL.split(";")[:-1]:
            connection.execute(statement.encode(), {"tutors": number, "t": T // 1_000_000})
        connection.execute("ANALYZE")
    made = [update(n, 1) for n in range(1, number + 1)]
    renamed = [
        (0, metrics_updated(f"a{n}", u.windows, as_of_us=T, epoch=1, position=1)) for n, (_, u) in enumerate(made, 1)
    ]
    for start in range(0, number, 1000):
        await metrics.write(renamed[start : start + 1000])
    began = time.perf_counter()
    result = await audit(database, "normalized", looks=1)
    seconds = time.perf_counter() - began
    print(f"audit of {result.rows:,} rows over {number * 360:,} sessions and more: {seconds:.1f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--audit-tutors", type=int, default=100)
    chosen = arguments.parse_args()
    with EmbeddedPostgres.pick("binaries") as server:
        print("\n".join(Conditions.now(f"{type(server).__name__}, fsync off").lines()))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(server.conninfo(), chosen.audit_tutors))


if __name__ == "__main__":
    main()
