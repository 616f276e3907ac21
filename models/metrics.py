"""The published metrics of one tutor and one window: a function per formula, the tiers, and the public record.

1. Nothing here knows where the figures come from: `models.windows` counts, this module judges (contract §4.2, §4.3).
2. Rates are ``count / n * 100``, means are an exact sum (`math.fsum`, or integers) divided by ``n``; each published
   figure is rounded once, to two decimals, half-even on the binary value, and tiers look at rounded figures only.
3. `None` means that the formula has nothing to stand on (the platform stores NULL). It gives no flag.
4. Field names in the public JSON carry their unit: ``*_pct`` 0-100, ``*_frac`` a share, 1 meaning all of it, ``*_stars`` 1-5, ``*_minutes``,
   ``*_count``, ``*_us``/``*_ms`` since 1970 in UTC; ``sessions_*`` are sessions. In Python the stored columns keep the
   platform's names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

EngagementMode: TypeAlias = Literal["normalized", "upstream"]
ENGAGEMENT_MODES: Final[tuple[EngagementMode, ...]] = ("normalized", "upstream")

WINDOW_DAYS: Final[dict[str, int]] = {"7day": 7, "30day": 30, "90day": 90}

EXEMPLARY: Final = "Exemplary"
STRONG: Final = "Strong"
DEVELOPING: Final = "Developing"
NEEDS_ATTENTION: Final = "Needs Attention"
AT_RISK: Final = "At Risk"

# Contract §4.2: what an engagement is worth when no session of the window carries a score.
ENGAGEMENT_WITHOUT_SCORES: Final = 50.0


class WindowInputs(msgspec.Struct, frozen=True, gc=False):
    """What a window holds, counted: S are the tutor's sessions, F the ratings, E the tutor events (contract §4.1)."""

    scheduled: int = 0  # n(S)
    completed: int = 0
    no_shows: int = 0
    rescheduled: int = 0
    on_time: int = 0
    objectives_known: int = 0
    objectives_met: int = 0
    first_sessions: int = 0
    ratings: int = 0  # n(F)
    first_rated: int = 0  # first sessions of S that are in F too
    first_succeeded: int = 0  # of those, rated 4 or better
    rating_sum: int = 0
    logins: int = 0
    engagement: Sequence[float] = ()  # scores of S where known, after `engagement_readings`
    response_minutes: Sequence[float] = ()


class WindowMetrics(msgspec.Struct, frozen=True, gc=False):
    """One window's figures. Attributes bear the names of the platform's columns, JSON fields those with units."""

    window: str  # "7day" | "30day" | "90day"
    metric_id: str  # key of the row in tutor_performance_metrics
    sessions_completed: int
    avg_rating: float | None = msgspec.field(name="avg_rating_stars")
    first_session_success_rate: float | None = msgspec.field(name="first_session_success_rate_pct")
    reschedule_rate: float | None = msgspec.field(name="reschedule_rate_pct")
    no_show_count: int
    engagement_score: float | None = msgspec.field(name="engagement_score_pct")
    learning_objectives_met_pct: float | None
    response_time_avg_minutes: float | None
    performance_tier: str  # display name, such as "At Risk"
    # Beyond the platform's columns (contract §9):
    sessions_scheduled: int
    first_sessions_count: int
    reschedule_count: int
    feedback_count: int
    no_show_rate_pct: float | None
    sessions_per_week: float  # scheduled ones


class Declines(msgspec.Struct, frozen=True, gc=False):
    """The 30-day figure minus the 7-day figure: positive means that the last week was worse (contract §9)."""

    avg_rating_stars: float | None
    engagement_score_pct: float | None  # percentage points
    sessions_per_week: float
    sessions_per_week_frac: float | None  # the same as a share of the 30-day figure; None where that is 0


MOST_POOR_FIRST_SESSIONS: Final = 100
"""In one record: the newest. A tutor has a handful; without a bound a producer gone wrong could make a record so large
that no broker takes it."""


class PoorFirstSession(msgspec.Struct, frozen=True, gc=False):
    """A first session that was rated below 3, or began more than 10 minutes late (contract §9)."""

    session_id: str
    rating_stars: int | None  # None: not rated
    is_late: bool


class Recent(NamedTuple):
    """What alerts look at beyond the windows."""

    poor_first_sessions: tuple[PoorFirstSession, ...] = ()  # of the last 7 days, the newest last
    reschedules: int = 0  # of the last 14 days


NOTHING_RECENT: Final = Recent()


