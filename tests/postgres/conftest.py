"""A clean database and writers on it, for each test of the sink."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.postgres.builders import T, rows
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.database import Database, Deadlines
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter

EMPTIED = """
DELETE FROM tutors; DELETE FROM students; DELETE FROM tutormax_streams.parked;
DELETE FROM tutormax_streams.unannounced;
DELETE FROM tutormax_streams.parked_metrics; DELETE FROM tutormax_streams.metric_fences;
DELETE FROM tutormax_streams.announced; DELETE FROM tutormax_streams.alert_outbox
"""


@pytest_asyncio.fixture
async def database(postgres: str) -> AsyncIterator[Database]:
    rows(postgres, EMPTIED)
    async with Database(postgres, deadlines=Deadlines(lock=4.0, statement=5.0, work=8.0)) as opened:
        yield opened


@pytest.fixture
def records(database: Database) -> RecordWriter:
    return RecordWriter(database, lambda: T)


@pytest.fixture
def metric_writer(database: Database) -> MetricsWriter:
    return MetricsWriter(database, Judge(lambda: T, 5.0))
