"""Writers of different homes and of metrics, all parking and unparking at once: none waits in a circle for another."""

from __future__ import annotations

import asyncio
import random
import time
import zlib

from models.events import Enriched
from tests.postgres.builders import T, feedback, metrics, rows, session, tutor
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter

WRITERS = 4
TUTORS = [f"t{number}" for number in range(30)]
SESSIONS = 600
BATCH = 60


def batches_of(writer: int, rng: random.Random) -> list[list[Enriched]]:
    """What comes to one owner of homes: sessions and ratings in several versions, and late the tutors they wait for."""
    made: list[Enriched] = []
    for number in range(SESSIONS):
        session_id = f"s{number}"
        if zlib.crc32(session_id.encode()) % WRITERS == writer:
            for version in range(3):
                whose = rng.choice(TUTORS)
                made += [session(session_id, whose, T + version), feedback(session_id, rng.choice(TUTORS), T + version)]
    rng.shuffle(made)
    for number, tutor_id in enumerate(TUTORS):
        if number % WRITERS == writer:
            made.insert(rng.randrange(len(made)), tutor(tutor_id))
    return [made[start : start + BATCH] for start in range(0, len(made), BATCH)]


async def test_no_deadlock_while_tutors_arrive_last(database: Database, postgres: str):
    rng = random.Random(7)

    async def persist(batches: list[list[Enriched]]) -> None:
        records = RecordWriter(database, lambda: T)
        for batch in batches:
            await records.write(batch)
            await records.retry_parked(100)

    async def flush(partition: int) -> None:
        flusher = MetricsWriter(database, Judge(lambda: T, 5.0))
        for position in range(25):
            mine = [tutor_id for number, tutor_id in enumerate(TUTORS) if number % 2 == partition]
            await flusher.write([(partition, metrics(tutor_id, position=position)) for tutor_id in mine])
            await flusher.retry_parked(100)

    started = deadlocks(postgres)
    owners = [persist(batches_of(writer, rng)) for writer in range(WRITERS)]
    await asyncio.gather(*owners, flush(0), flush(1))
    records = RecordWriter(database, lambda: T)
    while (await records.retry_parked(10_000)).unparked:
        pass
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked") == [(0,)]
    assert rows(postgres, "SELECT count(*), min(updated_at) = max(updated_at) FROM sessions") == [(SESSIONS, True)]
    assert deadlocks(postgres) == started


def deadlocks(url: str) -> int:
    """How many there have been, as PostgreSQL counts; sessions report within a second."""
    time.sleep(1.2)
    return int(rows(url, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0])