class MetricsUpdated(msgspec.Struct, frozen=True, tag_field="type", tag="metrics.updated"):
    """The public record of topic ``metrics``: all that is known of one tutor's windows as of one instant.

    The columns not repeated per window: `calculation_date` is `as_of`; `created_at` and `updated_at` belong to the row.
    Of two records of one tutor the one with the greater `fence` is right, whatever their order of arrival.
    """

    tutor_id: str
    tutor_name: str | None
    tutor_status: str | None  # wire value; None while the tutor's profile has not arrived
    as_of: str  # `as_of_us` as text, "2026-01-31T12:00:00.000000Z"
    as_of_us: int
    epoch: int
    position: int
    windows: dict[str, WindowMetrics]
    declines: Declines = msgspec.field(name="declines_7day_vs_30day")
    oldest_event_time_ms: int | None = None  # Kafka time of the oldest raw event first published with this record
    events: int = 0  # how many events were first published with it
    poor_first_sessions_7day: tuple[PoorFirstSession, ...] = ()
    reschedules_14day_count: int = 0
    is_settled: bool = True  # False while history flows in: a figure on its way, not news
    version: Literal[1] = 1

    @property
    def fence(self) -> tuple[int, int, int]:
        return (self.epoch, self.position, self.as_of_us)


class Head(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="metrics.updated"):
    """What must be known of a record to see that another one is newer: read in a quarter of the time."""

    tutor_id: str
    epoch: int
    position: int
    as_of_us: int
    oldest_event_time_ms: int | None = None
    version: Literal[1] = 1

    @property
    def fence(self) -> tuple[int, int, int]:
        return (self.epoch, self.position, self.as_of_us)


# --- formulas (contract §4.2) -----------------------------------------------------------------------------------------


def avg_rating(rating_sum: int, ratings: int) -> float | None:
    """Mean overall rating over F, 1-5."""
    return round(rating_sum / ratings, 2) if ratings else None


def first_session_success_rate(succeeded: int, rated: int) -> float | None:
    """Of the first sessions that were rated, the share rated 4 or better, 0-100."""
    return _percentage(succeeded, rated)


def reschedule_rate(rescheduled: int, scheduled: int) -> float | None:
    """Share of sessions that the tutor moved, 0-100."""
    return _percentage(rescheduled, scheduled)


def no_show_rate_pct(no_shows: int, scheduled: int) -> float | None:
    """Share of sessions that did not take place, 0-100. Tiers look at the count instead (C21)."""
    return _percentage(no_shows, scheduled)


def learning_objectives_met_pct(met: int, known: int) -> float | None:
    """Of the sessions that say whether objectives were met, the share that says yes, 0-100."""
    return _percentage(met, known)


def engagement_readings(scores: Sequence[float], mode: EngagementMode) -> list[float]:
    """Sessions' scores as the mode reads them: ``upstream`` as stored, ``normalized`` those up to 1 as fractions (C3)."""
    return list(scores) if mode == "upstream" else [score * 100.0 if score <= 1.0 else score for score in scores]


def engagement_score(inputs: WindowInputs, mode: EngagementMode, *, login_known: bool) -> float | None:
    """Login, session and punctuality parts, weighted 0.4, 0.4 and 0.2.

    ``upstream`` is the published formula literally. ``normalized`` (C3), for a tutor without any login event in the
    longest window (`login_known` false), drops the login part and divides by the remaining weight.
    """
    if not inputs.scheduled:
        return None
    session = _mean(inputs.engagement)
    if session is None:
        session = ENGAGEMENT_WITHOUT_SCORES
    on_time = inputs.on_time / inputs.scheduled * 100
    if mode == "normalized" and not login_known:
        return round((0.4 * session + 0.2 * on_time) / 0.6, 2)
    login = min(inputs.logins / inputs.scheduled * 100, 100)
    return round(0.4 * login + 0.4 * session + 0.2 * on_time, 2)


def response_time_avg_minutes(minutes: Sequence[float]) -> float | None:
    """Mean of the response times that tutor events report."""
    mean = _mean(minutes)
    return None if mean is None else round(mean, 2)


def sessions_per_week(scheduled: int, days: int) -> float:
    """Scheduled sessions, no-shows included, per seven days of the window."""
    return round(scheduled * 7 / days, 2)


# --- tiers (contract §4.3) --------------------------------------------------------------------------------------------


class Thresholds(NamedTuple):
    """Where a figure turns green (the bound included) and where red (beyond the bound); in between it gives no flag."""

    figure: str
    green: float
    red: float
    more_is_better: bool


TIER_THRESHOLDS: Final[tuple[Thresholds, ...]] = (
    Thresholds("avg_rating", 4.5, 3.5, True),
    Thresholds("first_session_success_rate", 85, 70, True),
    Thresholds("reschedule_rate", 10, 15, False),
    Thresholds("no_show_count", 0, 3, False),
    Thresholds("engagement_score", 80, 60, True),
    Thresholds("learning_objectives_met_pct", 90, 80, True),
)


def performance_tier(figures: Sequence[float | None]) -> str:
    """The tier that follows from the six rounded figures, given in the order of `TIER_THRESHOLDS`."""
    green = red = 0
    for (_, green_bound, red_bound, more_is_better), figure in zip(TIER_THRESHOLDS, figures, strict=True):
        if figure is None:
            continue
        if more_is_better:
            green += figure >= green_bound
            red += figure < red_bound
        else:
            green += figure <= green_bound
            red += figure > red_bound
    if green >= 5 and not red:
        return EXEMPLARY
    if red >= 3:
        return AT_RISK
    if red:
        return NEEDS_ATTENTION
    return STRONG if green >= 3 else DEVELOPING


