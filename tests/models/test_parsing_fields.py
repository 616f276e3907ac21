"""The rules for single fields (contract §2 as resolved in §2.5 and §11): one row each, both sides of every edge."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from tests.models.parsing_examples import ABSENT, EXAMPLES, accepted, rejected

FieldRule: TypeAlias = tuple[str, str, list[Any], list[tuple[Any, str]]]
"""Kind, field, values that pass, values that do not with the beginning of the sentence about each."""

NO_STRING = "must be a string"
NO_WHOLE = "must be a whole number"
NO_NUMBER = "must be a number"
NO_BOOL = "must be true or false"


def ids(kind: str, *fields: str) -> list[FieldRule]:
    wrong = [
        ("", "must not be empty"),
        ("i" * 51, "must not be longer than 50 characters"),
        ("é" * 51, "must not be longer than 50 characters"),
        (7, NO_STRING),
        (True, NO_STRING),
        (["a"], NO_STRING),
        (None, "is null"),
        (ABSENT, "is missing"),
    ]
    return [(kind, field, ["i", "i" * 50, "é" * 50, " "], wrong) for field in fields]


def flags(kind: str, *fields: str) -> list[FieldRule]:
    wrong = [(0, NO_BOOL), (1, NO_BOOL), ("true", NO_BOOL), (None, "is null"), (ABSENT, "is missing")]
    return [(kind, field, [True, False], wrong) for field in fields]


def whole(kind: str, field: str, low: int, high: int, *passing: Any) -> FieldRule:
    wrong = [
        (low - 1, f"must be at least {low}"),
        (high + 1, f"must be at most {high}"),
        (2**63 - 1, f"must be at most {high}"),
        (2**64, NO_WHOLE),  # beyond 64 bits a JSON reader makes a float of it
        (float(low), NO_WHOLE),
        (low + 0.5, NO_WHOLE),
        (str(low), NO_WHOLE),
        (True, NO_WHOLE),
    ]
    required = [] if None in passing else [(None, "is null"), (ABSENT, "is missing")]
    return (kind, field, [low, high, *passing], wrong + required)


def text(kind: str, field: str, longest: int | None) -> FieldRule:
    wrong = [("", "must not be empty"), (1, NO_STRING), (None, "is null"), (ABSENT, "is missing")]
    if longest is not None:
        wrong.append(("x" * (longest + 1), f"must not be longer than {longest} characters"))
    return (kind, field, ["x", "x" * (longest or 1_000)], wrong)


CHOICE = "must be one of "
FIELD_RULES: list[FieldRule] = [
    *ids("tutor", "tutor_id"),
    text("tutor", "name", None),
    (
        "tutor",
        "email",
        ["a@b.c", "@.", "a@b@c.d", "a" * 249 + "@b.org"],
        [
            ("a.b.c", "must have an @ and a dot after the last @"),
            ("a@b", "must have an @ and a dot after the last @"),
            ("a.b@c", "must have an @ and a dot after the last @"),
            ("a@b.c@d", "must have an @ and a dot after the last @"),
            ("", "must have an @ and a dot after the last @"),
            ("a" * 250 + "@b.org", "must not be longer than 255 characters"),
            (1, NO_STRING),
            (None, "is null"),
        ],
    ),
    whole("tutor", "age", 18, 100),
    text("tutor", "location", None),
    text("tutor", "education_level", 100),
    (
        "tutor",
        "subjects",
        [["Algebra"], ["x" * 100], ["Algebra"] * 10],
        [
            ([], "must not be empty"),
            (["Algebra"] * 11, "must not have more than 10 items"),
            ("Algebra", "must be an array"),
            ({"0": "Algebra"}, "must be an array"),
            (None, "is null"),
            (ABSENT, "is missing"),
        ],
    ),
    ("tutor", "subject_type", ["STEM", "Language", "TestPrep"], [("stem", CHOICE), (1, CHOICE), (None, "is null")]),
    ("tutor", "tenure_days", [0, 10**9], [(-1, "must be at least 0"), (1.0, NO_WHOLE), (True, NO_WHOLE)]),
    (
        "tutor",
        "behavioral_archetype",
        ["high_performer", "at_risk", "new_tutor", "steady", "churner"],
        [("STEADY", CHOICE), ("", CHOICE), (None, "is null"), (ABSENT, "is missing")],
    ),
    (
        "tutor",
        "baseline_sessions_per_week",
        [0, 12.5, 50, 50.0],
        [(-0.1, "must be at least 0"), (50.1, "must be at most 50"), (True, NO_NUMBER), ("5", NO_NUMBER)],
    ),
    (
        "tutor",
        "status",
        ["active", "inactive", "suspended", "churned", None, ABSENT],
        [("ACTIVE", CHOICE), (1, CHOICE)],
    ),
    *ids("session", "session_id", "tutor_id", "student_id"),
    whole("session", "session_number", 1, 2**31 - 1),
    *flags("session", "is_first_session", "tutor_initiated_reschedule", "no_show", "technical_issues"),
    *flags("session", "learning_objectives_met"),
    whole("session", "duration_minutes", 0, 300),
    text("session", "subject", 100),
    (
        "session",
        "session_type",
        ["1-on-1", "group", "workshop", None, ABSENT],
        [("GROUP", CHOICE), ("", CHOICE), (1, CHOICE)],
    ),
    whole("session", "late_start_minutes", 0, 60),
    (
        "session",
        "engagement_score",
        [0, 0.0, 1, 1.0, 1.01, 100, 5e-324],
        [
            (-0.001, "must be at least 0"),
            (100.1, "must be at most 100"),
            (2**64, "must be at most 100"),
            (True, NO_NUMBER),
            ("0.5", NO_NUMBER),
            (None, "is null"),
            (ABSENT, "is missing"),
        ],
    ),
    ("session", "actual_start", [None, ABSENT, "2026-11-20T18:00:00"], [(0, NO_STRING), (False, NO_STRING)]),
    *ids("feedback", "feedback_id", "session_id", "student_id", "tutor_id"),
    whole("feedback", "overall_rating", 1, 5),
    *flags("feedback", "is_first_session"),
    *(
        whole("feedback", f"{category}_rating", 1, 5, None, ABSENT)
        for category in ("subject_knowledge", "communication", "patience", "engagement", "helpfulness")
    ),
    (
        "feedback",
        "free_text_feedback",
        ["", None, ABSENT, "x" * 5_000, "é" * 5_000],
        [("x" * 5_001, "must not be longer than 5000 characters"), (1, NO_STRING)],
    ),
    ("feedback", "would_recommend", [True, False, None, ABSENT], [(1, NO_BOOL), ("yes", NO_BOOL)]),
    (
        "feedback",
        "improvement_areas",
        [[], ["late"], ["own words"] * 10, None, ABSENT],
        [(["late"] * 11, "must not have more than 10 items"), ("late", "must be an array"), ({}, "must be an array")],
    ),
    *ids("tutor_event", "event_id", "tutor_id"),
    text("tutor_event", "event_type", 100),
    (
        "tutor_event",
        "metadata",
        [{}, {"a": [None]}, None, ABSENT],
        [([], "must be an object"), ("{}", "must be an object")],
    ),
    ("tutor_event", "created_at", [None, ABSENT, "2026-11-22"], [(1, NO_STRING)]),
]

PASSING = [(kind, field, value) for kind, field, values, _ in FIELD_RULES for value in values]
FAILING = [(kind, field, value, words) for kind, field, _, faults in FIELD_RULES for value, words in faults]


@pytest.mark.parametrize(("kind", "field", "value"), PASSING)
def test_a_value_within_its_range_passes(kind: str, field: str, value: Any) -> None:
    accepted(kind, **{field: value})


@pytest.mark.parametrize(("kind", "field", "value", "words"), FAILING)
def test_a_value_that_breaks_its_rule_is_a_dead_letter_that_names_the_field(
    kind: str, field: str, value: Any, words: str
) -> None:
    fate = rejected(kind, **{field: value})
    assert fate.reason == "invalid"
    assert fate.detail.startswith(f"{field} {words}")


@pytest.mark.parametrize(
    ("kind", "field", "value", "detail"),
    [
        ("tutor", "subjects", ["Algebra", 7], "subjects[1] must be a string"),
        ("tutor", "subjects", ["Algebra", None], "subjects[1] is null"),
        ("tutor", "subjects", [""], "subjects[0] must not be empty"),
        ("tutor", "subjects", ["x" * 101], "subjects[0] must not be longer than 100 characters"),
        ("feedback", "improvement_areas", ["late", 7], "improvement_areas[1] must be a string"),
    ],
)
def test_a_faulty_item_of_a_list_is_named_by_its_place(kind: str, field: str, value: Any, detail: str) -> None:
    assert rejected(kind, **{field: value}).detail == detail


def test_every_field_of_the_examples_has_its_rule() -> None:
    ruled = {(kind, field) for kind, field, *_ in FIELD_RULES}
    times = {"created_at", "updated_at", "onboarding_date", "scheduled_start", "submitted_at", "event_timestamp"}
    assert {(kind, field) for kind, fields in EXAMPLES.items() for field in fields if field not in times} <= ruled
