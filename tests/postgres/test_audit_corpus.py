"""A shuffled corpus ends in the oracle's tables; the audit passes on the oracle's rows and finds what is altered by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import pytest_asyncio

from models.metrics import EngagementMode, MetricsUpdated, WindowMetrics, metrics_updated
from models.parsing import Accepted, Parser
from models.rows import metric_id
from tests.corpus import Corpus, corpus
from tests.oracle import DAY_US, Oracle
from tests.postgres.builders import enriched, rows
from tests.samples import NOW_US
from tutormax_streams.audit import audit
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter

KINDS = {"tutors": "tutor", "sessions": "session", "feedback": "feedback", "tutor-events": "tutor_event"}


@pytest.fixture(scope="module")
def history() -> Corpus:
    return corpus(seed=7, events=2000)


@pytest.fixture(scope="module")
def oracle(history: Corpus) -> Oracle:
    return Oracle(history.payloads, NOW_US)


def record(oracle: Oracle, tutor_id: str, t_us: int, mode: EngagementMode, position: int) -> MetricsUpdated:
    """The oracle's figures as the record that ought to be published."""
    windows = {
        window: WindowMetrics(window=window, metric_id=metric_id(tutor_id, window), sessions_per_week=0.0, **figures)
        for window, figures in oracle.metrics(tutor_id, t_us, mode).items()
    }
    return metrics_updated(tutor_id, windows, as_of_us=t_us, epoch=1, position=position)


@pytest.fixture(scope="module", autouse=True)
def loaded(postgres: str, history: Corpus) -> None:
    """The corpus in the tables: all versions, shuffled, in batches of odd sizes."""
    parser, rng = Parser(), random.Random(1)
    events = []
    for raw in history.records:
        parsed = parser.parse(KINDS[raw.topic], raw.value, NOW_US)
        if isinstance(parsed, Accepted):
            events.append(enriched(parsed.event))

    async def load() -> None:
        async with Database(postgres) as database:
            writer = RecordWriter(database, lambda: NOW_US)
            start = 0
            while start < len(events):
                size = rng.choice((1, 40, 400))
                assert (await writer.write(events[start : start + size])).refused == []
                start += size
            while (await writer.retry_parked(500)).unparked:
                pass

    asyncio.run(load())


@pytest_asyncio.fixture
async def opened(postgres: str) -> AsyncIterator[Database]:
    async with Database(postgres) as database:
        yield database


FENCES = itertools.count(1)


async def published(database: Database, oracle: Oracle, mode: EngagementMode) -> None:
    rng = random.Random(2)
    position = next(FENCES)
    instants = {tutor_id: NOW_US - rng.choice((0, 1, 3 * DAY_US, 40 * DAY_US)) for tutor_id in oracle.tutors}
    records = [record(oracle, tutor_id, t_us, mode, position) for tutor_id, t_us in instants.items()]
    assert (
        await MetricsWriter(database, Judge(lambda: NOW_US, 5.0)).write([(0, update) for update in records])
    ).fenced == 0


INSTANTS = {
    *("onboarding_date", "created_at", "updated_at", "scheduled_start", "actual_start", "submitted_at"),
    "event_timestamp",
}


def test_tables_are_the_oracles_whatever_the_order(oracle: Oracle, postgres: str) -> None:
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked") == [(0,)]
    for table, expected in oracle.tables().items():
        columns = list(next(iter(expected.values())))
        if table == "students":
            columns = [column for column in columns if column not in INSTANTS]
        selected = ", ".join(
            f"(extract(epoch FROM {column}) * 1000000)::bigint" if column in INSTANTS else f'"{column}"'
            for column in columns
        )
        stored = {tuple_of(row) for row in rows(postgres, f"SELECT {selected} FROM {table}")}
        assert stored == {tuple_of(row[column] for column in columns) for row in expected.values()}, table


def tuple_of(values: Iterable[Any]) -> tuple[str, ...]:
    """Lists and objects included, as something that a set can hold."""
    return tuple(json.dumps(value, sort_keys=True) for value in values)


@pytest.mark.parametrize("mode", ["normalized", "upstream"])
async def test_right_rows_pass(mode: EngagementMode, opened: Database, oracle: Oracle) -> None:
    await published(opened, oracle, mode)
    seen: list[tuple[int, int]] = []
    result = await audit(
        opened, mode, tutors_at_once=17, progress=lambda done, of: seen.append((done, of)), sleep=unwanted
    )
    assert result.differences == []
    assert (result.tutors, result.rows) == (len(oracle.tutors), 3 * len(oracle.tutors))
    assert seen[-1] == (result.tutors, result.tutors)


ALTERED = {
    "avg_rating": "avg_rating = avg_rating - 0.011",
    "first_session_success_rate": "first_session_success_rate = first_session_success_rate + 0.011",
    "reschedule_rate": "reschedule_rate = NULL",
    "engagement_score": "engagement_score = engagement_score * 1.001",
    "learning_objectives_met_pct": "learning_objectives_met_pct = 0.001 + learning_objectives_met_pct + 0.01",
    "response_time_avg_minutes": "response_time_avg_minutes = 1e9",
    "sessions_completed": "sessions_completed = sessions_completed + 1",
    "no_show_count": "no_show_count = no_show_count + 7",
    "performance_tier": "performance_tier = CASE performance_tier WHEN 'STRONG' THEN 'AT_RISK' ELSE 'STRONG' END",
    "calculation_date": "calculation_date = calculation_date + interval '1 microsecond'",
}


@pytest.mark.parametrize("column", ALTERED)
async def test_a_row_altered_by_hand_is_found(column: str, opened: Database, oracle: Oracle, postgres: str) -> None:
    await published(opened, oracle, "normalized")
    ((altered,),) = rows(
        postgres,
        f"""
        UPDATE tutor_performance_metrics SET {ALTERED[column]} WHERE metric_id = (
            SELECT metric_id FROM tutor_performance_metrics
            WHERE first_session_success_rate IS NOT NULL AND response_time_avg_minutes IS NOT NULL
            ORDER BY metric_id LIMIT 1
        ) RETURNING tutor_id
        """,
    )
    result = await audit(opened, "normalized", looks=2, wait_seconds=0)
    assert {difference.tutor_id for difference in result.differences} == {altered}
    assert len({difference.window for difference in result.differences}) == 1
    assert column in {difference.column for difference in result.differences}
    assert not result.ok
    heading, *lines = result.table()
    assert heading[:2] == ("tutor id", "window")
    assert len(lines) == len(result.differences)


async def unwanted(seconds: float) -> None:
    raise AssertionError("nothing differed, so there was no need to look again")


async def test_the_wrong_mode_is_noticed(opened: Database, oracle: Oracle) -> None:
    await published(opened, oracle, "upstream")
    result = await audit(opened, "normalized", looks=1)
    assert {difference.column for difference in result.differences} == {"engagement_score"}
