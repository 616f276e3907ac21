"""Bodies of answers and messages, written down as types: what the documents say, and what tests hold answers against.

Answers are made as plain objects (`answers`, `lists`, `push`), in the shapes of the platform's API; a test compares what
they hold with these. Rates are percentages, 0 to 100; what is null has nothing to stand on.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from models.metrics import WINDOW_DAYS, Declines
from models.rows import TIER_NAMES

SCHEMAS: Final = "#/components/schemas"

Tier: TypeAlias = Literal["Exemplary", "Strong", "Developing", "Needs Attention", "At Risk"]
Window: TypeAlias = Literal["7day", "30day", "90day"]
Status: TypeAlias = Literal["active", "inactive", "suspended", "churned"]
Source: TypeAlias = Literal["stream", "database"]
Level: TypeAlias = Literal["critical", "warning", "info"]

Count: TypeAlias = Annotated[int, Meta(ge=0)]
Percentage: TypeAlias = Annotated[float, Meta(ge=0, le=100)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
Naive: TypeAlias = Annotated[
    str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$", description="UTC, ISO 8601 without a zone")
]
Utc: TypeAlias = Annotated[
    str,
    Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", description="UTC, ISO 8601 with Z and microseconds"),
]
Figured: TypeAlias = Annotated[Source, Meta(description="the owner's state as of the request, or committed rows")]
AsOf: TypeAlias = Annotated[Utc, Meta(description="the instant that the windows end at")]
Age: TypeAlias = Annotated[Seconds, Meta(description="of the figures when they were answered, in seconds")]


class Error(Struct):
    """Every refusal."""

    success: Literal[False]
    error: Annotated[str, Meta(description="a sentence for people")]
    timestamp: Naive


# -- figures -----------------------------------------------------------------------------------------------------------


class Figures(Struct, kw_only=True):
    """A window's figures, rounded as the platform rounds them."""

    performance_tier: Annotated[Tier | None, Meta(description="what the figures make of the tutor")]
    sessions_completed: Annotated[Count, Meta(description="sessions that took place")]
    avg_rating: Annotated[
        Annotated[float, Meta(ge=1, le=5)] | None, Meta(description="mean overall rating, 1 to 5 stars, two decimals")
    ]
    first_session_success_rate: Annotated[
        Percentage | None, Meta(description="of rated first sessions, the share rated 4 or 5, in percent, one decimal")
    ]
    reschedule_rate: Annotated[
        Percentage | None, Meta(description="share of sessions that the tutor moved, in percent, one decimal")
    ]
    no_show_count: Annotated[Count, Meta(description="sessions that nobody came to")]
    engagement_score: Annotated[Percentage | None, Meta(description="in percent, two decimals")]
    learning_objectives_met_pct: Annotated[
        Percentage | None, Meta(description="of sessions that say, the share that met them, in percent, one decimal")
    ]
    response_time_avg_minutes: Annotated[
        float | None, Meta(description="mean of reported response times, in minutes, one decimal")
    ]


class Metrics(Struct):
    """One window of a tutor, in the platform's shape. Without a row `metrics` is null, and `message` says so."""

    success: Literal[True]
    tutor_id: str
    tutor_name: str
    window: Window
    metrics: Figures | None
    timestamp: Naive
    source: Figured
    calculation_date: Annotated[Naive, Meta(description="`as_of` as the platform writes it")] | UnsetType = UNSET
    as_of: AsOf | UnsetType = UNSET
    age_seconds: Age | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Flag(Struct):
    """What a figure says about the tier: `value` at least as good as `green_bound` is green, worse than `red_bound` red."""

    figure: str
    value: Annotated[float | None, Meta(description="in the figure's own unit")]
    flag: Literal["green", "red"] | None
    green_bound: float
    red_bound: float
    more_is_better: bool


class FlaggedFigures(Figures, kw_only=True):
    """A window's figures, and why they make its tier."""

    flags: list[Flag]


def _by_window(name: str, of: Any, doc: str) -> Any:
    return msgspec.defstruct(
        name,
        [(f"of_{window}", of, msgspec.field(name=window)) for window in WINDOW_DAYS],
        namespace={"__doc__": doc},
    )


