"""The referee is refereed: the contract's golden vectors and small cases worked by hand, on the oracle itself."""

from __future__ import annotations

import random
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.oracle import (
    DAY_US,
    MINUTE_US,
    Oracle,
    Payload,
    Row,
    instant_us,
    payload_of,
    performance_tier,
    window_metrics,
)
from tests.samples import (
    NOW_US,
    ODD_METADATA,
    bare,
    enveloped,
    feedback_payload,
    session_payload,
    spelled,
    tutor_event_payload,
    tutor_payload,
)


def session(session_id: str, start_us: int, tutor_id: str = "ann", **changes: Any) -> Payload:
    return session_payload(session_id, tutor_id, start_us, NOW_US - MINUTE_US, **{"engagement_score": 0.9} | changes)


def feedback(session_id: str, rating: int, tutor_id: str = "ann", **changes: Any) -> Payload:
    return feedback_payload(f"FB-{session_id}", session_id, tutor_id, rating, NOW_US - MINUTE_US, **changes)


def tutor(tutor_id: str, **changes: Any) -> Payload:
    return tutor_payload(tutor_id, NOW_US - MINUTE_US, **changes)


def login(event_id: str, moment_us: int, tutor_id: str = "ann", **changes: Any) -> Payload:
    return tutor_event_payload(event_id, tutor_id, "login", moment_us, **changes)


# --- Contract §12 ----------------------------------------------------------------------------------------------------


def vector_sessions(*tuples: tuple[int, bool, bool, int, float | None, bool | None, bool]) -> list[Row]:
    return [
        {
            "session_id": str(position),
            "session_number": number,
            "no_show": no_show,
            "actual_start": 0 if started else None,
            "late_start_minutes": late,
            "engagement_score": engagement,
            "learning_objectives_met": objectives,
            "tutor_initiated_reschedule": rescheduled,
        }
        for position, (number, no_show, started, late, engagement, objectives, rescheduled) in enumerate(tuples)
    ]


def vector_ratings(*ratings: int | None) -> list[Row]:
    return [{"session_id": str(i), "overall_rating": rating} for i, rating in enumerate(ratings) if rating is not None]


def vector_events(logins: int, *responses: float) -> list[Row]:
    answered = [
        {"event_type": "message_response", "metadata": {"response_time_minutes": minutes}} for minutes in responses
    ]
    return [{"event_type": "login", "metadata": None}] * logins + answered


V1_SESSIONS = vector_sessions(
    (1, False, True, 2, 0.8, True, False),
    (2, False, True, 0, 0.9, False, False),
    (1, True, False, 0, 0, True, False),
    (3, False, True, 15, 0.7, True, True),
    (1, False, True, 0, None, None, False),
)
V2_SESSIONS = [
    row | {"engagement_score": row["engagement_score"] and row["engagement_score"] * 100} for row in V1_SESSIONS
]
V3_SESSIONS = vector_sessions(*[(1, False, True, 0, 95.0, True, False)] * 8)
V1_RATINGS, V1_EVENTS = vector_ratings(5, 4, None, 3, None), vector_events(3, 10, 25, 7)

V1 = {
    "sessions_completed": 4,
    "avg_rating": 4.0,
    "first_session_success_rate": 100.0,
    "reschedule_rate": 20.0,
    "no_show_count": 1,
    "engagement_score": 40.24,
    "learning_objectives_met_pct": 75.0,
    "response_time_avg_minutes": 14.0,
    "performance_tier": "At Risk",
}
V2 = V1 | {"engagement_score": 64.0, "performance_tier": "Needs Attention"}
V3 = {
    "sessions_completed": 8,
    "avg_rating": 5.0,
    "first_session_success_rate": 100.0,
    "reschedule_rate": 0.0,
    "no_show_count": 0,
    "engagement_score": 98.0,
    "learning_objectives_met_pct": 100.0,
    "response_time_avg_minutes": None,
    "performance_tier": "Exemplary",
}
V4 = {
    "sessions_completed": 0,
    "avg_rating": None,
    "first_session_success_rate": None,
    "reschedule_rate": None,
    "no_show_count": 0,
    "engagement_score": None,
    "learning_objectives_met_pct": None,
    "response_time_avg_minutes": None,
    "performance_tier": "Developing",
}