# --- putting them together --------------------------------------------------------------------------------------------


def window_metrics(
    window: str, metric_id: str, inputs: WindowInputs, mode: EngagementMode, *, login_known: bool
) -> WindowMetrics:
    """All figures of one window. `login_known`: the tutor has a login event in the longest window."""
    rating = avg_rating(inputs.rating_sum, inputs.ratings)
    first_session = first_session_success_rate(inputs.first_succeeded, inputs.first_rated)
    reschedule = reschedule_rate(inputs.rescheduled, inputs.scheduled)
    engagement = engagement_score(inputs, mode, login_known=login_known)
    objectives = learning_objectives_met_pct(inputs.objectives_met, inputs.objectives_known)
    return WindowMetrics(
        window=window,
        metric_id=metric_id,
        sessions_completed=inputs.completed,
        avg_rating=rating,
        first_session_success_rate=first_session,
        reschedule_rate=reschedule,
        no_show_count=inputs.no_shows,
        engagement_score=engagement,
        learning_objectives_met_pct=objectives,
        response_time_avg_minutes=response_time_avg_minutes(inputs.response_minutes),
        performance_tier=performance_tier(
            (rating, first_session, reschedule, inputs.no_shows, engagement, objectives),
        ),
        sessions_scheduled=inputs.scheduled,
        first_sessions_count=inputs.first_sessions,
        reschedule_count=inputs.rescheduled,
        feedback_count=inputs.ratings,
        no_show_rate_pct=no_show_rate_pct(inputs.no_shows, inputs.scheduled),
        sessions_per_week=sessions_per_week(inputs.scheduled, WINDOW_DAYS[window]),
    )


def declines(windows: dict[str, WindowMetrics]) -> Declines:
    """What the last week lost against the last 30 days; a figure that either window lacks has no decline."""
    week, month = windows["7day"], windows["30day"]
    month_volume = month.sessions_scheduled * 7
    return Declines(
        avg_rating_stars=_difference(month.avg_rating, week.avg_rating),
        engagement_score_pct=_difference(month.engagement_score, week.engagement_score),
        sessions_per_week=round(month.sessions_per_week - week.sessions_per_week, 2),
        sessions_per_week_frac=(round(1 - week.sessions_scheduled * 30 / month_volume, 4) if month_volume else None),
    )


def metrics_updated(
    tutor_id: str,
    windows: dict[str, WindowMetrics],
    *,
    as_of_us: int,
    epoch: int,
    position: int,
    tutor_name: str | None = None,
    tutor_status: str | None = None,
    oldest_event_time_ms: int | None = None,
    events: int = 0,
    recent: Recent = NOTHING_RECENT,
    is_settled: bool = True,
) -> MetricsUpdated:
    """The record of a tutor's three windows as of `as_of_us`, what follows from them filled in."""
    return MetricsUpdated(
        tutor_id=tutor_id,
        tutor_name=tutor_name,
        tutor_status=tutor_status,
        as_of=utc_text(as_of_us),
        as_of_us=as_of_us,
        epoch=epoch,
        position=position,
        windows=windows,
        declines=declines(windows),
        oldest_event_time_ms=oldest_event_time_ms,
        events=events,
        poor_first_sessions_7day=recent.poor_first_sessions,
        reschedules_14day_count=recent.reschedules,
        is_settled=is_settled,
    )


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(MetricsUpdated)
_HEAD_DECODER: Final = msgspec.json.Decoder(Head)


def encode(update: MetricsUpdated) -> bytes:
    """The JSON of a record, as it stands in topic ``metrics``."""
    return _ENCODER.encode(update)


def decode(value: bytes) -> MetricsUpdated:
    """The record that `encode` wrote. Raises `msgspec.DecodeError` for anything else; unknown fields are ignored."""
    return _DECODER.decode(value)


def head(value: bytes) -> Head:
    """The head of a record that `encode` wrote. Raises `msgspec.DecodeError`, but not for what only `decode` reads."""
    return _HEAD_DECODER.decode(value)


def utc_text(instant_us: int) -> str:
    """An instant as ISO 8601 text in UTC, always with microseconds: ``2026-01-31T12:00:00.000000Z``."""
    hour, rest_us = divmod(instant_us, 3_600_000_000)
    second, micros = divmod(rest_us, 1_000_000)
    return f"{_hour_text(hour)}{second // 60:02d}:{second % 60:02d}.{micros:06d}Z"


@lru_cache(maxsize=4096)  # five months of hours: dates are written a third as fast as they are remembered
def _hour_text(hour: int) -> str:
    return (_EPOCH + timedelta(hours=hour)).isoformat()[: len("2026-01-31T12:")]


_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, unsaid: a zone would be written out and cut off again


def _percentage(count: int, of: int) -> float | None:
    return round(count / of * 100, 2) if of else None


def _difference(minuend: float | None, subtrahend: float | None) -> float | None:
    return None if minuend is None or subtrahend is None else round(minuend - subtrahend, 2)


def _mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # figures near the end of the float range: absurd, yet no reason to stop
        return math.fsum(value / len(values) for value in values)
