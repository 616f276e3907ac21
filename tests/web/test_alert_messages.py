"""Each kind of alert as people read it, and as the platform's front end does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from models import alerts
from models.alerts import Alert
from tutormax_streams.web import alert_messages

COMMON: dict[str, Any] = {"sequence": 7, "tutor_id": "t1", "tutor_name": "Ada", "as_of": "2026-01-31T12:00:00.000000Z"}


def made(kind: type[Any], **content: Any) -> Alert:
    alert: Alert = kind(id=f"t1/{kind.kind}/7", **COMMON, **content)
    return alert


FELL = made(alerts.TierChanged, window="30day", old_tier="Strong", new_tier="Needs Attention")
ROSE = made(alerts.TierChanged, window="30day", old_tier="Developing", new_tier="Strong")
BETTER = made(alerts.TierChanged, window="30day", old_tier="At Risk", new_tier="Needs Attention")
CRITICAL = made(
    alerts.AlertRaised, window="30day", figure="avg_rating_stars", severity="critical", old_severity=None, value=2.9,
    threshold=3.0,
)  # fmt: skip
CLEARED = made(alerts.AlertCleared, window="30day", figure="no_show_count", old_severity="warning", value=1)
GONE = made(alerts.AlertCleared, window="30day", figure="engagement_score_pct", old_severity="critical", value=None)
FIRST = made(alerts.FirstSessionPoor, session_id="s1", rating_stars=2, is_late=True)
PATTERN = made(alerts.ReschedulePattern, reschedules_7day_count=3, reschedules_14day_count=3, escalated=False)
WORSE = made(alerts.ReschedulePattern, reschedules_7day_count=4, reschedules_14day_count=6, escalated=True)


@pytest.mark.parametrize(
    ("alert", "severity", "title", "message"),
    [
        (FELL, "critical", "Fell to Needs Attention", "From Strong, over the last 30 days."),
        (ROSE, "info", "Rose to Strong", "From Developing, over the last 30 days."),
        (BETTER, "info", "Rose to Needs Attention", "From At Risk, over the last 30 days."),
        (CRITICAL, "critical", "Rating 2.9 stars", "Critical: the threshold is 3 stars, over the last 30 days."),
        (CLEARED, "info", "No-shows well again", "Now 1. It had been warning."),
        (GONE, "info", "Engagement well again", "There is no figure any more. It had been critical."),
        (FIRST, "warning", "Poor first session", "Session s1: rated 2 of 5, more than 10 minutes late."),
        (PATTERN, "warning", "3 sessions rescheduled in 7 days", "3 in 14 days."),
        (WORSE, "critical", "4 sessions rescheduled in 7 days", "6 in 14 days, so others should know."),
    ],
)
def test_people_read_what_happened(alert: Alert, severity: str, title: str, message: str):
    shown = alert_messages.event(alert)
    assert (shown["severity"], shown["title"], shown["message"]) == (severity, title, message)
    assert shown["figure"] == getattr(alert, "figure", None)
    assert (shown["id"], shown["kind"], shown["tutor_id"], shown["at"]) == (alert.id, alert.kind, "t1", COMMON["as_of"])


TIERS = ("Exemplary", "Strong", "Developing", "Needs Attention", "At Risk")


@pytest.mark.parametrize(("old", "new"), itertools.permutations(range(len(TIERS)), 2))
def test_a_tier_that_rose_is_good_news_wherever_it_is_now(old: int, new: int):
    """One that fell is as bad as where it fell to."""
    changed = made(alerts.TierChanged, window="30day", old_tier=TIERS[old], new_tier=TIERS[new])
    expected = "info" if new < old else ("info", "info", "warning", "critical", "critical")[new]
    assert alert_messages.severity(changed) == expected
    assert alert_messages.platform_alert(changed)["alert_type"] == expected


def test_the_front_end_gets_its_own_fields():
    shown = alert_messages.platform_alert(CRITICAL)
    assert (shown["alert_type"], shown["severity"], shown["resolved"]) == ("critical", "high", False)
    assert shown["timestamp"] == "2026-01-31T12:00:00.000000"
    assert alert_messages.platform_alert(CLEARED)["resolved"] is True


@pytest.mark.parametrize(
    ("alert", "task"),
    [
        (FELL, ("coaching", "high")),
        (BETTER, ("coaching", "high")),
        (ROSE, None),
        (CRITICAL, ("review", "high")),
        (CLEARED, None),
        (FIRST, None),
    ],
)
def test_some_alerts_call_for_a_task(alert: Alert, task: tuple[str, str] | None):
    shown = alert_messages.platform_intervention(alert)
    assert (shown and (shown["task_type"], shown["priority"])) == task
    if shown:
        assert (shown["status"], shown["due_date"]) == ("pending", "2026-01-31T23:59:59")
