"""RecordWriter on a real PostgreSQL: what is stored, who wins, who is refused."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from models.events import Enriched
from models.rows import metadata_text
from tests.postgres.builders import DAY, HOUR, T, enriched, feedback, ids, rows, session, tutor, tutor_event
from tutormax_streams.postgres.errors import SinkUnavailable
from tutormax_streams.postgres.records import RecordWriter

NOON = datetime(2025, 11, 30, 12, 0, 0, 123456, tzinfo=UTC)


async def test_an_empty_batch_is_nothing(records: RecordWriter) -> None:
    result = await records.write([])
    assert (result.written, result.refused, result.parked, result.unparked) == ([], [], 0, 0)


async def test_all_kinds_are_stored_with_enum_names_and_exact_instants(records: RecordWriter, postgres: str) -> None:
    result = await records.write(
        [feedback(), tutor_event(), session(actual_start_us=None, session_type="workshop"), tutor()]
    )
    assert ids(result.written) == [
        ("feedback", "f-s-1"),
        ("session", "s-1"),
        ("tutor", "tutor_00001"),
        ("tutor_event", "e-1"),
    ]
    assert rows(postgres, "SELECT status, behavioral_archetype, subjects, updated_at FROM tutors") == [
        ("ACTIVE", "HIGH_PERFORMER", ["Algebra", "Physics"], NOON)
    ]
    assert rows(postgres, "SELECT session_type, actual_start, engagement_score FROM sessions") == [
        ("GROUP", None, 0.862)
    ]
    assert rows(postgres, "SELECT free_text_feedback, improvement_areas, patience_rating FROM student_feedback") == [
        ('Grüße, \\ \t\n"quoted" 🎓', ["late"], None)
    ]
    assert rows(postgres, "SELECT metadata, event_timestamp, created_at FROM tutor_events") == [
        ({"response_time_minutes": 12.5}, NOON, NOON)
    ]


async def test_an_instant_keeps_its_microseconds_at_both_ends_of_time(records: RecordWriter, postgres: str) -> None:
    early, late = -8_520_336_000_000_001, 253_402_300_799_999_999  # 1700 less a microsecond; the last of year 9999
    await records.write([tutor(onboarding_us=early, created_us=late)])
    ((onboarding, created),) = rows(
        postgres,
        "SELECT (extract(epoch FROM onboarding_date) * 1000000)::bigint, (extract(epoch FROM created_at) * 1000000)::bigint"
        " FROM tutors",
    )
    assert (onboarding, created) == (early, late)


async def test_students_are_made_up_once_and_never_changed(records: RecordWriter, postgres: str) -> None:
    rows(
        postgres,
        "INSERT INTO students VALUES ('student_7', 'Real', 12, '6', '{Art}', true, NULL, true, NULL, NULL, now(), now())",
    )
    batch = [
        tutor(),
        session(student_id="student_00042"),
        feedback(student_id="student_7"),
        session("s-2", student_id="Zoë"),
    ]
    await records.write(batch)
    stored = rows(
        postgres, "SELECT student_id, name, age, grade_level, subjects_interested, is_under_13 FROM students ORDER BY 1"
    )
    assert stored == [
        ("Zoë", "Student Zoë", None, None, [], False),
        ("student_00042", "Student 00042", None, None, [], False),
        ("student_7", "Real", 12, "6", ["Art"], True),
    ]


async def test_the_later_version_wins_in_any_order_and_within_a_batch(records: RecordWriter, postgres: str) -> None:
    first, second, third = (tutor(at=T + n, name=f"version {n}", created_us=T + n) for n in range(3))
    result = await records.write([second, third, first])
    assert len(result.written) == 1
    assert rows(postgres, "SELECT name FROM tutors") == [("version 2",)]
    result = await records.write([second])
    assert (result.written, result.stale) == ([], 1)
    assert rows(postgres, "SELECT name, created_at = updated_at FROM tutors") == [("version 2", True)]


async def test_a_replay_changes_nothing_and_is_reported_again(records: RecordWriter, postgres: str) -> None:
    batch = [tutor(), session(), feedback(), tutor_event()]
    first = await records.write(batch)
    before = rows(
        postgres,
        "SELECT xmin FROM tutors UNION ALL SELECT xmin FROM sessions UNION ALL SELECT xmin FROM student_feedback UNION ALL SELECT xmin FROM tutor_events",
    )
    again = await records.write(batch)
    assert ids(again.written) == ids(first.written)
    assert before == rows(
        postgres,
        "SELECT xmin FROM tutors UNION ALL SELECT xmin FROM sessions UNION ALL SELECT xmin FROM student_feedback UNION ALL SELECT xmin FROM tutor_events",
    )


@pytest.mark.parametrize("make", [tutor, session, feedback, tutor_event])
async def test_of_equally_late_versions_the_greater_digest_stays(
    make: Any, records: RecordWriter, postgres: str
) -> None:
    await records.write([tutor(), session()])
    field = {tutor: "name", session: "subject", feedback: "free_text_feedback", tutor_event: "event_type"}[make]
    versions = sorted((make(at=T + HOUR, **{field: f"text {n}"}) for n in range(6)), key=lambda v: v.digest)
    table = {tutor: "tutors", session: "sessions", feedback: "student_feedback", tutor_event: "tutor_events"}[make]
    for seed in range(4):
        shuffled = versions[:]
        random.Random(seed).shuffle(shuffled)
        for version in shuffled:
            await records.write([version])
    ((stored,),) = rows(postgres, f"SELECT {field} FROM {table}")
    assert stored == getattr(versions[-1].event, field)


async def test_metadata_is_compared_by_content_not_by_spelling(records: RecordWriter, postgres: str) -> None:
    metadata = metadata_text(
        {"b": [1, 2.5, None, 1e16, 1e-7], "a": {"ü": "\u00fc", "": True}, "response_time_minutes": 3.0}
    )
    event = tutor_event(metadata=metadata)
    await records.write([tutor(), event])
    before = rows(postgres, "SELECT xmin FROM tutor_events")
    assert len((await records.write([event])).written) == 1
    assert rows(postgres, "SELECT xmin FROM tutor_events") == before


async def test_a_newer_row_of_the_platform_itself_stands(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor(), session()])
    rows(postgres, "UPDATE sessions SET subject = 'by hand', updated_at = updated_at + interval '1 hour'")
    assert (await records.write([session(at=T + HOUR - 1)])).stale == 1
    assert rows(postgres, "SELECT subject FROM sessions") == [("by hand",)]


# --- Feedback ids -----------------------------------------------------------------------------------------------------


async def test_feedback_takes_the_winners_id(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor(), session(), feedback(feedback_id="old")])
    result = await records.write([feedback(feedback_id="new", at=T + 1)])
    assert ids(result.written) == [("feedback", "new")]
    assert rows(postgres, "SELECT feedback_id, session_id FROM student_feedback") == [("new", "s-1")]


@pytest.mark.parametrize("together", [True, False])
async def test_a_taken_feedback_id_gives_way_to_one_of_the_session(
    together: bool, records: RecordWriter, postgres: str
) -> None:
    await records.write([tutor(), *(session(f"s-{n}") for n in range(3))])
    same = [feedback(f"s-{n}", feedback_id="same", overall_rating=n + 1) for n in range(3)]
    if together:
        written = (await records.write(same)).written
    else:
        written = [row for record in same for row in (await records.write([record])).written]
    stored = rows(postgres, "SELECT session_id, feedback_id, overall_rating FROM student_feedback ORDER BY 1")
    assert [(session_id, rating) for session_id, _, rating in stored] == [("s-0", 1), ("s-1", 2), ("s-2", 3)]
    given = [feedback_id for _, feedback_id, _ in stored]
    assert given[0] == "same"
    assert all(name.startswith("session-") and len(name) <= 50 for name in given[1:])
    assert sorted(given) == sorted(row.id for row in written)
    again = await records.write(same)
    assert sorted(row.id for row in again.written) == sorted(given)
    await records.write([feedback("s-1", feedback_id="same", overall_rating=5, at=T + 5)])
    assert rows(postgres, "SELECT feedback_id, overall_rating FROM student_feedback WHERE session_id = 's-1'") == [
        (given[1], 5)
    ]


async def test_feedback_ids_may_be_exchanged_within_a_batch(records: RecordWriter, postgres: str) -> None:
    await records.write(
        [tutor(), session("a"), session("b"), feedback("a", feedback_id="1"), feedback("b", feedback_id="2")]
    )
    result = await records.write([feedback("a", feedback_id="2", at=T + 1), feedback("b", feedback_id="1", at=T + 1)])
    assert len(result.written) == 2
    assert len(set(rows(postgres, "SELECT feedback_id FROM student_feedback"))) == 2


# --- Refusals ---------------------------------------------------------------------------------------------------------


async def test_a_duplicate_email_is_refused_alone(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor("a", email="taken@example.org")])
    batch = [
        tutor("b", email="taken@example.org"),
        tutor("c"),
        tutor("d", email="x@y.z"),
        tutor("e", email="x@y.z"),
        session(tutor_id="c"),
    ]
    result = await records.write(batch)
    assert [(record.event.tutor_id, code) for record, code, _ in result.refused] == [
        ("b", "duplicate"),
        ("e", "duplicate"),
    ]
    assert all("e-mail" in detail for _, _, detail in result.refused)
    assert rows(postgres, "SELECT tutor_id FROM tutors ORDER BY 1") == [("a",), ("c",), ("d",)]
    assert rows(postgres, "SELECT count(*) FROM sessions") == [(1,)]
    assert [code for _, code, _ in (await records.write([tutor("b", email="taken@example.org")])).refused] == [
        "duplicate"
    ]


async def test_emails_may_be_handed_on_and_swapped_within_a_batch(records: RecordWriter, postgres: str) -> None:
    await records.write(
        [tutor("a", email="1@x"), tutor("b", email="2@x"), tutor("c", email="3@x"), tutor("d", email="4@x")]
    )
    later = T + HOUR
    result = await records.write(
        [
            tutor("a", email="2@x", at=later),
            tutor("b", email="5@x", at=later),
            tutor("c", email="4@x", at=later),
            tutor("d", email="3@x", at=later),
        ]
    )
    assert (len(result.written), result.refused) == (4, [])
    assert rows(postgres, "SELECT tutor_id, email FROM tutors ORDER BY 1") == [
        ("a", "2@x"),
        ("b", "5@x"),
        ("c", "4@x"),
        ("d", "3@x"),
    ]


async def test_who_is_refused_an_email_keeps_the_old_one_from_others(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor("a", email="1@x"), tutor("b", email="2@x"), tutor("z", email="9@x")])
    result = await records.write([tutor("a", email="9@x", at=T + 1), tutor("b", email="1@x", at=T + 1)])
    assert sorted(record.event.tutor_id for record, _, _ in result.refused) == ["a", "b"]
    assert rows(postgres, "SELECT tutor_id, email FROM tutors ORDER BY 1") == [("a", "1@x"), ("b", "2@x"), ("z", "9@x")]


async def test_a_stale_tutor_gives_up_no_email(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor("a", email="1@x", at=T + 5)])
    result = await records.write([tutor("a", email="2@x", at=T), tutor("b", email="1@x", at=T)])
    assert (result.stale, [record.event.tutor_id for record, _, _ in result.refused]) == (1, ["b"])
    assert rows(postgres, "SELECT tutor_id, email FROM tutors") == [("a", "1@x")]


POISON = {
    "nul": {"subject": "a\0b"},
    "surrogate": {"subject": "\ud800"},
    "long": {"subject": "x" * 101},
    "number": {"duration_minutes": 2**31},
    "late": {"scheduled_start_us": 9_224_318_016_000_000_000},  # the end of PostgreSQL's time
    "later": {"scheduled_start_us": 2**70},
    "type": {"session_number": "one"},
    "student": {"student_id": "s" * 51},
    "nul student": {"student_id": "a\0"},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_what_postgresql_cannot_hold_is_refused_alone(
    poison: dict[str, Any], records: RecordWriter, postgres: str
) -> None:
    good = [session(f"s-{n}") for n in range(20)]
    event = msgspec.structs.replace(session("s-7-bad").event, **poison)
    bad = msgspec.structs.replace(session(), event=event, digest=b"12345678")
    result = await records.write([tutor(), *good[:7], bad, *good[7:], feedback("s-3")])
    assert [record.event.home_id for record, _, _ in result.refused] == ["s-7-bad"]
    ((_, code, detail),) = result.refused
    assert code in {"refused_by_database", "unstorable"}
    assert detail.endswith(")") or detail
    assert rows(postgres, "SELECT count(*) FROM sessions") == [(20,)]
    assert rows(postgres, "SELECT count(*) FROM student_feedback") == [(1,)]


async def test_a_trigger_of_the_platform_may_refuse_a_row(records: RecordWriter, postgres: str) -> None:
    rows(
        postgres,
        """
        CREATE FUNCTION no_art() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.subject = 'Art' THEN RAISE EXCEPTION 'no art'; END IF; RETURN NEW; END $$;
        CREATE TRIGGER no_art BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION no_art()
        """,
    )
    try:
        result = await records.write([tutor(), session("s-1", subject="Art"), session("s-2")])
    finally:
        rows(postgres, "DROP FUNCTION no_art CASCADE")
    assert [record.event.home_id for record, _, _ in result.refused] == ["s-1"]
    assert rows(postgres, "SELECT session_id FROM sessions") == [("s-2",)]


# --- Size and company -------------------------------------------------------------------------------------------------


async def test_a_batch_of_five_thousand(records: RecordWriter, postgres: str) -> None:
    tutors = [tutor(f"t{n}") for n in range(50)]
    sessions = [session(f"s-{n:05d}", f"t{n % 50}", student_id=f"student_{n % 700}") for n in range(3000)]
    ratings = [feedback(f"s-{n:05d}", f"t{n % 50}") for n in range(0, 3000, 2)]
    events = [tutor_event(f"e-{n}", f"t{n % 50}") for n in range(450)]
    batch: list[Enriched] = [*events, *ratings, *sessions, *tutors]
    assert len(batch) == 5000
    result = await records.write(batch)
    assert (len(result.written), result.refused, result.parked) == (5000, [], 0)
    assert rows(postgres, "SELECT count(*) FROM students") == [(701,)]


async def test_concurrent_writers_with_overlapping_keys_in_opposite_order(records: RecordWriter, postgres: str) -> None:
    def batch(version: int) -> list[Enriched]:
        made = [tutor(f"t{n}", at=T + version, name=f"v{version}") for n in range(30)]
        made += [session(f"s{n}", f"t{n % 30}", at=T + version, subject=f"v{version}") for n in range(100)]
        made += [feedback(f"s{n}", f"t{n % 30}", at=T + version, free_text_feedback=f"v{version}") for n in range(100)]
        random.Random(version).shuffle(made)
        return made if version % 2 else made[::-1]

    results = await asyncio.gather(*(records.write(batch(version)) for version in range(16)))
    assert all(not result.refused for result in results)
    for _ in range(3):
        await records.retry_parked(1000)
    assert rows(postgres, "SELECT DISTINCT name FROM tutors") == [("v15",)]
    assert rows(postgres, "SELECT DISTINCT subject FROM sessions") == [("v15",)]
    assert rows(postgres, "SELECT DISTINCT free_text_feedback, count(*) FROM student_feedback GROUP BY 1") == [
        ("v15", 100)
    ]
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked") == [(0,)]


async def test_writers_racing_for_an_email_leave_it_to_one(records: RecordWriter, postgres: str) -> None:
    results = await asyncio.gather(*(records.write([tutor(f"t{n}", email="one@x"), tutor(f"u{n}")]) for n in range(8)))
    assert sum(len(result.refused) for result in results) == 7
    assert rows(postgres, "SELECT count(*) FROM tutors") == [(9,)]


async def test_missing_tables_hold_the_work(records: RecordWriter, postgres: str) -> None:
    rows(postgres, "ALTER TABLE tutor_events RENAME TO elsewhere")
    try:
        with pytest.raises(SinkUnavailable, match="tutor_events"):
            await records.write([tutor(), tutor_event()])
    finally:
        rows(postgres, "ALTER TABLE elsewhere RENAME TO tutor_events")
    assert rows(postgres, "SELECT count(*) FROM tutors") == [(0,)]
    assert len((await records.write([tutor(), tutor_event()])).written) == 2


async def test_tight_columns_as_the_platforms_models_make_them(records: RecordWriter, postgres: str) -> None:
    rows(
        postgres,
        """
        ALTER TABLE tutors ALTER status TYPE varchar(8), ALTER behavioral_archetype TYPE varchar(14);
        ALTER TABLE sessions ALTER session_type TYPE varchar(10)
        """,
    )
    archetypes = ("high_performer", "at_risk", "new_tutor", "steady", "churner")
    statuses = ("active", "inactive", "suspended", "churned", "active")
    batch = [tutor(f"t{n}", status=statuses[n], behavioral_archetype=archetypes[n]) for n in range(5)]
    batch += [session(f"s{n}", "t0", session_type=kind) for n, kind in enumerate(("1-on-1", "group", "workshop"))]
    result = await records.write([*batch, enriched(msgspec.structs.replace(tutor("t9").event, updated_us=T + DAY))])
    assert (len(result.written), result.refused) == (9, [])
