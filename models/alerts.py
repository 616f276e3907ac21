"""What somebody should hear of when a tutor's figures change: thresholds, hysteresis, and the records of topic `alerts`.

1. An alert is the difference between what was announced of a tutor and what now stands, so each change is told once
   and a state that came and went unseen is not told at all (`changes`).
2. Levels and the tier are those of the 30-day window. A figure at its threshold raises; it must be better than the
   threshold by the hysteresis before the alert is cleared. No figure, no alert.
3. The first look at a tutor tells what is wrong (alerts, a pattern of reschedules), not how it came about: no tier
   changed, and first sessions of before are past.
4. A record names the newest poor first sessions only. While it is full nobody knows whether one that left it is still
   poor, so those told are remembered longer, and none is told again when it comes back.
5. `id` is tutor, kind and sequence; `sequence` grows by one with each record of a tutor. A record may come twice, and
   then bears the same id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias

import msgspec

from models.metrics import MOST_POOR_FIRST_SESSIONS, MetricsUpdated, WindowMetrics

WINDOW: Final = "30day"
Severity: TypeAlias = Literal["critical", "warning"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning")  # the worse first
MOST_ALERT_AGE_US: Final = 60_000_000
"""Figures older than that tell nothing: newer ones are on their way."""
MOST_POOR_REMEMBERED: Final = 10 * MOST_POOR_FIRST_SESSIONS
RESCHEDULES_7DAY: Final = 3  # a pattern
RESCHEDULES_14DAY: Final = 6  # a pattern that others should hear of


class Bounds(NamedTuple):
    """Where a figure raises an alert, the bound included (contract §9, rates as 0-100)."""

    figure: str  # attribute of `WindowMetrics`
    name: str  # in public records, with its unit
    warning: float
    critical: float
    more_is_better: bool

    def reached(self, value: float, severity: Severity, slack: float = 0.0) -> bool:
        """Whether `value` is as bad as that, or short of it by no more than `slack`, a share of the bound."""
        bound = self.critical if severity == "critical" else self.warning
        return value <= bound * (1 + slack) if self.more_is_better else value >= bound * (1 - slack)


BOUNDS: Final = (
    Bounds("avg_rating", "avg_rating_stars", 4.0, 3.0, True),
    Bounds("reschedule_rate", "reschedule_rate_pct", 20.0, 30.0, False),
    Bounds("no_show_count", "no_show_count", 3, 5, False),
    Bounds("engagement_score", "engagement_score_pct", 70.0, 60.0, True),
)


class _Alert(msgspec.Struct, frozen=True, tag_field="type", kw_only=True):
    kind: ClassVar[str]
    id: str
    sequence: int
    tutor_id: str
    tutor_name: str | None
    as_of: str  # of the figures, "2026-01-31T12:00:00.000000Z"
    version: Literal[1] = 1


class TierChanged(_Alert, tag="tier.changed", frozen=True, kw_only=True):
    """The tier of the window is another one."""

    kind = "tier.changed"
    window: str
    old_tier: str
    new_tier: str


class AlertRaised(_Alert, tag="alert.raised", frozen=True, kw_only=True):
    """A figure reached a bound, or moved between the two: `old_severity` is null if no alert stood."""

    kind = "alert.raised"
    window: str
    figure: str
    severity: Severity
    old_severity: Severity | None
    value: float
    threshold: float


class AlertCleared(_Alert, tag="alert.cleared", frozen=True, kw_only=True):
    """The alert about a figure stands no more; `value` is null if there is no figure any more."""

    kind = "alert.cleared"
    window: str
    figure: str
    old_severity: Severity
    value: float | None


class FirstSessionPoor(_Alert, tag="first_session.poor", frozen=True, kw_only=True):
    """A first session of the last seven days was rated below 3 or began more than 10 minutes late."""

    kind = "first_session.poor"
    session_id: str
    rating_stars: int | None
    is_late: bool


class ReschedulePattern(_Alert, tag="reschedule.pattern", frozen=True, kw_only=True):
    """Three sessions or more moved by the tutor in seven days; `escalated`: six or more in fourteen."""

    kind = "reschedule.pattern"
    reschedules_7day_count: int
    reschedules_14day_count: int
    escalated: bool


class Announced(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has been said of a tutor. `levels` by figure, `poor` holds sessions' ids, `pattern` is 0, 1 or 2 (escalated).
    `standing` are the alerts that made the levels, without a name."""

    tier: str | None = None
    levels: dict[str, Severity] = {}
    poor: tuple[str, ...] = ()
    pattern: int = 0
    sequence: int = 0
    standing: tuple[AlertRaised, ...] = ()