@pytest.mark.parametrize(
    ("mode", "sessions", "ratings", "events", "expected"),
    [
        pytest.param("upstream", V1_SESSIONS, V1_RATINGS, V1_EVENTS, V1, id="V1"),
        pytest.param("upstream", V2_SESSIONS, V1_RATINGS, V1_EVENTS, V2, id="V2"),
        pytest.param("normalized", V1_SESSIONS, V1_RATINGS, V1_EVENTS, V2, id="V1 in normalized is V2"),
        pytest.param("upstream", V3_SESSIONS, vector_ratings(*[5] * 6), vector_events(8), V3, id="V3"),
        pytest.param("normalized", V3_SESSIONS, vector_ratings(*[5] * 6), vector_events(8), V3, id="V3 in normalized"),
        pytest.param("upstream", [], [], [], V4, id="V4"),
        pytest.param("normalized", [], [], [], V4, id="V4 in normalized"),
    ],
)
def test_golden_vectors(
    mode: str, sessions: list[Row], ratings: list[Row], events: list[Row], expected: dict[str, Any]
) -> None:
    has_login = any(event["event_type"] == "login" for event in events)
    figures = window_metrics(sessions, ratings, events, has_login_in_90_days=has_login, mode=mode)
    assert {column: figures[column] for column in expected} == expected


# --- Windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start_us", "windows"),
    [
        (NOW_US, set()),  # the end is exclusive
        (NOW_US - 1, {"7day", "30day", "90day"}),
        (NOW_US - 7 * DAY_US, {"7day", "30day", "90day"}),  # the start is inclusive
        (NOW_US - 7 * DAY_US - 1, {"30day", "90day"}),
        (NOW_US - 30 * DAY_US, {"30day", "90day"}),
        (NOW_US - 30 * DAY_US - 1, {"90day"}),
        (NOW_US - 90 * DAY_US, {"90day"}),
        (NOW_US - 90 * DAY_US - 1, set()),
        (NOW_US + 1, set()),
    ],
)
def test_a_window_includes_its_start_and_excludes_its_end(start_us: int, windows: set[str]) -> None:
    referee = Oracle(
        {
            "sessions": [session("s", start_us)],
            "feedback": [feedback("s", 3)],
        },
        NOW_US,
    )
    figures = referee.metrics("ann", NOW_US)
    assert {window for window, row in figures.items() if row["sessions_completed"] == 1} == windows
    assert {window for window, row in figures.items() if row["avg_rating"] == 3.0} == windows


def test_a_login_weighs_in_every_window_once_there_is_one_in_90_days() -> None:
    payloads = {"sessions": [session("s", NOW_US - DAY_US)], "tutor-events": [login("l", NOW_US - 40 * DAY_US)]}
    with_login = Oracle(payloads, NOW_US).metrics("ann", NOW_US)
    without = Oracle(payloads | {"tutor-events": []}, NOW_US).metrics("ann", NOW_US)
    assert with_login["7day"]["engagement_score"] == 56.0  # 0.4 * 0 + 0.4 * 90 + 0.2 * 100
    assert with_login["90day"]["engagement_score"] == 96.0  # 0.4 * 100 + 0.4 * 90 + 0.2 * 100
    assert without["7day"]["engagement_score"] == 93.33  # (0.4 * 90 + 0.2 * 100) / 0.6


def test_only_json_numbers_are_response_times() -> None:
    events = [
        login(str(i), NOW_US - DAY_US, event_type="message_response", metadata=metadata)
        for i, metadata in enumerate(ODD_METADATA)
    ]
    figures = Oracle({"tutor-events": events}, NOW_US).metrics("ann", NOW_US)
    assert figures["7day"]["response_time_avg_minutes"] == round((7 + 0.1 + 1e6 - 3.25) / 4, 2)


