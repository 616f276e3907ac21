"""The rules between fields (contract §2 as resolved in §2.5 and §11): one row each, both sides of every edge."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from models.events import Feedback, Session, Tutor, TutorEvent
from models.rules import WARNINGS
from tests.models.parsing_examples import ABSENT, accepted, rejected

Changes: TypeAlias = dict[str, Any]

# --- Rules between fields -----------------------------------------------------------------------------------------------

NO_SHOW: Changes = {
    "no_show": True,
    "actual_start": None,
    "duration_minutes": 0,
    "late_start_minutes": 0,
    "engagement_score": 0.0,
}
LOW: Changes = {
    "overall_rating": 2,
    "subject_knowledge_rating": 2,
    "communication_rating": 2,
    "patience_rating": 2,
    "engagement_rating": 2,
    "helpfulness_rating": 2,
    "free_text_feedback": "Not clear at all.",
}
FIRST: Changes = {"is_first_session": True, "would_recommend": True, "improvement_areas": []}


def categories(*ratings: int | None) -> Changes:
    names = ("subject_knowledge", "communication", "patience", "engagement", "helpfulness")
    return {f"{name}_rating": rating for name, rating in zip(names, ratings, strict=True)}


# Kind, what is changed in the flawless payload, and the warnings that this draws.
WARNING_RULES: list[tuple[str, Changes, set[str]]] = [
    ("tutor", {"age": 22}, set()),
    ("tutor", {"age": 21}, {"age_unusual"}),
    ("tutor", {"age": 65}, set()),
    ("tutor", {"age": 66}, {"age_unusual"}),
    ("tutor", {"baseline_sessions_per_week": 5}, set()),
    ("tutor", {"baseline_sessions_per_week": 4.9}, {"baseline_unusual"}),
    ("tutor", {"baseline_sessions_per_week": 30}, set()),
    ("tutor", {"baseline_sessions_per_week": 30.5}, {"baseline_unusual"}),
    ("tutor", {"name": "n" * 200}, set()),
    ("tutor", {"name": "n" * 201}, {"name_truncated"}),
    ("tutor", {"name": "n" * 100_000}, {"name_truncated"}),
    ("tutor", {"location": "l" * 200}, set()),
    ("tutor", {"location": "l" * 256}, {"location_truncated"}),
    ("tutor", {"subjects": ["Algebra", "Math"]}, {"subject_unknown"}),
    ("tutor", {"subjects": ["SAT Prep", "GRE Prep"]}, set()),
    ("tutor", {"onboarding_date": "2025-04-15T07:05:28.907677"}, {"created_before_onboarding"}),
    ("tutor", {"onboarding_date": "2025-04-15T08:05:28.907676+01:00"}, set()),
    ("session", {"duration_minutes": 30}, set()),
    ("session", {"duration_minutes": 45}, set()),
    ("session", {"duration_minutes": 90}, set()),
    ("session", {"duration_minutes": 120}, set()),
    ("session", {"duration_minutes": 61}, {"duration_unusual"}),
    ("session", {"duration_minutes": 0, "late_start_minutes": 0}, {"duration_unusual"}),
    ("session", NO_SHOW, set()),
    ("session", NO_SHOW | {"duration_minutes": 50}, {"duration_unusual"}),
    ("session", NO_SHOW | {"late_start_minutes": 1}, set()),
    ("session", NO_SHOW | {"actual_start": "2026-11-20T18:02:00"}, {"actual_start_on_no_show"}),
    ("session", NO_SHOW | {"actual_start": "2026-11-24T18:02:00"}, {"actual_start_on_no_show"}),
    ("session", NO_SHOW | {"engagement_score": 0.1}, set()),
    ("session", NO_SHOW | {"engagement_score": 0.101}, {"engagement_on_no_show"}),
    ("session", NO_SHOW | {"engagement_score": 10}, {"engagement_rescaled"}),
    ("session", NO_SHOW | {"engagement_score": 11}, {"engagement_rescaled", "engagement_on_no_show"}),
    ("session", {"engagement_score": 1.001}, {"engagement_rescaled"}),
    ("session", {"actual_start": None}, {"actual_start_missing"}),
    ("session", {"actual_start": ABSENT}, {"actual_start_missing"}),
    ("session", {"actual_start": "2026-11-20T18:05:00"}, set()),
    ("session", {"actual_start": "2026-11-20T18:05:00.000001"}, {"late_start_mismatch"}),
    ("session", {"actual_start": "2026-11-20T17:55:00"}, set()),
    ("session", {"actual_start": "2026-11-20T17:54:59.999999"}, {"late_start_mismatch"}),
    ("session", {"actual_start": "2026-11-20T18:07:00", "late_start_minutes": 2}, set()),
    ("session", {"actual_start": "2026-11-20T18:07:00.000001", "late_start_minutes": 2}, {"late_start_mismatch"}),
    ("session", {"is_first_session": True, "session_number": 1}, set()),
    ("session", {"is_first_session": True}, {"first_session_mismatch"}),
    ("session", {"session_number": 1}, {"first_session_mismatch"}),
    ("session", {"subject": "History"}, {"subject_unknown"}),
    ("feedback", {"submitted_at": "2026-11-21T08:01:24.629932"}, {"submitted_before_created"}),
    ("feedback", FIRST, set()),
    ("feedback", FIRST | {"would_recommend": None}, {"recommendation_missing"}),
    ("feedback", FIRST | {"would_recommend": ABSENT}, {"recommendation_missing"}),
    ("feedback", FIRST | {"improvement_areas": None}, {"areas_missing"}),
    ("feedback", FIRST | {"improvement_areas": ABSENT}, {"areas_missing"}),
    ("feedback", FIRST | {"overall_rating": 3}, {"low_rating_without_areas"}),
    ("feedback", FIRST | {"overall_rating": 3, "improvement_areas": ["late"]}, set()),
    (
        "feedback",
        FIRST | {"overall_rating": 3, "improvement_areas": None},
        {"areas_missing", "low_rating_without_areas"},
    ),
    ("feedback", {"overall_rating": 3}, set()),
    ("feedback", LOW, set()),
    ("feedback", LOW | {"free_text_feedback": "0123456789"}, set()),
    ("feedback", LOW | {"free_text_feedback": " 012345678 "}, {"low_rating_without_text"}),
    ("feedback", LOW | {"free_text_feedback": None}, {"low_rating_without_text"}),
    ("feedback", LOW | {"overall_rating": 3, "free_text_feedback": ""}, set()),
    ("feedback", LOW | {"would_recommend": True}, {"recommended_despite_rating"}),
    ("feedback", LOW | {"would_recommend": False}, set()),
    ("feedback", {"would_recommend": True, "overall_rating": 3}, set()),
    ("feedback", {"would_recommend": False}, {"not_recommended_despite_rating"}),
    ("feedback", {"would_recommend": False, "overall_rating": 3}, set()),
    ("feedback", categories(2, 2, 2, 3, 3), {"rating_unlike_categories"}),  # 4 - 2.4
    ("feedback", categories(2, 2, 3, 3, 3), set()),  # 4 - 2.6
    ("feedback", categories(2, 3, None, None, None), set()),  # 4 - 2.5
    ("feedback", categories(None, None, 2, None, None), {"rating_unlike_categories"}),
    ("feedback", categories(None, None, None, None, None), set()),
    ("feedback", categories(5, 5, 5, 5, 5) | {"overall_rating": 3}, {"rating_unlike_categories"}),
    ("feedback", {"overall_rating": 5} | categories(3, 4, 3, 4, 3), {"rating_unlike_categories"}),  # 5 - 3.4
]


@pytest.mark.parametrize(("kind", "changes", "warnings"), WARNING_RULES)
def test_an_odd_event_is_accepted_with_warnings(kind: str, changes: Changes, warnings: set[str]) -> None:
    found = accepted(kind, **changes).warnings
    assert set(found) == warnings
    assert len(found) == len(warnings)


def test_every_warning_has_its_rule() -> None:
    of_time = {code for code in WARNINGS if code.endswith("_ahead")}  # tested beside the other rules of time
    assert {code for _, _, codes in WARNING_RULES for code in codes} == WARNINGS.keys() - of_time


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"late_start_minutes": 60, "duration_minutes": 60}, None),
        ({"late_start_minutes": 60, "duration_minutes": 59}, "late_start_minutes must not exceed duration_minutes"),
        (NO_SHOW | {"late_start_minutes": 60, "duration_minutes": 0}, None),  # C8
    ],
)
def test_no_session_starts_later_than_it_lasts_but_a_no_show(changes: Changes, detail: str | None) -> None:
    if detail is None:
        accepted("session", **changes)
    else:
        assert rejected("session", **changes).detail == detail


# --- What the rules make of values --------------------------------------------------------------------------------------


def tutor(**changes: Any) -> Tutor:
    event = accepted("tutor", **changes).event
    assert isinstance(event, Tutor)
    return event


def session(**changes: Any) -> Session:
    event = accepted("session", **changes).event
    assert isinstance(event, Session)
    return event


def feedback(**changes: Any) -> Feedback:
    event = accepted("feedback", **changes).event
    assert isinstance(event, Feedback)
    return event


def tutor_event(**changes: Any) -> TutorEvent:
    event = accepted("tutor_event", **changes).event
    assert isinstance(event, TutorEvent)
    return event


def test_names_and_locations_are_cut_to_200_characters() -> None:
    cut = tutor(name="é" * 300, location="x" * 201)
    assert (cut.name, cut.location) == ("é" * 200, "x" * 200)


def test_a_status_stays_as_it_was_written_and_is_active_if_it_was_not() -> None:
    assert tutor(status="suspended").status == "suspended"
    assert tutor(status=None).status == tutor(status=ABSENT).status == "active"


def test_a_baseline_may_be_a_fraction() -> None:
    assert tutor(baseline_sessions_per_week=12.5).baseline_sessions_per_week == 12.5
    assert type(tutor(baseline_sessions_per_week=12).baseline_sessions_per_week) is float


def test_a_session_type_stays_as_it_was_written_and_is_one_on_one_if_it_was_not() -> None:
    assert session(session_type="workshop").session_type == "workshop"
    assert session(session_type=None).session_type == session(session_type=ABSENT).session_type == "1-on-1"


@pytest.mark.parametrize(("written", "kept"), [(0, 0.0), (1, 1.0), (1.5, 0.015), (85.0, 0.85), (100, 1.0)])
def test_engagement_above_one_is_a_percentage(written: float, kept: float) -> None:
    kept_score = session(engagement_score=written).engagement_score
    assert kept_score == kept
    assert type(kept_score) is float


def test_a_no_show_never_started() -> None:
    assert session(**NO_SHOW | {"actual_start": "2026-11-20T18:02:00"}).actual_start_us is None


def test_no_text_is_empty_text() -> None:
    assert feedback(free_text_feedback=None).free_text_feedback == ""
    assert feedback(free_text_feedback=ABSENT).free_text_feedback == ""


def test_no_areas_are_not_the_same_as_none_named() -> None:
    assert feedback(improvement_areas=[]).improvement_areas == ()
    assert feedback(improvement_areas=ABSENT).improvement_areas is None


def test_metadata_becomes_text_with_sorted_keys() -> None:
    assert tutor_event(metadata={"b": [1, {"d": 2.5, "c": None}], "a": "é"}).metadata == (
        '{"a":"é","b":[1,{"c":null,"d":2.5}]}'
    )
    assert tutor_event(metadata={}).metadata == "{}"
    assert tutor_event(metadata=None).metadata is tutor_event(metadata=ABSENT).metadata is None


@pytest.mark.parametrize(
    ("written", "minutes"),
    [(12.5, 12.5), (7, 7.0), (0, 0.0), (-3, -3.0), (True, None), ("7", None), (None, None), ([7], None), (1e99, 1e99)],
)
def test_only_a_json_number_is_a_response_time(written: Any, minutes: float | None) -> None:
    found = tutor_event(metadata={"response_time_minutes": written}).response_time_minutes
    assert found == minutes
    assert found is None or type(found) is float


def test_a_response_time_that_would_overflow_every_mean_is_a_dead_letter() -> None:
    for written in (1e101, -1e101, 1e308):
        fate = rejected("tutor_event", metadata={"response_time_minutes": written})
        assert fate.detail.startswith("metadata.response_time_minutes is beyond")


def test_metadata_that_outgrows_a_record_is_a_dead_letter() -> None:
    assert tutor_event(metadata={"note": "x" * 900_000}).metadata
    fate = rejected("tutor_event", metadata={"note": [1e15] * 100_000})  # 5 bytes each as sent, 19 as stored
    assert fate.detail == "metadata must not be longer than 1000000 bytes"
