"""Small cases of the audit, worked by hand: edges, missing rows, late arrivals, and who is not judged."""

from __future__ import annotations

from typing import Any

import msgspec

from models.metrics import MetricsUpdated, WindowMetrics, metrics_updated
from models.rows import metric_id
from tests.postgres.builders import DAY, HOUR, T, feedback, rows, session, tutor, tutor_event
from tutormax_streams.audit import AuditResult, Difference, audit
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter


def row(tutor_id: str = "tutor_00001", as_of: int = T, **figures: Any) -> MetricsUpdated:
    """A record of three empty windows, with these figures instead."""
    empty: dict[str, Any] = {
        **dict.fromkeys(("sessions_completed", "no_show_count", "sessions_scheduled", "first_sessions_count"), 0),
        **dict.fromkeys(("reschedule_count", "feedback_count", "sessions_per_week"), 0),
        **dict.fromkeys(("avg_rating", "first_session_success_rate", "reschedule_rate", "engagement_score")),
        **dict.fromkeys(("learning_objectives_met_pct", "response_time_avg_minutes", "no_show_rate_pct")),
        "performance_tier": "Developing",
    }
    windows = {
        window: WindowMetrics(window=window, metric_id=metric_id(tutor_id, window), **(empty | figures))
        for window in ("7day", "30day", "90day")
    }
    return metrics_updated(tutor_id, windows, as_of_us=as_of, epoch=1, position=1)


async def judged(database: Database, **options: Any) -> AuditResult:
    return await audit(database, "normalized", wait_seconds=0, **options)


async def test_a_tutor_without_anything_has_rows_of_nothing(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    await records.write([tutor()])
    missing = [Difference("tutor_00001", window, None, "row", "none", "one") for window in WINDOWS]
    assert (await judged(database)).differences == missing
    await metric_writer.write([(0, row())])
    assert (await judged(database)).ok


async def test_a_missing_row_is_found(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    await records.write([tutor()])
    await metric_writer.write([(0, row())])
    rows(postgres, "DELETE FROM tutor_performance_metrics WHERE \"window\" = 'THIRTY_DAY'")
    assert (await judged(database)).differences == [Difference("tutor_00001", "THIRTY_DAY", None, "row", "none", "one")]


WINDOWS = ("NINETY_DAY", "SEVEN_DAY", "THIRTY_DAY")


async def test_window_edges_are_inclusive_at_the_start_and_exclusive_at_the_end(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    starts = [T, T - 1, *(T - days * DAY + n for days in (7, 30, 90) for n in (-1, 0))]
    await records.write([tutor(), *(session(f"s{n}", scheduled_start_us=start) for n, start in enumerate(starts))])
    # Engagement: (0.4 * 86.2 + 0.2 * 100) / 0.6. Four flags are green and none is red.
    figures: dict[str, Any] = {"reschedule_rate": 0.0, "engagement_score": 90.8, "learning_objectives_met_pct": 100.0}
    update = row(**figures, performance_tier="Strong")
    counts = {"7day": 2, "30day": 4, "90day": 6}
    windows = {
        window: msgspec.structs.replace(figure, sessions_completed=counts[window])
        for window, figure in update.windows.items()
    }
    await metric_writer.write([(0, msgspec.structs.replace(update, windows=windows))])
    assert (await judged(database)).differences == []


async def test_figures_at_the_edge_of_rounding_pass_and_beyond_do_not(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter, postgres: str
) -> None:
    # Mean response 1.005 minutes, which a float holds as a little less: Python rounds it to 1.0, others to 1.01.
    events = [
        tutor_event(f"e{n}", at=T - HOUR, metadata=f'{{"response_time_minutes":{minutes}}}')
        for n, minutes in enumerate((1.0, 1.01))
    ]
    await records.write([tutor(), *events])
    for stored, passes in ((1.0, True), (1.01, True), (0.99, False), (1.02, False)):
        rows(postgres, "DELETE FROM tutormax_streams.metric_fences")
        await metric_writer.write([(0, row(response_time_avg_minutes=stored))])
        assert (await judged(database)).ok is passes


async def test_only_json_numbers_are_response_times(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    odd = ["null", "true", '"7"', "[]", "{}", "1e400"]
    events = [
        tutor_event(f"e{n}", at=T - HOUR, metadata=f'{{"response_time_minutes":{value}}}')
        for n, value in enumerate([*odd, "3"])
    ]
    await records.write([tutor(), *events, tutor_event("none", at=T - HOUR, metadata=None)])
    await metric_writer.write([(0, row(response_time_avg_minutes=3.0))])
    assert (await judged(database)).ok


async def test_what_catches_up_between_two_looks_is_no_difference(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    await records.write([tutor(), session(scheduled_start_us=T - HOUR)])
    await metric_writer.write([(0, row())])
    looks: list[float] = []

    async def catch_up(seconds: float) -> None:
        looks.append(seconds)
        await records.write([session(scheduled_start_us=T + 9 * DAY, at=T + 1)])

    result = await audit(database, "normalized", looks=3, wait_seconds=1.5, sleep=catch_up)
    assert result.ok
    assert looks == [1.5]


async def test_tutors_of_waiting_records_are_not_judged(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    await records.write([tutor("a"), tutor("b"), tutor("c"), session("s", tutor_id="a", scheduled_start_us=T - HOUR)])
    # The session has moved to somebody unknown, and a rating of "b" waits for its session.
    await records.write([session("s", tutor_id="x", at=T + 1), feedback("unknown", tutor_id="b")])
    await metric_writer.write([(0, row("a")), (0, row("b", avg_rating=4.0)), (0, row("c", avg_rating=4.0))])
    result = await judged(database)
    assert {difference.tutor_id for difference in result.differences} == {"c"}
    assert result.unjudged == 3
