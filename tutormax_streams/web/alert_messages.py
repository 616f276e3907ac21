"""Alerts as people and the platform's front end read them: our Server-Sent Event, and the platform's two messages."""

from __future__ import annotations

from typing import Any, Final

from models.alerts import Alert, AlertCleared, AlertRaised, FirstSessionPoor, TierChanged
from models.metrics import AT_RISK, DEVELOPING, EXEMPLARY, NEEDS_ATTENTION, STRONG

_TIERS: Final = (EXEMPLARY, STRONG, DEVELOPING, NEEDS_ATTENTION, AT_RISK)  # from best to worst
_NAMES: Final = {
    "avg_rating_stars": ("Rating", "{:g} stars"),
    "reschedule_rate_pct": ("Reschedule rate", "{:g} %"),
    "no_show_count": ("No-shows", "{:g}"),
    "engagement_score_pct": ("Engagement", "{:g} %"),
}
_PLATFORM_SEVERITY: Final = {"critical": "high", "warning": "medium", "info": "low"}


def event(alert: Alert) -> dict[str, Any]:
    """The data of `event: alert` on `/events`."""
    title, message = _texts(alert)
    return {
        "id": alert.id,
        "kind": alert.kind,
        "tutor_id": alert.tutor_id,
        "tutor_name": alert.tutor_name,
        "at": alert.as_of,
        "severity": severity(alert),
        "figure": alert.figure if isinstance(alert, AlertRaised | AlertCleared) else None,
        "title": title,
        "message": message,
    }


def platform_alert(alert: Alert) -> dict[str, Any]:
    """The data of the platform's message `alert` (contract §8)."""
    title, message = _texts(alert)
    kind = severity(alert)
    return {
        "id": alert.id,
        "tutor_id": alert.tutor_id,
        "tutor_name": alert.tutor_name or alert.tutor_id,
        "alert_type": kind,
        "severity": _PLATFORM_SEVERITY[kind],
        "title": title,
        "message": message,
        "timestamp": alert.as_of.removesuffix("Z"),
        "resolved": isinstance(alert, AlertCleared),
    }


def platform_intervention(alert: Alert) -> dict[str, Any] | None:
    """The data of the platform's message `intervention` where an alert calls for a task (contract §9)."""
    task = _task(alert)
    if task is None:
        return None
    task_type, priority = task
    title, message = _texts(alert)
    created = alert.as_of.removesuffix("Z")
    return {
        "id": f"{alert.id}/task",
        "tutor_id": alert.tutor_id,
        "tutor_name": alert.tutor_name or alert.tutor_id,
        "task_type": task_type,
        "title": f"{task_type.capitalize()}: {title}",
        "description": message,
        "priority": priority,
        "status": "pending",
        "created_at": created,
        "due_date": f"{created[:10]}T23:59:59",
    }


def severity(alert: Alert) -> str:
    """`critical`, `warning` or `info`."""
    if isinstance(alert, TierChanged):
        if not _is_worse(alert):
            return "info"
        return {AT_RISK: "critical", NEEDS_ATTENTION: "critical", DEVELOPING: "warning"}.get(alert.new_tier, "info")
    if isinstance(alert, AlertRaised):
        return alert.severity
    if isinstance(alert, AlertCleared):
        return "info"
    if isinstance(alert, FirstSessionPoor):
        return "warning"
    return "critical" if alert.escalated else "warning"


def _is_worse(alert: TierChanged) -> bool:
    return _TIERS.index(alert.new_tier) > _TIERS.index(alert.old_tier)


def _task(alert: Alert) -> tuple[str, str] | None:
    if isinstance(alert, TierChanged):  # by the tier alone, wherever it came from: the platform's rule (contract §9)
        return {NEEDS_ATTENTION: ("coaching", "high"), DEVELOPING: ("training", "medium")}.get(alert.new_tier)
    if isinstance(alert, AlertRaised):
        return ("review", "high") if alert.severity == "critical" else ("followup", "medium")
    return None


def _texts(alert: Alert) -> tuple[str, str]:
    if isinstance(alert, TierChanged):
        return (
            f"{'Fell' if _is_worse(alert) else 'Rose'} to {alert.new_tier}",
            f"From {alert.old_tier}, over the last 30 days.",
        )
    if isinstance(alert, AlertRaised):
        name, form = _NAMES[alert.figure]
        return (
            f"{name} {form.format(alert.value)}",
            f"{alert.severity.capitalize()}: the threshold is {form.format(alert.threshold)}, over the last 30 days.",
        )
    if isinstance(alert, AlertCleared):
        name, form = _NAMES[alert.figure]
        now = "There is no figure any more." if alert.value is None else f"Now {form.format(alert.value)}."
        return f"{name} well again", f"{now} It had been {alert.old_severity}."
    if isinstance(alert, FirstSessionPoor):
        rated = [] if alert.rating_stars is None else [f"rated {alert.rating_stars} of 5"]
        late = ["more than 10 minutes late"] if alert.is_late else []
        return "Poor first session", f"Session {alert.session_id}: {', '.join(rated + late)}."
    return (
        f"{alert.reschedules_7day_count} sessions rescheduled in 7 days",
        f"{alert.reschedules_14day_count} in 14 days{', so others should know' if alert.escalated else ''}.",
    )
