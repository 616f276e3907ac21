"""MetricsWriter on a real PostgreSQL: three rows under one fence, stale writers refused, unknown tutors waited for."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import msgspec

from models.metrics import MetricsUpdated
from models.rows import metric_id
from tests.postgres.builders import T, metrics, rows, tutor
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter

TUTOR = "tutor_00001"


async def test_three_rows_by_enum_name_under_deterministic_ids(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor()])
    result = await metric_writer.write([(3, metrics(scheduled=4, completed=3, no_shows=1, rescheduled=1, on_time=4))])
    assert (result.written, result.fenced, result.parked) == ([TUTOR], 0, 0)
    stored = rows(
        postgres,
        'SELECT "window", metric_id, performance_tier, sessions_completed, reschedule_rate, avg_rating,'
        " (extract(epoch FROM calculation_date) * 1000000)::bigint, created_at = updated_at"
        " FROM tutor_performance_metrics ORDER BY 1",
    )
    assert stored == [
        (name, metric_id(TUTOR, window), "NEEDS_ATTENTION", 3, 25.0, None, T, True)
        for window, name in (("90day", "NINETY_DAY"), ("7day", "SEVEN_DAY"), ("30day", "THIRTY_DAY"))
    ]
    assert rows(postgres, "SELECT epoch, position, facts_partition FROM tutormax_streams.metric_fences") == [(1, 10, 3)]


async def test_no_updates_are_nothing(metric_writer: MetricsWriter) -> None:
    result = await metric_writer.write([])
    assert (result.written, result.fenced, result.parked) == ([], 0, 0)


FENCES: list[dict[str, Any]] = [
    {"epoch": 1, "position": 500, "as_of": T + 900},
    {"epoch": 2, "position": 3, "as_of": T},
    {"epoch": 2, "position": 3, "as_of": T + 5},
    {"epoch": 2, "position": 4, "as_of": T - 50},
]


async def test_the_greatest_fence_stays_in_any_order(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    orders = list(itertools.permutations(range(4)))
    await records.write([tutor(f"t{n}") for n in range(len(orders))])
    for place in range(4):
        numbers = [(f"t{n}", order[place], max(order[: place + 1])) for n, order in enumerate(orders)]
        updates = [metrics(tutor_id, **FENCES[number], completed=number) for tutor_id, number, _ in numbers]
        result = await metric_writer.write([(0, update) for update in updates])
        assert result.fenced == sum(number < greatest for _, number, greatest in numbers)
    assert rows(postgres, "SELECT DISTINCT sessions_completed FROM tutor_performance_metrics") == [(3,)]


async def test_an_equal_fence_is_a_replay_and_changes_nothing(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor()])
    await metric_writer.write([(0, metrics(scheduled=1, completed=1))])
    again = await metric_writer.write([(0, metrics(scheduled=1, completed=0))])
    assert (again.written, again.fenced) == ([TUTOR], 0)
    assert rows(postgres, "SELECT DISTINCT sessions_completed FROM tutor_performance_metrics") == [(1,)]


async def test_created_at_is_the_first_rows_and_the_rest_follows(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor()])
    await metric_writer.write([(0, metrics())])
    await metric_writer.write([(0, metrics(position=11, as_of=T + 1_000_000))])
    query = "SELECT DISTINCT calculation_date - created_at, updated_at - created_at FROM tutor_performance_metrics"
    ((calculated, updated),) = rows(postgres, query)
    assert calculated.total_seconds() == updated.total_seconds() == 1


async def test_rows_of_the_platform_are_left_alone(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor()])
    rows(
        postgres,
        "INSERT INTO tutor_performance_metrics SELECT 'metric_0123456789ab', 'tutor_00001', now(), 'SEVEN_DAY', 7,"
        " NULL, NULL, NULL, 0, NULL, NULL, NULL, 'STRONG', now(), now()",
    )
    before = rows(postgres, "SELECT xmin, * FROM tutor_performance_metrics")
    await metric_writer.write([(0, metrics())])
    query = "SELECT xmin, * FROM tutor_performance_metrics WHERE metric_id LIKE 'metric%'"
    assert rows(postgres, query) == before
    assert rows(postgres, "SELECT count(*) FROM tutor_performance_metrics") == [(4,)]


async def test_an_unknown_tutors_greatest_fence_waits_until_the_tutor_is_written(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor("known")])
    for position in (5, 7, 6):
        update = metrics(position=position, scheduled=9, completed=position)
        result = await metric_writer.write([(2, update), (0, metrics("known", position=position))])
        assert (len(result.written) + result.fenced, result.parked) == (1, 1)
    assert rows(postgres, "SELECT tutor_id, position FROM tutormax_streams.parked_metrics") == [(TUTOR, 7)]
    assert [update.position for update in (await records.write([tutor()])).unparked_metrics] == [7]
    assert (await records.write([tutor()])).unparked_metrics == []
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked_metrics") == [(0,)]
    query = "SELECT count(*), max(sessions_completed) FROM tutor_performance_metrics WHERE tutor_id = 'tutor_00001'"
    assert rows(postgres, query) == [(3, 7)]
    query = "SELECT facts_partition, position FROM tutormax_streams.metric_fences WHERE tutor_id = 'tutor_00001'"
    assert rows(postgres, query) == [(2, 7)]


async def test_a_retry_finds_tutors_that_another_program_wrote(metric_writer: MetricsWriter, postgres: str) -> None:
    await metric_writer.write([(0, metrics()), (0, metrics("nobody"))])
    assert (await metric_writer.retry_parked(10)).written == []
    rows(
        postgres,
        "INSERT INTO tutors SELECT 'tutor_00001', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()",
    )
    result = await metric_writer.retry_parked(10)
    assert (result.written, result.unparked_metrics) == ([TUTOR], [metrics()])
    assert rows(postgres, "SELECT tutor_id FROM tutormax_streams.parked_metrics") == [("nobody",)]


async def test_what_waits_goes_when_it_is_overtaken(metric_writer: MetricsWriter, postgres: str) -> None:
    await metric_writer.write([(0, metrics(position=5))])
    rows(
        postgres,
        "INSERT INTO tutors SELECT 'tutor_00001', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()",
    )
    assert (await metric_writer.write([(0, metrics(position=6, scheduled=1, completed=1))])).written == [TUTOR]
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked_metrics") == [(0,)]
    assert (await metric_writer.write([(0, metrics(position=4))])).fenced == 1
    assert rows(postgres, "SELECT max(sessions_completed) FROM tutor_performance_metrics") == [(1,)]


async def test_a_record_that_postgresql_refuses_does_not_hold_up_its_neighbours(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor(f"t{n}") for n in range(9)])
    updates = [metrics(f"t{n}") for n in range(9)]
    updates[4] = metrics("t4", completed=2**31)
    result = await metric_writer.write([(0, update) for update in updates])
    assert len(result.written) == 8
    assert [(record.tutor_id, code) for record, code, _ in result.refused] == [("t4", "refused_by_database")]
    assert rows(postgres, "SELECT count(*) FROM tutor_performance_metrics") == [(24,)]


async def test_a_waiting_record_that_is_refused_is_reported_once_and_harms_neither_tutor_nor_neighbour(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await metric_writer.write([(0, metrics("bad", completed=2**31)), (0, metrics("good"))])
    assert len((await records.write([tutor("bad"), tutor("good")])).written) == 2
    assert rows(postgres, "SELECT count(*) FROM tutor_performance_metrics WHERE tutor_id = 'good'") == [(3,)]
    assert [record.tutor_id for record, _, _ in (await metric_writer.retry_parked(10)).refused] == ["bad"]
    assert (await metric_writer.retry_parked(10)).refused == []


async def test_concurrent_flushes_do_not_deadlock_and_the_greatest_fence_stays(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    tutors = [f"t{n}" for n in range(60)]
    await records.write([tutor(tutor_id) for tutor_id in tutors])

    def flush(position: int) -> list[tuple[int, MetricsUpdated]]:
        updates = [(0, metrics(tutor_id, position=position, completed=position)) for tutor_id in tutors]
        random.Random(position).shuffle(updates)
        return updates

    results = await asyncio.gather(*(metric_writer.write(flush(position)) for position in range(1, 21)))
    assert sum(len(result.written) + result.fenced for result in results) == 20 * 60
    assert rows(postgres, "SELECT DISTINCT sessions_completed FROM tutor_performance_metrics") == [(20,)]


async def test_tight_columns_as_the_platforms_models_make_them(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    rows(
        postgres,
        'ALTER TABLE tutor_performance_metrics ALTER "window" TYPE varchar(10), ALTER performance_tier TYPE varchar(15)',
    )
    tiers = ("Exemplary", "Strong", "Developing", "Needs Attention", "At Risk")
    await records.write([tutor(f"{'t' * 49}{n}") for n in range(5)])
    updates = []
    for number, tier in enumerate(tiers):
        update = metrics(f"{'t' * 49}{number}")
        windows = {
            key: msgspec.structs.replace(window, performance_tier=tier) for key, window in update.windows.items()
        }
        updates.append((0, msgspec.structs.replace(update, windows=windows)))
    assert len((await metric_writer.write(updates)).written) == 5
    stored = rows(postgres, "SELECT DISTINCT performance_tier FROM tutor_performance_metrics ORDER BY 1")
    assert stored == [("AT_RISK",), ("DEVELOPING",), ("EXEMPLARY",), ("NEEDS_ATTENTION",), ("STRONG",)]