@pytest.mark.parametrize(
    ("changes", "tier"),
    [
        ({}, "Developing"),  # no-show 0 is the only flag
        ({"no_show_count": 3}, "Developing"),  # in between
        ({"no_show_count": 4}, "Needs Attention"),
        ({"avg_rating": 4.5, "reschedule_rate": 10.0}, "Strong"),
        ({"avg_rating": 4.5, "reschedule_rate": 10.0, "engagement_score": 80.0}, "Strong"),
        (
            {
                "avg_rating": 4.5,
                "reschedule_rate": 10.0,
                "engagement_score": 80.0,
                "learning_objectives_met_pct": 90.0,
            },
            "Exemplary",
        ),
        ({"avg_rating": 3.49, "reschedule_rate": 15.01}, "Needs Attention"),
        ({"avg_rating": 3.49, "reschedule_rate": 15.01, "engagement_score": 59.99}, "At Risk"),
        ({"avg_rating": 3.5, "reschedule_rate": 15.0, "engagement_score": 60.0}, "Developing"),
        ({"first_session_success_rate": 69.99, "learning_objectives_met_pct": 79.99}, "Needs Attention"),
        ({"first_session_success_rate": 70.0, "learning_objectives_met_pct": 80.0}, "Developing"),
        ({"first_session_success_rate": 85.0, "learning_objectives_met_pct": 90.0}, "Strong"),
    ],
)
def test_tiers_at_their_edges(changes: dict[str, Any], tier: str) -> None:
    assert performance_tier(V4 | changes) == tier


# --- Versions, moves, foreign ratings --------------------------------------------------------------------------------


def test_the_greatest_updated_at_wins_in_any_order() -> None:
    old = session("s", NOW_US - DAY_US, no_show=True, actual_start=None, updated_at=spelled(NOW_US - 9 * MINUTE_US))
    new = session("s", NOW_US - 8 * DAY_US)
    for order in ([old, new], [new, old], [new, old, new, old]):
        figures = Oracle({"sessions": order}, NOW_US).metrics("ann", NOW_US)
        assert figures["7day"]["sessions_scheduled"] == 0
        assert figures["30day"]["sessions_completed"] == 1
        assert figures["30day"]["no_show_count"] == 0


def test_a_moved_session_leaves_its_rating_behind() -> None:
    before = session("s", NOW_US - DAY_US, session_number=1, updated_at=spelled(NOW_US - 9 * MINUTE_US))
    after = session("s", NOW_US - DAY_US, session_number=1, tutor_id="bob")
    referee = Oracle({"sessions": [after, before], "feedback": [feedback("s", 5)]}, NOW_US)
    ann, bob = referee.metrics("ann", NOW_US)["7day"], referee.metrics("bob", NOW_US)["7day"]
    assert (ann["sessions_scheduled"], ann["avg_rating"], ann["first_session_success_rate"]) == (0, 5.0, None)
    assert (bob["sessions_scheduled"], bob["avg_rating"], bob["first_session_success_rate"]) == (1, None, None)


def test_the_later_feedback_of_a_session_takes_the_row_whatever_its_id() -> None:
    earlier = feedback("s", 1, feedback_id="a", submitted_at=spelled(NOW_US - 9 * MINUTE_US))
    later = feedback("s", 4, feedback_id="b")
    referee = Oracle(
        {"tutors": [tutor("ann")], "sessions": [session("s", NOW_US - DAY_US)], "feedback": [later, earlier]}, NOW_US
    )
    assert set(referee.tables()["student_feedback"]) == {"b"}
    assert referee.metrics("ann", NOW_US)["7day"]["avg_rating"] == 4.0


def test_feedback_without_its_session_counts_for_nothing() -> None:
    figures = Oracle({"feedback": [feedback("s", 5)]}, NOW_US).metrics("ann", NOW_US)
    assert figures["90day"]["avg_rating"] is None


def test_a_tie_needs_a_tie_break_only_if_the_versions_differ() -> None:
    one, other = session("s", NOW_US - DAY_US), session("s", NOW_US - DAY_US, late_start_minutes=20)
    assert Oracle({"sessions": [one, dict(one)]}, NOW_US).sessions["s"]["late_start_minutes"] == 0
    with pytest.raises(AssertionError, match="no tie_break"):
        Oracle({"sessions": [one, other]}, NOW_US)
    for order in ([one, other], [other, one]):
        referee = Oracle({"sessions": order}, NOW_US, tie_break=lambda _, payload: payload["late_start_minutes"])
        assert referee.sessions["s"]["late_start_minutes"] == 20


