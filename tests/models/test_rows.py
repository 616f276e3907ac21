"""Rows for PostgreSQL: columns, enum names, the way back, and the spelling of metadata."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import Feedback, Session, Tutor, TutorEvent
from models.metrics import WindowInputs, metrics_updated, window_metrics
from models.rows import (
    FEEDBACK_COLUMNS,
    METRIC_COLUMNS,
    SESSION_COLUMNS,
    STUDENT_COLUMNS,
    TUTOR_COLUMNS,
    TUTOR_EVENT_COLUMNS,
    feedback_of,
    feedback_row,
    metadata_text,
    metric_id,
    metric_rows,
    response_time_minutes,
    session_of,
    session_row,
    student_stub_row,
    tutor_event_of,
    tutor_event_row,
    tutor_of,
    tutor_row,
)

TUTOR = Tutor("t1", "Ann", "a@b.c", 1, "active", ("Math",), "PhD", "Rome", 12, "at_risk", 2, 3, 40, "STEM", 3600)
SESSION = Session("s1", "t1", "u1", 1, 5, 6, 60, "Math", "1-on-1", False, False, 0, 1, True, False, 7, 8, True, 3600)
FEEDBACK = Feedback("f1", "s1", "u1", "t1", 5, True, 1, 2, 3, 4, None, True, ("late",), "thanks", 9, 10)
EVENT = TutorEvent("e1", "t1", "message_response", 11, '{"response_time_minutes":7}', None, 7.0)


def columns(names: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(names, row, strict=True))


def test_tutor_columns() -> None:
    assert columns(TUTOR_COLUMNS, tutor_row(TUTOR)) == {
        "tutor_id": "t1",
        "name": "Ann",
        "email": "a@b.c",
        "onboarding_date": 1,
        "status": "ACTIVE",
        "subjects": ["Math"],
        "education_level": "PhD",
        "location": "Rome",
        "baseline_sessions_per_week": 12.0,
        "behavioral_archetype": "AT_RISK",
        "created_at": 2,
        "updated_at": 3,
    }


def test_session_columns() -> None:
    assert columns(SESSION_COLUMNS, session_row(SESSION)) == {
        "session_id": "s1",
        "tutor_id": "t1",
        "student_id": "u1",
        "session_number": 1,
        "scheduled_start": 5,
        "actual_start": 6,
        "duration_minutes": 60,
        "subject": "Math",
        "session_type": "ONE_ON_ONE",
        "tutor_initiated_reschedule": False,
        "no_show": False,
        "late_start_minutes": 0,
        "engagement_score": 1.0,
        "learning_objectives_met": True,
        "technical_issues": False,
        "created_at": 7,
        "updated_at": 8,
    }


def test_feedback_columns() -> None:
    assert columns(FEEDBACK_COLUMNS, feedback_row(FEEDBACK)) == {
        "feedback_id": "f1",
        "session_id": "s1",
        "student_id": "u1",
        "tutor_id": "t1",
        "overall_rating": 5,
        "is_first_session": True,
        "subject_knowledge_rating": 1,
        "communication_rating": 2,
        "patience_rating": 3,
        "engagement_rating": 4,
        "helpfulness_rating": None,
        "would_recommend": True,
        "improvement_areas": ["late"],
        "free_text_feedback": "thanks",
        "submitted_at": 9,
        "created_at": 10,
    }


def test_tutor_event_columns() -> None:
    assert columns(TUTOR_EVENT_COLUMNS, tutor_event_row(EVENT)) == {
        "event_id": "e1",
        "tutor_id": "t1",
        "event_type": "message_response",
        "event_timestamp": 11,
        "metadata": '{"response_time_minutes":7}',
        "created_at": 11,  # NOT NULL in the platform's table
    }


def test_whole_floats_are_floats() -> None:
    # Equality would not see it, yet the digest does.
    assert isinstance(tutor_row(TUTOR)[TUTOR_COLUMNS.index("baseline_sessions_per_week")], float)
    assert isinstance(session_row(SESSION)[SESSION_COLUMNS.index("engagement_score")], float)


@pytest.mark.parametrize(
    ("wire", "name", "back"),
    [
        ("active", "ACTIVE", "active"),
        ("inactive", "INACTIVE", "inactive"),
        ("churned", "CHURNED", "churned"),
        ("suspended", "INACTIVE", "inactive"),
        ("on leave", "on leave", "on leave"),
        ("ACTIVE", "ACTIVE", "active"),
    ],
)
def test_status(wire: str, name: str, back: str) -> None:
    row = tutor_row(msgspec.structs.replace(TUTOR, status=wire))
    assert row[TUTOR_COLUMNS.index("status")] == name
    assert tutor_of(row).status == back
    assert tutor_row(tutor_of(row)) == row


@pytest.mark.parametrize(
    ("wire", "name", "back"),
    [
        ("1-on-1", "ONE_ON_ONE", "1-on-1"),
        ("group", "GROUP", "group"),
        ("workshop", "GROUP", "group"),
        ("webinar", "webinar", "webinar"),
    ],
)
def test_session_type(wire: str, name: str, back: str) -> None:
    row = session_row(msgspec.structs.replace(SESSION, session_type=wire))
    assert row[SESSION_COLUMNS.index("session_type")] == name
    assert session_of(row).session_type == back


@pytest.mark.parametrize("archetype", ["high_performer", "at_risk", "new_tutor", "steady", "churner"])
def test_archetype(archetype: str) -> None:
    row = tutor_row(msgspec.structs.replace(TUTOR, behavioral_archetype=archetype))
    assert row[TUTOR_COLUMNS.index("behavioral_archetype")] == archetype.upper()
    assert tutor_of(row).behavioral_archetype == archetype


def test_values_stored_by_raw_sql_are_read_too() -> None:
    row = list(tutor_row(TUTOR))
    row[TUTOR_COLUMNS.index("status")] = "inactive"
    row[TUTOR_COLUMNS.index("behavioral_archetype")] = "steady"
    assert (tutor_of(row).status, tutor_of(row).behavioral_archetype) == ("inactive", "steady")
    row = list(session_row(SESSION))
    row[SESSION_COLUMNS.index("session_type")] = "group"
    assert session_of(row).session_type == "group"


def test_the_portals_missing_text_is_an_empty_one() -> None:
    row = list(feedback_row(FEEDBACK))
    row[FEEDBACK_COLUMNS.index("free_text_feedback")] = None
    assert feedback_of(row).free_text_feedback == ""


# --- there and back ---------------------------------------------------------------------------------------------------

texts = st.text(max_size=8)
instants = st.integers(-(2**56), 2**56)
numbers = st.integers(-(2**31), 2**31 - 1)
doubles = st.floats(allow_nan=False) | st.integers(-(2**31), 2**31)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
metadata = st.dictionaries(st.just("response_time_minutes") | texts, json_values, max_size=4)

statuses = st.sampled_from(["active", "inactive", "suspended", "churned", "ACTIVE"]) | texts
archetypes = st.sampled_from(["high_performer", "at_risk", "STEADY"]) | texts
session_types = st.sampled_from(["1-on-1", "group", "workshop", "GROUP"]) | texts

tutors = st.builds(
    Tutor, texts, texts, texts, instants, statuses, st.lists(texts, max_size=3).map(tuple), maybe(texts), maybe(texts),
    maybe(doubles), maybe(archetypes), instants, instants, maybe(numbers), maybe(texts), numbers,
)  # fmt: skip
sessions = st.builds(
    Session, texts, texts, texts, numbers, instants, maybe(instants), numbers, texts, session_types, st.booleans(),
    st.booleans(), numbers, maybe(doubles), maybe(st.booleans()), st.booleans(), instants, instants,
    maybe(st.booleans()), numbers,
)  # fmt: skip
feedbacks = st.builds(
    Feedback, texts, texts, texts, texts, numbers, st.booleans(), *[maybe(numbers)] * 5, maybe(st.booleans()),
    maybe(st.lists(texts, max_size=3).map(tuple)), texts, instants, instants,
)  # fmt: skip
tutor_events = st.builds(TutorEvent, texts, texts, texts, instants, maybe(metadata).map(metadata_text), maybe(instants))


@settings(max_examples=100)
@given(tutors)
def test_a_tutor_goes_there_and_back(tutor: Tutor) -> None:
    row = tutor_row(tutor)
    assert len(row) == len(TUTOR_COLUMNS)
    assert tutor_row(tutor_of(row)) == row


@settings(max_examples=100)
@given(sessions)
def test_a_session_goes_there_and_back(session: Session) -> None:
    row = session_row(session)
    assert len(row) == len(SESSION_COLUMNS)
    assert session_row(session_of(row)) == row


@settings(max_examples=100)
@given(feedbacks)
def test_feedback_goes_there_and_back(feedback: Feedback) -> None:
    row = feedback_row(feedback)
    assert len(row) == len(FEEDBACK_COLUMNS)
    assert feedback_row(feedback_of(row)) == row


def through_jsonb(text: str | None) -> Any:
    """What psycopg gives back of a ``jsonb`` column: numbers are decimals there, without exponent or signed zero."""

    def numeric(spelled: str) -> Any:
        mantissa, _, exponent = spelled.lower().partition("e")
        whole, _, fraction = mantissa.partition(".")
        scale = len(fraction) - int(exponent or 0)
        digits = int(whole + fraction)
        return digits * 10**-scale if scale <= 0 else float(f"{digits}e-{scale}")

    return None if text is None else json.loads(text, parse_float=numeric, parse_int=numeric)


@settings(max_examples=100)
@given(tutor_events)
def test_a_tutor_event_goes_there_and_back(event: TutorEvent) -> None:
    row = tutor_event_row(event)
    assert len(row) == len(TUTOR_EVENT_COLUMNS)
    assert tutor_event_row(tutor_event_of(row)) == row
    decoded = (*row[:4], through_jsonb(row[4]), row[5])
    assert tutor_event_row(tutor_event_of(decoded)) == row
    assert tutor_event_of(decoded).response_time_minutes == tutor_event_of(row).response_time_minutes


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ({}, "{}"),
        ({"b": 1, "a": {"d": "é", "c": 2.5}}, '{"a":{"c":2.5,"d":"é"},"b":1}'),
        ({"a": 7.0}, '{"a":7.0}'),
        ({"a": 1e16, "b": 2.0}, '{"a":10000000000000000,"b":2.0}'),
        ({"a": -0.0}, '{"a":0.0}'),
    ],
)
def test_metadata_has_one_spelling(value: Any, text: str | None) -> None:
    assert metadata_text(value) == text


def test_numbers_beyond_64_bits_are_floats_wherever_they_come_from() -> None:
    assert metadata_text({"a": 1e22}) == metadata_text({"a": 10**22}) == orjson.dumps({"a": 1e22}).decode()


def test_metadata_beyond_json_is_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"n": nested}
    for value in (nested, {"a": 10**400}, {"a": object()}):
        with pytest.raises(TypeError):
            metadata_text(value)


@pytest.mark.parametrize(
    ("value", "minutes"),
    [
        ({"response_time_minutes": 7}, 7.0),
        ({"response_time_minutes": 7.5}, 7.5),
        ({"response_time_minutes": 0}, 0.0),
        ({"response_time_minutes": True}, None),
        ({"response_time_minutes": None}, None),
        ({"response_time_minutes": "7"}, None),
        ({"response_time_minutes": 10**400}, None),
        ({"response_time_minutes": float("inf")}, None),
        ({"response_time_minutes": float("nan")}, None),
        ({}, None),
        ([7], None),
        (None, None),
    ],
)
def test_only_numbers_are_response_times(value: Any, minutes: float | None) -> None:
    assert response_time_minutes(value) == minutes


def test_metadata_read_as_text_or_bytes_or_decoded_is_the_same() -> None:
    row = tutor_event_row(EVENT)
    spelled = ['{"response_time_minutes": 7}', b'{"response_time_minutes": 7}', {"response_time_minutes": 7}]
    assert {tutor_event_of((*row[:4], metadata, row[5])) for metadata in spelled} == {
        msgspec.structs.replace(EVENT, created_us=11)
    }


# --- students and metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student_id", "name"), [("student_00042", "Student 00042"), ("a1b2", "Student 12"), ("zoe", "Student zoe")]
)
def test_student_stub(student_id: str, name: str) -> None:
    assert columns(STUDENT_COLUMNS, student_stub_row(student_id, 99)) == {
        "student_id": student_id,
        "name": name,
        "age": None,
        "grade_level": None,
        "subjects_interested": [],
        "is_under_13": False,
        "parent_email": None,
        "parent_consent_given": False,
        "parent_consent_date": None,
        "parent_consent_ip": None,
        "created_at": 99,
        "updated_at": 99,
    }


def test_metric_ids_are_storage() -> None:
    assert metric_id("tutor_00001", "7day") == "tms_3f7261f8752b094f8f75b9551b7ed433_7day"
    assert len({metric_id(tutor, window) for tutor in ("a", "b") for window in ("7day", "30day", "90day")}) == 6
    assert max(len(metric_id("é" * 50, window)) for window in ("7day", "30day", "90day")) <= 50


def test_metric_rows() -> None:
    windows = {
        window: window_metrics(window, "ignored", WindowInputs(no_shows=9), "upstream", login_known=False)
        for window in ("7day", "30day", "90day")
    }
    rows = [
        columns(METRIC_COLUMNS, row)
        for row in metric_rows(metrics_updated("t1", windows, as_of_us=5, epoch=1, position=2))
    ]
    assert [row["window"] for row in rows] == ["SEVEN_DAY", "THIRTY_DAY", "NINETY_DAY"]
    assert rows[2] == {
        "metric_id": metric_id("t1", "90day"),
        "tutor_id": "t1",
        "calculation_date": 5,
        "window": "NINETY_DAY",
        "sessions_completed": 0,
        "avg_rating": None,
        "first_session_success_rate": None,
        "reschedule_rate": None,
        "no_show_count": 9,
        "engagement_score": None,
        "learning_objectives_met_pct": None,
        "response_time_avg_minutes": None,
        "performance_tier": "NEEDS_ATTENTION",
        "created_at": 5,
        "updated_at": 5,
    }


def test_metadata_text_is_what_json_says() -> None:
    assert orjson.loads(metadata_text({"a": [1, 2.5, "x", None, True]}) or "") == {"a": [1, 2.5, "x", None, True]}