FlaggedWindows = _by_window(
    "FlaggedWindows", FlaggedFigures | None, "Windows of 7, 30 and 90 days; null where there is no row."
)
FiguresByWindow = _by_window("FiguresByWindow", Figures, "Windows of 7, 30 and 90 days.")


Probability: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Churn(Struct):
    """The newest prediction of the tutor's risk to leave that is stored in the platform's `churn_predictions`."""

    churn_score: Annotated[int, Meta(ge=0, le=100)]
    risk_level: Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]
    prediction_date: Naive
    window_1day_probability: Probability | None
    window_7day_probability: Probability | None
    window_30day_probability: Probability | None
    window_90day_probability: Probability | None
    contributing_factors: Annotated[Any, Meta(description="by feature, as the predictor stored them; null if none")]
    model_version: str


class Performance(Struct):
    """All windows of a tutor, the tier of the 30-day one, which figures make it, and churn if there is a prediction."""

    success: Literal[True]
    tutor_id: str
    tutor_name: str
    tutor_status: Status | None
    performance_tier: Tier | None
    windows: FlaggedWindows  # type: ignore[valid-type]
    declines_7day_vs_30day: Annotated[
        Declines | None,
        Meta(description="the 30-day figure minus the 7-day figure: positive is worse; null if rows answer"),
    ]
    calculation_date: Naive | None
    timestamp: Naive
    source: Figured
    as_of: AsOf | None
    age_seconds: Age | None
    churn: Churn | None
    churn_message: Annotated[str, Meta(description="why `churn` is not known now")] | UnsetType = UNSET


class Day(Figures, kw_only=True):
    """The window as it stood at an instant, from the facts as they are known now."""

    as_of: AsOf


class Trends(Struct):
    """A window as of each of the last 30 days, the oldest first."""

    success: Literal[True]
    tutor_id: str
    tutor_name: str
    window: Window
    days: Annotated[list[Day], Meta(min_length=30, max_length=30)]
    timestamp: Naive
    source: Literal["stream"]
    as_of: AsOf
    age_seconds: Age


class SessionLine(Struct):
    """A session of the tutor, as it was last known."""

    session_id: str
    scheduled_start: Naive
    actual_start: Naive | None
    duration_minutes: int
    subject: str
    session_type: str
    session_number: Annotated[int, Meta(description="1: the student's first with this tutor")]
    no_show: bool
    tutor_initiated_reschedule: bool
    late_start_minutes: int
    engagement_score: float | None
    learning_objectives_met: bool | None
    overall_rating: Annotated[int, Meta(ge=1, le=5, description="stars; null if not rated")] | None


class Pagination(Struct):
    """Which part of how many."""

    total: Count
    limit: Count
    offset: Count
    has_more: bool


class Sessions(Struct):
    """The tutor's sessions in a window that ends now, the newest first. Ratings of others' sessions are not among them."""

    success: Literal[True]
    tutor_id: str
    window: Window
    sessions: list[SessionLine]
    pagination: Pagination
    timestamp: Naive
    source: Literal["database"]


class Line(Figures, kw_only=True):
    """A tutor's figures in a list."""

    tutor_id: str
    tutor_name: str
    tutor_status: Status
    as_of: AsOf | None
    age_seconds: Age | None


class Listing(Struct):
    """A page of tutors that have figures. What has nothing to stand on comes last, whichever way it is sorted."""

    success: Literal[True]
    window: Window
    tutors: list[Line]
    next_cursor: Annotated[str | None, Meta(description="asks for the next page; null on the last")]
    timestamp: Naive
    source: Literal["database"]


class Batch(Struct):
    """Several tutors, in the order asked for."""

    success: Literal[True]
    window: Window
    tutors: list[Metrics]
    unknown: Annotated[list[str], Meta(description="ids that no tutor has")]
    timestamp: Naive
    source: Literal["database"]


Distribution: Any = msgspec.defstruct(
    "Distribution",
    [(name.lower(), Count, msgspec.field(name=tier)) for tier, name in TIER_NAMES.items()],
    namespace={"__doc__": "Tutors by the tier of their 30-day window."},
)


class AlertsCount(Struct):
    """Tutors by what their tier calls for: At Risk and Needs Attention are critical, Developing is a warning."""

    critical: Count
    warning: Count
    info: Count


