"""Derived fields, rule by rule (contract §3)."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.enrichment import DELAY, delay_hours, derived
from models.events import Feedback, Session, Tutor, TutorEvent

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NOW_US = us("2026-03-10T15:00:00")
TUTOR = Tutor("t", "Ann", "a@b.c", NOW_US, "active", ("Math", "Art"), None, None, None, None, NOW_US, NOW_US)
SESSION = Session("s", "t", "u", 1, NOW_US, NOW_US, 60, "Math", "1-on-1", False, False, 0, 0.5, True, False, 1, 2)
FEEDBACK = Feedback("f", "s", "u", "t", 3, False, None, None, None, None, None, None, None, "", NOW_US, NOW_US)


def of_tutor(**changes: Any) -> dict[str, Any]:
    return derived(msgspec.structs.replace(TUTOR, **changes), NOW_US)


def of_session(**changes: Any) -> dict[str, Any]:
    return derived(msgspec.structs.replace(SESSION, **changes), NOW_US)


def of_feedback(**changes: Any) -> dict[str, Any]:
    return derived(msgspec.structs.replace(FEEDBACK, **changes), NOW_US)


@pytest.mark.parametrize(
    ("age_us", "tenure_days", "is_new_tutor", "level"),
    [
        (-DAY_US, 0, True, "junior"),
        (0, 0, True, "junior"),
        (DAY_US - 1, 0, True, "junior"),
        (DAY_US, 1, True, "junior"),
        (30 * DAY_US - 1, 29, True, "junior"),
        (30 * DAY_US, 30, False, "junior"),
        (90 * DAY_US - 1, 89, False, "junior"),
        (90 * DAY_US, 90, False, "mid"),
        (365 * DAY_US - 1, 364, False, "mid"),
        (365 * DAY_US, 365, False, "senior"),
    ],
)
def test_tenure(age_us: int, tenure_days: int, is_new_tutor: bool, level: str) -> None:
    fields = of_tutor(onboarding_us=NOW_US - age_us)
    assert (fields["tenure_days"], fields["is_new_tutor"]) == (tenure_days, is_new_tutor)
    assert fields["experience_level"] == level


def test_all_fields_of_a_tutor() -> None:
    assert of_tutor() == {
        "tenure_days": 0,
        "is_new_tutor": True,
        "experience_level": "junior",
        "subject_count": 2,
        "is_active_today": True,
    }


@pytest.mark.parametrize(
    ("updated", "offset_hours", "active"),
    [
        ("2026-03-10T00:00:00", 0, True),
        ("2026-03-09T23:59:59", 0, False),
        ("2026-03-09T23:00:00", 2, True),  # written as 2026-03-10T01:00+02:00: its own date is today
        ("2026-03-10T01:00:00", -5, False),
    ],
)
def test_active_today_looks_at_the_date_as_it_was_written(updated: str, offset_hours: int, active: bool) -> None:
    assert of_tutor(updated_us=us(updated), updated_offset_seconds=offset_hours * 3600)["is_active_today"] is active


@pytest.mark.parametrize(
    ("hour", "name"),
    [
        *[(hour, "night") for hour in (0, 4, 22, 23)],
        *[(hour, "morning") for hour in (5, 11)],
        *[(hour, "afternoon") for hour in (12, 16)],
        *[(hour, "evening") for hour in (17, 21)],
    ],
)
def test_time_of_day(hour: int, name: str) -> None:
    start_us = us("2026-03-10T00:00:00") + hour * HOUR_US
    assert of_session(scheduled_start_us=start_us)["time_of_day"] == name
    assert of_session(scheduled_start_us=start_us + HOUR_US - 1)["time_of_day"] == name


@settings(max_examples=200)
@given(st.integers(us("1900-01-02T00:00:00"), us("2200-01-01T00:00:00")), st.integers(-86_399, 86_399))
def test_calendar_fields_follow_the_zone_of_the_producer(local_us: int, offset_seconds: int) -> None:
    local = datetime.fromtimestamp(local_us // 1_000_000, UTC)
    start_us = local_us - offset_seconds * 1_000_000
    fields = of_session(scheduled_start_us=start_us, start_offset_seconds=offset_seconds)
    assert fields["is_weekend"] == (local.isoweekday() in (6, 7))
    assert fields["week_of_year"] == local.isocalendar().week
    assert fields["month_of_year"] == local.month


def test_a_session_whose_start_is_unknown_has_no_actual_duration() -> None:
    assert of_session(duration_minutes=45)["actual_duration_minutes"] == 45
    assert "actual_duration_minutes" not in of_session(actual_start_us=None)


@pytest.mark.parametrize(("minutes", "late"), [(0, False), (5, False), (6, True)])
def test_late_start(minutes: int, late: bool) -> None:
    assert of_session(late_start_minutes=minutes)["is_late_start"] is late


@pytest.mark.parametrize(
    ("rating", "positive", "poor"),
    [(1, False, True), (2, False, True), (3, False, False), (4, True, False), (5, True, False)],
)
def test_positive_and_poor(rating: int, positive: bool, poor: bool) -> None:
    fields = of_feedback(overall_rating=rating)
    assert (fields["is_positive"], fields["is_poor"]) == (positive, poor)


@settings(max_examples=200)
@given(st.lists(st.none() | st.integers(1, 5), min_size=5, max_size=5))
def test_categories(ratings: list[int | None]) -> None:
    names = ("subject_knowledge", "communication", "patience", "engagement", "helpfulness")
    fields = of_feedback(**{f"{name}_rating": rating for name, rating in zip(names, ratings, strict=True)})
    given_ratings = [rating for rating in ratings if rating is not None]
    if not given_ratings:
        assert "avg_category_rating" not in fields
        assert "category_variance" not in fields
        return
    assert fields["avg_category_rating"] == round(sum(given_ratings) / len(given_ratings), 2)
    assert fields["category_variance"] == round(float(statistics.pvariance(map(float, given_ratings))), 2)


@pytest.mark.parametrize(("text", "has_text"), [("", False), (" \n\t", False), ("fine", True)])
def test_has_text(text: str, has_text: bool) -> None:
    assert of_feedback(free_text_feedback=text)["has_text_feedback"] is has_text


@pytest.mark.parametrize(
    ("delay_us", "hours"), [(2 * HOUR_US, 2.0), (-90 * 60_000_000, -1.5), (0, 0.0), (HOUR_US // 3, 0.33)]
)
def test_delay_counts_from_the_sessions_start(delay_us: int, hours: float) -> None:
    assert delay_hours(NOW_US, NOW_US - delay_us) == hours
    assert DELAY not in of_feedback()


def test_tutor_events_have_none() -> None:
    assert derived(TutorEvent("e", "t", "login", NOW_US, None, None), NOW_US) == {}
