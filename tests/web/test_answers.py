"""The shapes of answers, field by field."""

from __future__ import annotations

import pytest

from models.metrics import TIER_THRESHOLDS, WindowInputs, metrics_updated, performance_tier, window_metrics
from tutormax_streams.postgres.stored_figures import StoredTutor
from tutormax_streams.web import answers
from tutormax_streams.web.answers import Found

NOW_US = 1_764_504_000_500_000
AS_OF_US = NOW_US - 2_500_000
BUSY = WindowInputs(
    scheduled=7, completed=6, no_shows=1, rescheduled=2, on_time=5, objectives_known=3, objectives_met=2, first_sessions=1,
    ratings=3, first_rated=3, first_succeeded=2, rating_sum=14, engagement=(80.0, 90.0), response_minutes=(10.0, 10.25),
)  # fmt: skip


def found(inputs: WindowInputs = BUSY) -> Found:
    windows = {name: window_metrics(name, name, inputs, "normalized", login_known=False) for name in answers.WINDOWS}
    return Found.of(
        metrics_updated("t1", windows, as_of_us=AS_OF_US, epoch=1, position=5, tutor_name="Ada", tutor_status="active")
    )


def test_the_platforms_shape():
    assert answers.metrics_answer(found(), "30day", NOW_US) == {
        "success": True,
        "tutor_id": "t1",
        "tutor_name": "Ada",
        "window": "30day",
        "calculation_date": "2025-11-30T11:59:58",
        "metrics": {
            "performance_tier": "At Risk",
            "sessions_completed": 6,
            "avg_rating": 4.67,
            "first_session_success_rate": 66.7,
            "reschedule_rate": 28.6,
            "no_show_count": 1,
            "engagement_score": 80.48,
            "learning_objectives_met_pct": 66.7,
            "response_time_avg_minutes": 10.1,
        },
        "timestamp": "2025-11-30T12:00:00.500000",
        "source": "stream",
        "as_of": "2025-11-30T11:59:58.000000Z",
        "age_seconds": 2.5,
    }


def test_zero_stays_zero_and_nothing_stays_null():
    quiet = answers.metrics_answer(found(WindowInputs(scheduled=1, objectives_known=1)), "7day", NOW_US)["metrics"]
    assert (quiet["reschedule_rate"], quiet["learning_objectives_met_pct"], quiet["avg_rating"]) == (0.0, 0.0, None)


def test_a_row_is_as_old_as_itself():
    """The platform's own jobs may have written a newer row of one window."""
    row, newer_us = dict.fromkeys(answers.DECIMALS, 0), AS_OF_US + 1_500_000
    stored = StoredTutor(
        "t1", "Ada", "active", AS_OF_US, {"7day": row, "90day": row}, {"7day": newer_us, "90day": AS_OF_US}
    )
    ages = [
        answers.metrics_answer(Found.of_rows(stored), window, NOW_US)["age_seconds"] for window in ("7day", "90day")
    ]
    assert ages == [1.0, 2.5]


def test_a_window_without_a_row_has_no_figures_rather_than_zeros():
    stored = Found("t1", "Ada", "active", "database", AS_OF_US, {"7day": dict.fromkeys(answers.DECIMALS, 0)})
    answer = answers.metrics_answer(stored, "90day", NOW_US)
    assert answer["metrics"] is None
    assert "calculation_date" not in answer
    assert "90day" in answer["message"]
    performance = answers.performance_answer(stored, NOW_US)
    assert performance["windows"]["90day"] is None
    assert performance["windows"]["7day"]["avg_rating"] == 0
    assert performance["performance_tier"] is None


@pytest.mark.parametrize("name", answers.WINDOWS)
def test_flags_say_why_it_is_this_tier(name: str):
    window = answers.performance_answer(found(), NOW_US)["windows"][name]
    assert [flag["figure"] for flag in window["flags"]] == [threshold.figure for threshold in TIER_THRESHOLDS]
    assert {flag["figure"]: flag["flag"] for flag in window["flags"]} == {
        "avg_rating": "green",
        "first_session_success_rate": "red",
        "reschedule_rate": "red",
        "no_show_count": None,
        "engagement_score": "green",
        "learning_objectives_met_pct": "red",
    }
    assert performance_tier([flag["value"] for flag in window["flags"]]) == window["performance_tier"]


def test_declines_come_along():
    assert answers.performance_answer(found(), NOW_US)["declines_7day_vs_30day"]["avg_rating_stars"] == 0.0