class Analytics(Struct):
    """Counts over all tutors, from committed rows: the platform's `analytics_update`."""

    total_tutors: Count
    active_tutors: Annotated[Count, Meta(description="tutors with a 30-day row")]
    performance_distribution: Distribution
    avg_rating: Annotated[float | None, Meta(description="mean of the tutors' 30-day ratings, 1 to 5 stars")]
    avg_engagement_score: Annotated[Percentage | None, Meta(description="mean of the 30-day scores, in percent")]
    total_sessions_7day: Count
    total_sessions_30day: Count
    alerts_count: AlertsCount
    timestamp: Naive
    source: Literal["database"]
    oldest_as_of: Annotated[Utc | None, Meta(description="how old the oldest of these rows may be")]


class AlertEvent(Struct):
    """`event: alert`, and an alert that stands: what somebody should hear of, in words."""

    id: str
    kind: str
    tutor_id: str
    tutor_name: str | None
    at: Utc
    severity: Level
    figure: Annotated[str | None, Meta(description="what was raised or cleared; null for other kinds")]
    title: str
    message: str


class Alerts(Struct):
    """Alerts that stand."""

    success: Literal[True]
    alerts: list[AlertEvent]
    total: Annotated[Count, Meta(description="how many stand, those that are not listed here too")]
    timestamp: Naive
    source: Literal["database"]


class WhoAmI(Struct):
    """Who is signed in. Staff read everything, a tutor reads only `tutor_id`."""

    success: Literal[True]
    user_id: int
    full_name: str | None
    is_staff: bool
    tutor_id: str | None


class Index(Struct):
    """Somebody is signed in, and a worker answers."""

    status: Literal["OK"]


# -- Server-Sent Events ------------------------------------------------------------------------------------------------


class MetricsEvent(Struct):
    """`event: metrics`: a tutor's figures are new."""

    tutor_id: str
    tutor_name: str
    as_of: AsOf
    windows: FiguresByWindow  # type: ignore[valid-type]


class TierEvent(Struct):
    """`event: tier`: a tutor's 30-day tier is another one."""

    tutor_id: str
    tutor_name: str
    as_of: AsOf
    window: Literal["30day"]
    old: Tier | None
    new: Tier | None


class Reset(Struct):
    """`event: reset`: what was missed is not remembered; load everything anew."""


# -- the platform's messages -------------------------------------------------------------------------------------------


class MetricsMessageData(Figures, kw_only=True):
    """One window of a tutor."""

    tutor_id: str
    tutor_name: str
    window: Window
    calculation_date: Naive


class AlertMessageData(Struct):
    """An alert as the platform's front end takes it."""

    id: str
    tutor_id: str
    tutor_name: str
    alert_type: Level
    severity: Literal["high", "medium", "low"]
    title: str
    message: str
    timestamp: Naive
    resolved: bool


class InterventionData(Struct):
    """A task that an alert calls for."""

    id: str
    tutor_id: str
    tutor_name: str
    task_type: Literal["coaching", "training", "review", "followup"]
    title: str
    description: str
    priority: Literal["high", "medium"]
    status: Literal["pending"]
    created_at: Naive
    due_date: Naive


class Pong(Struct):
    """The answer to `ping`."""

    pong: Literal[True]


class Unavailable(Struct):
    """Instead of totals while PostgreSQL is away."""

    unavailable: str


class MetricsMessage(Struct, tag_field="type", tag="metrics_update"):
    """A window of a tutor is new."""

    data: MetricsMessageData
    timestamp: Naive


_ANALYTICS_DATA: Final = {"anyOf": [{"$ref": f"{SCHEMAS}/{one}"} for one in ("Analytics", "Pong", "Unavailable")]}


class AnalyticsMessage(Struct, tag_field="type", tag="analytics_update"):
    """Totals when the socket opens and after a gap; the answer to `ping`."""

    data: Annotated[
        Any,  # msgspec takes no union of structs without tags
        Meta(extra_json_schema=_ANALYTICS_DATA),
    ]
    timestamp: Naive


class AlertMessage(Struct, tag_field="type", tag="alert"):
    """An alert was raised, cleared or told."""

    data: AlertMessageData
    timestamp: Naive


class InterventionMessage(Struct, tag_field="type", tag="intervention"):
    """Somebody should do something."""

    data: InterventionData
    timestamp: Naive