# --- Rows ------------------------------------------------------------------------------------------------------------


def test_stored_rows_hold_names_and_normalised_values() -> None:
    tables = Oracle(
        {
            "tutors": [tutor("ann", status="suspended", name="x" * 240, behavioral_archetype="at_risk")],
            "sessions": [
                session("s", NOW_US - DAY_US, session_type="workshop", engagement_score=85),
                session("n", NOW_US - DAY_US, no_show=True, session_type=None),
            ],
            "feedback": [feedback("s", 5, free_text_feedback=None)],
            "tutor-events": [login("l", NOW_US - DAY_US)],
        },
        NOW_US,
    ).tables()
    ann = tables["tutors"]["ann"]
    assert (ann["status"], ann["behavioral_archetype"], len(ann["name"])) == ("INACTIVE", "AT_RISK", 200)
    assert ann["onboarding_date"] == instant_us("2024-01-02T03:04:05Z")
    assert not {"age", "subject_type", "tenure_days"} & ann.keys()
    held, missed = tables["sessions"]["s"], tables["sessions"]["n"]
    assert (held["session_type"], held["engagement_score"]) == ("GROUP", 0.85)
    assert (missed["session_type"], missed["actual_start"]) == ("ONE_ON_ONE", None)
    assert tables["student_feedback"]["FB-s"]["free_text_feedback"] == ""
    assert tables["students"]["student_00001"]["name"] == "Student 00001"
    assert tables["tutor_events"]["l"]["event_timestamp"] == NOW_US - DAY_US


def test_what_misses_its_parent_is_parked() -> None:
    tables = Oracle(
        {
            "tutors": [tutor("ann")],
            "sessions": [session("s", NOW_US - DAY_US), session("b", NOW_US - DAY_US, tutor_id="bob")],
            "feedback": [
                feedback("s", 5, tutor_id="bob"),  # the rated tutor is unknown
                feedback("b", 5),  # the session is parked
                feedback("z", 5),  # the session is unknown
            ],
            "tutor-events": [login("l", NOW_US - DAY_US, tutor_id="bob")],
        },
        NOW_US,
    ).tables()
    assert set(tables["sessions"]) == {"s"}
    assert tables["student_feedback"] == {}
    assert tables["tutor_events"] == {}


def test_an_instant_too_far_ahead_refuses_its_event_and_leaves_the_older_one() -> None:
    older = session("s", NOW_US + 31 * DAY_US, actual_start=None, updated_at=spelled(NOW_US - 9 * MINUTE_US))
    newer = session("s", NOW_US + 31 * DAY_US + 1, actual_start=None)
    referee = Oracle({"sessions": [newer, older]}, NOW_US)
    assert referee.sessions["s"]["scheduled_start"] == NOW_US + 31 * DAY_US
    assert Oracle({"sessions": [newer]}, NOW_US + 1).sessions.keys() == {"s"}


@pytest.mark.parametrize(
    ("text", "zone", "same_as"),
    [
        ("2025-07-01T10:00:00Z", UTC, "2025-07-01T10:00:00+00:00"),
        ("2025-07-01T12:00:00+02:00", UTC, "2025-07-01T10:00:00+00:00"),
        ("2025-07-01T10:00:00", UTC, "2025-07-01T10:00:00+00:00"),
        ("2025-07-01 10:00:00", ZoneInfo("Europe/Berlin"), "2025-07-01T08:00:00+00:00"),
        ("2025-07-01", UTC, "2025-07-01T00:00:00+00:00"),
    ],
)
def test_instants_are_one_whatever_their_spelling(text: str, zone: Any, same_as: str) -> None:
    assert instant_us(text, zone) == instant_us(same_as)
    assert instant_us("1970-01-01T00:00:00.000001Z") == 1


def test_a_payload_is_found_bare_and_in_its_envelope() -> None:
    payload = login("l", NOW_US)
    assert payload_of(bare(payload)) == payload_of(enveloped(payload, random.Random(0))) == payload


def test_the_oracle_imports_nothing_of_the_product() -> None:
    source = (Path(__file__).parent.parent / "oracle.py").read_text(encoding="utf-8")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert not imported & {"models", "tables", "agents", "tutormax_streams", "tests"}
