"""What lookups answer, in the shapes of the platform's API (contract §8), from figures wherever they came from.

1. Rounding is the platform's: ratings and engagement to two decimals, rates, objectives and response times to one.
2. Zero stays 0.0, and `null` means that a figure has nothing to stand on (the platform answers null for both, C14).
3. `calculation_date` and `timestamp` are naive UTC as the platform writes them. Beyond its fields, every answer says
   where it comes from: `source` (``stream``: the owner's state as of the request; ``database``: committed rows), `as_of`
   and `age_seconds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from models import metrics
from models.metrics import TIER_THRESHOLDS, MetricsUpdated, WindowMetrics
from tutormax_streams.postgres.stored_figures import SESSION_COLUMNS, Prediction, StoredTutor

WINDOWS: Final = tuple(metrics.WINDOW_DAYS)
USUAL_WINDOW: Final = "30day"
DECIMALS: Final[dict[str, int | None]] = {
    "performance_tier": None,
    "sessions_completed": None,
    "avg_rating": 2,
    "first_session_success_rate": 1,
    "reschedule_rate": 1,
    "no_show_count": None,
    "engagement_score": 2,
    "learning_objectives_met_pct": 1,
    "response_time_avg_minutes": 1,
}
"""The figures of a window in the order of the platform's answer, and the decimals of those that are rounded."""

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - the platform's own times are naive


@dataclass(frozen=True, slots=True)
class Found:
    """A tutor's figures as of an instant: by window those of `DECIMALS`, under the platform's names. A window without a
    row is absent."""

    tutor_id: str
    tutor_name: str
    tutor_status: str | None
    source: Literal["stream", "database"]
    as_of_us: int | None  # None: there are no figures
    windows: Mapping[str, Mapping[str, Any]]
    declines: Mapping[str, Any] | None = None  # not stored in rows
    instants: Mapping[str, int] = field(default_factory=dict)  # of windows that are not as of `as_of_us`

    @classmethod
    def of(cls, update: MetricsUpdated) -> Found:
        """What the owner of a tutor whose profile is known has computed."""
        declines = update.declines
        return cls(
            tutor_id=update.tutor_id,
            tutor_name=update.tutor_name or "",
            tutor_status=update.tutor_status,
            source="stream",
            as_of_us=update.as_of_us,
            windows={name: figures(window) for name, window in update.windows.items()},
            declines={name: getattr(declines, name) for name in declines.__struct_fields__},
        )

    @classmethod
    def of_rows(cls, stored: StoredTutor) -> Found:
        """What is committed."""
        return cls(
            stored.tutor_id,
            stored.name,
            stored.status,
            "database",
            stored.as_of_us,
            stored.windows,
            None,
            stored.instants,
        )

    def age_seconds(self, now_us: int) -> float | None:
        return None if self.as_of_us is None else max(0.0, (now_us - self.as_of_us) / 1e6)


def figures(window: WindowMetrics) -> dict[str, Any]:
    """The platform's columns of a window."""
    return {name: getattr(window, name) for name in DECIMALS}


def session(row: Sequence[Any]) -> dict[str, Any]:
    """A session from its committed row: values of `SESSION_COLUMNS` and the rating."""
    shown = dict(zip((*SESSION_COLUMNS, "overall_rating"), row, strict=True))
    for name in ("scheduled_start", "actual_start"):
        shown[name] = None if shown[name] is None else naive(shown[name])
    return shown


def naive(instant_us: int) -> str:
    """Naive UTC ISO 8601, as the platform writes times."""
    return (_EPOCH + timedelta(microseconds=instant_us)).isoformat()


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """A window's figures, rounded as the platform rounds them."""
    return {
        name: found[name] if decimals is None or found[name] is None else round(found[name], decimals)
        for name, decimals in DECIMALS.items()
    }


def as_of(found: Found) -> str | None:
    return None if found.as_of_us is None else metrics.utc_text(found.as_of_us)


def age(found: Found, now_us: int) -> float | None:
    """Seconds, to the millisecond."""
    seconds = found.age_seconds(now_us)
    return None if seconds is None else round(seconds, 3)


def provenance(found: Found, now_us: int) -> dict[str, Any]:
    """Where the figures come from, and how old they are."""
    return {"source": found.source, "as_of": as_of(found), "age_seconds": age(found, now_us)}


def metrics_answer(found: Found, window: str, now_us: int) -> dict[str, Any]:
    """`GET /tutors/{id}/metrics`."""
    head = {"success": True, "tutor_id": found.tutor_id, "tutor_name": found.tutor_name, "window": window}
    row = found.windows.get(window)
    found = replace(found, as_of_us=found.instants.get(window, found.as_of_us))
    if row is None or found.as_of_us is None:
        message = f"No metrics found for window {window}"
        return {**head, "metrics": None, "message": message, "timestamp": naive(now_us), "source": found.source}
    return {
        **head,
        "calculation_date": naive(found.as_of_us),
        "metrics": shown(row),
        "timestamp": naive(now_us),
        **provenance(found, now_us),
    }


def flags(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Why this tier: each figure that counts for it, with its bounds, and green, red or no flag."""
    listed = []
    for name, green, red, more_is_better in TIER_THRESHOLDS:
        value, flag = found[name], None
        if value is not None:
            is_green, is_red = (value >= green, value < red) if more_is_better else (value <= green, value > red)
            flag = "green" if is_green else "red" if is_red else None
        listed.append(
            {
                "figure": name,
                "value": value,
                "flag": flag,
                "green_bound": green,
                "red_bound": red,
                "more_is_better": more_is_better,
            }
        )
    return listed


def performance_answer(found: Found, now_us: int) -> dict[str, Any]:
    """`GET /tutors/{id}/performance`: three windows, the tier of the usual one and why, and what the week lost."""
    usual = found.windows.get(USUAL_WINDOW)
    return {
        "success": True,
        "tutor_id": found.tutor_id,
        "tutor_name": found.tutor_name,
        "tutor_status": found.tutor_status,
        "performance_tier": usual["performance_tier"] if usual else None,
        "windows": {
            name: {**shown(row), "flags": flags(row)} if (row := found.windows.get(name)) else None for name in WINDOWS
        },
        "declines_7day_vs_30day": found.declines,
        "calculation_date": None if found.as_of_us is None else naive(found.as_of_us),
        "timestamp": naive(now_us),
        **provenance(found, now_us),
    }


def churn(found: Prediction) -> dict[str, Any]:
    """What is stored of a tutor's risk to leave, under the platform's names."""
    return {
        "churn_score": found.score,
        "risk_level": found.risk_level,
        "prediction_date": naive(found.predicted_us),
        **{f"window_{horizon}_probability": value for horizon, value in found.probabilities.items()},
        "contributing_factors": found.factors,
        "model_version": found.model_version,
    }


def error(detail: str, now_us: int) -> dict[str, Any]:
    """The body of every refusal."""
    return {"success": False, "error": detail, "timestamp": naive(now_us)}
