"""What is read back is what was written, page by page; rows of other programs are read as far as they can be."""

from __future__ import annotations

from typing import Any

import pytest

from models.events import Event, Session
from models.versions import digest
from tests.postgres.builders import DAY, T, feedback, metrics, rows, session, tutor, tutor_event
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.loads import FencePosition, Loader
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter


async def everything(loader: Loader, kind: str, limit: int = 3, since_us: int | None = None) -> list[Event]:
    events: list[Event] = []
    after: str | None = ""
    while after is not None:
        page = await loader.page(kind, after, limit, since_us)
        assert page.unreadable == []
        events += page.events
        after = page.last
    return events


async def test_events_come_back_with_their_digests(database: Database, records: RecordWriter) -> None:
    written = [tutor(), tutor("t2"), *(session(f"s{n}", actual_start_us=None if n % 2 else T) for n in range(7))]
    written += [feedback(f"s{n}", improvement_areas=None if n % 2 else ()) for n in range(6)]
    written += [tutor_event("e1"), tutor_event("e2", metadata=None, created_us=T + 3, response_time_minutes=None)]
    await records.write(written)
    loader = Loader(database)
    loaded = [
        event for kind in ("tutor", "session", "feedback", "tutor_event") for event in await everything(loader, kind)
    ]
    assert sorted((type(e).__name__, e.home_id, digest(e)) for e in loaded) == sorted(
        (type(w.event).__name__, w.event.home_id, w.digest) for w in written
    )
    assert await loader.counts() == {"tutor": 2, "session": 7, "feedback": 6, "tutor_event": 2}


async def test_only_what_can_matter_to_a_window_if_asked(database: Database, records: RecordWriter) -> None:
    old: dict[str, Any] = {"scheduled_start_us": T - 200 * DAY, "at": T - 150 * DAY}
    await records.write(
        [
            tutor(at=T - 300 * DAY),
            session("old", **old),
            session("corrected", **{**old, "at": T}),
            session("new"),
            *(feedback(name, at=T - 140 * DAY) for name in ("old", "corrected", "new")),
            tutor_event("past", at=T - 130 * DAY),
            tutor_event("present", at=T - 120 * DAY),
        ]
    )
    loader = Loader(database)
    since = T - 121 * DAY
    assert [e.home_id for e in await everything(loader, "tutor", since_us=since)] == ["tutor_00001"]
    assert [e.home_id for e in await everything(loader, "session", since_us=since)] == ["corrected", "new"]
    assert {e.home_id for e in await everything(loader, "feedback", since_us=since)} == {"corrected", "new"}
    assert [e.home_id for e in await everything(loader, "tutor_event", since_us=since)] == ["present"]
    edge = [e.home_id for e in await everything(loader, "tutor_event", since_us=T - 120 * DAY)]
    assert edge == ["present"]
    assert await everything(loader, "tutor_event", since_us=T - 120 * DAY + 1) == []


async def test_what_is_parked_is_loaded_too_and_what_cannot_be_read_of_it_is_named(
    database: Database, records: RecordWriter, postgres: str
) -> None:
    await records.write([session("s-1"), session("s-2"), session("s-3")])
    rows(postgres, "UPDATE tutormax_streams.parked SET payload = 'nonsense' WHERE id = 's-2'")
    loader = Loader(database)
    first = await loader.parked_page(limit=2)
    assert [event.home_id for event in first.events] == ["s-1"]
    ((name, reason),) = first.unreadable
    assert (name, first.last) == ("session s-2", "session s-2")
    assert "Error" in reason
    second = await loader.parked_page(first.last or "", limit=2)
    assert [event.home_id for event in second.events] == ["s-3"]
    assert second.last is None


async def test_rows_of_the_platform_in_value_form_and_out_of_the_calendar_are_read(
    database: Database, records: RecordWriter, postgres: str
) -> None:
    await records.write([tutor(), session("a"), session("b"), feedback("a")])
    rows(postgres, "UPDATE sessions SET session_type = '1-on-1' WHERE session_id = 'a'")
    rows(postgres, "UPDATE sessions SET session_type = 'seminar', actual_start = 'infinity' WHERE session_id = 'b'")
    rows(postgres, "UPDATE student_feedback SET free_text_feedback = NULL")
    loader = Loader(database)
    first, second = await everything(loader, "session")
    assert isinstance(first, Session)
    assert isinstance(second, Session)
    assert (first.session_type, second.session_type) == ("1-on-1", "seminar")
    assert second.actual_start_us is not None
    assert second.actual_start_us > 2**62
    (rating,) = await everything(loader, "feedback")
    assert rating.free_text_feedback == ""  # type: ignore[union-attr]


async def test_the_furthest_position_of_each_partition_and_epoch(
    database: Database, records: RecordWriter, metric_writer: MetricsWriter
) -> None:
    await records.write([tutor(f"t{n}") for n in range(4)])
    await metric_writer.write(
        [
            (0, metrics("t0", position=5, as_of=T + 9)),
            (0, metrics("t1", position=8)),
            (2, metrics("t2", position=1)),
            (2, metrics("t3", epoch=2, position=0)),
        ]
    )
    assert await Loader(database).fences() == [
        FencePosition(1, 0, 8, T + 9, 2),
        FencePosition(1, 2, 1, T, 1),
        FencePosition(2, 2, 0, T, 1),
    ]


@pytest.mark.parametrize("kind", ["tutor", "session", "feedback", "tutor_event"])
async def test_an_empty_table_is_an_empty_page(kind: str, database: Database) -> None:
    page = await Loader(database).page(kind)
    assert (page.events, page.unreadable, page.last) == ([], [], None)
