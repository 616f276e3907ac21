"""The judge of alerts sees what is wrong with them: of a history as a worker tells it, spoiled in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models.alerts import Announced, changes, encode
from tests.flow.judge import unlike_announced
from tests.models.test_alerts import SLACK, update

History = list[dict[str, Any]]


def history() -> tuple[History, dict[str, Any]]:
    """Alerts of every kind, and what stands announced after them."""
    announced: Announced | None = None
    alerts: History = []
    for record in (
        update(avg_rating=3.5),
        update("At Risk", avg_rating=2.0, reschedule_rate=25.0, week=3),
        update("At Risk", poor=["s1"], reschedule_rate=31.0, week=3),
        update("Developing", poor=["s1"], reschedule_rate=31.0, no_show_count=3),
    ):
        announced, told = changes(announced, record, SLACK)
        alerts += [json.loads(encode(alert)) for alert in told]
    return alerts, json.loads(msgspec.json.encode(announced))


def differences(alerts: History, announced: dict[str, Any] | None) -> list[str]:
    return list(unlike_announced("t1", {alert["sequence"]: alert for alert in alerts}, announced))


def test_a_right_history_has_no_differences():
    alerts, announced = history()
    assert {alert["type"] for alert in alerts} == {
        *("tier.changed", "alert.raised", "alert.cleared", "first_session.poor", "reschedule.pattern")
    }
    assert differences(alerts, announced) == []
    assert differences([], {}) == []


def number(alerts: History) -> None:
    """As if they had been told in this order."""
    for sequence, alert in enumerate(alerts, 1):
        alert |= {"sequence": sequence, "id": f"t1/{alert['type']}/{sequence}"}


def first(alerts: History, kind: str) -> dict[str, Any]:
    return next(alert for alert in alerts if alert["type"] == kind)


def is_missing(alerts: History, announced: dict[str, Any]) -> None:
    del alerts[2]


def is_too_many(alerts: History, announced: dict[str, Any]) -> None:
    alerts.append({**alerts[-1], "sequence": len(alerts) + 1})


def has_another_id(alerts: History, announced: dict[str, Any]) -> None:
    alerts[1]["id"] = "t1/alert.raised/77"


def is_told_under_two_ids(alerts: History, announced: dict[str, Any]) -> None:
    alerts.insert(2, dict(first(alerts, "first_session.poor")))
    number(alerts)
    announced["sequence"] = len(alerts)


def is_raised_twice(alerts: History, announced: dict[str, Any]) -> None:
    alerts.insert(1, {**alerts[0], "as_of": "2026-02-02T00:00:00.000000Z"})
    number(alerts)
    announced["sequence"] = len(alerts)


def comes_from_another_tier(alerts: History, announced: dict[str, Any]) -> None:
    [alert for alert in alerts if alert["type"] == "tier.changed"][1]["old_tier"] = "Strong"


def leads_to_another_tier(alerts: History, announced: dict[str, Any]) -> None:
    announced["tier"] = "Strong"


def stands_no_more(alerts: History, announced: dict[str, Any]) -> None:
    announced["standing"].pop()


def stands_at_another_level(alerts: History, announced: dict[str, Any]) -> None:
    announced["levels"]["reschedule_rate"] = "warning"


def stands_with_another_value(alerts: History, announced: dict[str, Any]) -> None:
    announced["standing"][0]["value"] = 99.0


@pytest.mark.parametrize(
    "spoil",
    [
        is_missing, is_too_many, has_another_id, is_told_under_two_ids, is_raised_twice, comes_from_another_tier,
        leads_to_another_tier, stands_no_more, stands_at_another_level, stands_with_another_value,
    ],
)  # fmt: skip
def test_an_alert_that(spoil: Callable[[History, dict[str, Any]], None]):
    alerts, announced = history()
    spoil(alerts, announced)
    assert len(differences(alerts, announced)) > 0


def test_an_alert_that_is_cleared_and_raised_again_within_one_as_of_is_told_twice():
    """As-of stands still behind a predecessor whose clock was ahead."""
    alerts, announced = history()
    stood = next(alert for alert in announced["standing"] if alert["old_severity"] is None)
    most = announced["sequence"]
    cleared = {**stood, "type": "alert.cleared", "old_severity": stood["severity"], "severity": None}
    again = [
        {**alert, "sequence": most + more, "id": f"t1/{alert['type']}/{most + more}"}
        for more, alert in enumerate((cleared, stood), 1)
    ]
    alerts += again
    announced["sequence"] += 2
    announced["standing"][announced["standing"].index(stood)] = again[1]
    assert differences(alerts, announced) == []


def test_nothing_announced_of_a_tutor_with_alerts():
    alerts, _ = history()
    assert len(differences(alerts, None)) == 1