Alert: TypeAlias = TierChanged | AlertRaised | AlertCleared | FirstSessionPoor | ReschedulePattern
KINDS: Final[tuple[type[_Alert], ...]] = (TierChanged, AlertRaised, AlertCleared, FirstSessionPoor, ReschedulePattern)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Alert] = msgspec.json.Decoder(Alert)


def encode(alert: Alert) -> bytes:
    return _encoder.encode(alert)


def decode(value: bytes) -> Alert:
    """The alert that `encode` wrote. Raises `msgspec.DecodeError` for anything else."""
    return _decoder.decode(value)


def may_tell(update: MetricsUpdated, now_us: int) -> bool:
    """Whether these figures are worth an alert: settled, and of now. Others are looked at when newer ones come."""
    return update.is_settled and now_us - update.as_of_us <= MOST_ALERT_AGE_US


def changes(
    announced: Announced | None, update: MetricsUpdated, hysteresis_pct: float
) -> tuple[Announced, list[Alert]]:
    """What is announced from now on, and what to tell. `announced` is None at the first look at a tutor."""
    said = announced or Announced()
    month = update.windows[WINDOW]
    levels = {b.figure: level for b in BOUNDS if (level := _level(b, month, said.levels.get(b.figure), hysteresis_pct))}
    now = Announced(
        tier=month.performance_tier,
        levels=levels,
        poor=_poor(said, update),
        pattern=_pattern(update),
    )
    alerts: list[Alert] = []
    for kind, content in _differences(said, now, update, is_first=announced is None):
        sequence = said.sequence + len(alerts) + 1
        alerts.append(
            kind(
                id=f"{update.tutor_id}/{kind.kind}/{sequence}",
                sequence=sequence,
                tutor_id=update.tutor_id,
                tutor_name=update.tutor_name,
                as_of=update.as_of,
                **content,
            )
        )
    standing = {alert.figure: alert for alert in said.standing}
    for alert in alerts:
        if isinstance(alert, AlertRaised):
            standing[alert.figure] = msgspec.structs.replace(alert, tutor_name=None)
        elif isinstance(alert, AlertCleared):
            standing.pop(alert.figure, None)
    now = msgspec.structs.replace(now, sequence=said.sequence + len(alerts), standing=tuple(standing.values()))
    return now, alerts


def _poor(said: Announced, update: MetricsUpdated) -> tuple[str, ...]:
    """First sessions that are not told again."""
    listed = tuple(session.session_id for session in update.poor_first_sessions_7day)
    if len(listed) < MOST_POOR_FIRST_SESSIONS:
        return listed
    now = set(listed)
    left = [id_ for id_ in said.poor if id_ not in now]
    return (*left, *listed)[-MOST_POOR_REMEMBERED:]


def _differences(
    said: Announced, now: Announced, update: MetricsUpdated, *, is_first: bool
) -> Iterator[tuple[Any, dict[str, Any]]]:
    if said.tier is not None and said.tier != now.tier:
        yield TierChanged, {"window": WINDOW, "old_tier": said.tier, "new_tier": now.tier}
    for bounds in BOUNDS:
        old, new = said.levels.get(bounds.figure), now.levels.get(bounds.figure)
        if old == new:
            continue
        about = {"window": WINDOW, "figure": bounds.name, "value": getattr(update.windows[WINDOW], bounds.figure)}
        if new is None:
            yield AlertCleared, {**about, "old_severity": old}
        else:
            threshold = bounds.critical if new == "critical" else bounds.warning
            yield AlertRaised, {**about, "severity": new, "old_severity": old, "threshold": threshold}
    for session in () if is_first else update.poor_first_sessions_7day:
        if session.session_id not in said.poor:
            yield FirstSessionPoor, msgspec.structs.asdict(session)
    if now.pattern > said.pattern:
        yield (
            ReschedulePattern,
            {
                "reschedules_7day_count": update.windows["7day"].reschedule_count,
                "reschedules_14day_count": update.reschedules_14day_count,
                "escalated": now.pattern == 2,
            },
        )


def _level(bounds: Bounds, window: WindowMetrics, standing: Severity | None, hysteresis_pct: float) -> Severity | None:
    value: float | None = getattr(window, bounds.figure)
    if value is None:
        return None
    for severity in SEVERITIES:
        stands = standing is not None and SEVERITIES.index(standing) <= SEVERITIES.index(severity)
        if bounds.reached(value, severity, hysteresis_pct / 100 if stands else 0.0):
            return severity
    return None


def _pattern(update: MetricsUpdated) -> int:
    if update.reschedules_14day_count >= RESCHEDULES_14DAY:
        return 2
    return 1 if update.windows["7day"].reschedule_count >= RESCHEDULES_7DAY else 0
