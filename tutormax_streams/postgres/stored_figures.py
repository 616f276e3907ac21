"""Reads for lookups: users, and the committed rows of metrics.

Of a tutor's rows the newest of each window counts, whoever wrote it. Lists look at our own current rows alone, one per
tutor and window, so that their cost does not grow with the platform's history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, Final, LiteralString

from models.alerts import AlertRaised
from models.rows import STATUS_VALUES, TIER_NAMES, TIER_VALUES, WINDOW_NAMES, WINDOW_VALUES
from tutormax_streams.postgres import alerting
from tutormax_streams.postgres.database import Connection, Database

_COLUMNS: Final[tuple[LiteralString, ...]] = (
    "performance_tier", "sessions_completed", "avg_rating", "first_session_success_rate", "reschedule_rate",
    "no_show_count", "engagement_score", "learning_objectives_met_pct", "response_time_avg_minutes",
)  # fmt: skip
_FIGURES: Final[LiteralString] = ", ".join(_COLUMNS)
SORTS: Final[tuple[LiteralString, ...]] = ("tutor_id", "tutor_name", *_COLUMNS[1:])
"""What a list may be sorted by: who it is, or a figure."""


@dataclass(frozen=True, slots=True)
class StoredTutor:
    """A tutor and the newest row of each window that has one."""

    tutor_id: str
    name: str
    status: str
    as_of_us: int | None  # of the oldest of these rows
    windows: Mapping[str, Mapping[str, Any]]
    instants: Mapping[str, int]  # by window: its row's `calculation_date` in µs


@dataclass(frozen=True, slots=True)
class Prediction:
    """The newest that is stored of a tutor's risk to leave, whoever predicted it."""

    score: int  # 0 to 100
    risk_level: str  # LOW, MEDIUM, HIGH, CRITICAL
    predicted_us: int
    model_version: str
    factors: Any  # as stored
    probabilities: Mapping[str, float | None]  # within so long, 0 to 1


@dataclass(frozen=True, slots=True)
class Page:
    """What a list asks for. `after` is the sort key and id of the last tutor seen."""

    window: str
    sort: LiteralString
    descending: bool
    limit: int
    tier: str | None = None
    search: str | None = None
    after: tuple[Any, str] | None = None


_USER: Final = "SELECT id, full_name, is_active, is_superuser, roles, tutor_id FROM users WHERE id = %s"

_TUTORS: Final[LiteralString] = f"""
SELECT t.tutor_id, t.name, t.status, m."window", m.calculation_date, {_FIGURES}
FROM tutors AS t LEFT JOIN LATERAL (
    SELECT DISTINCT ON ("window") * FROM tutor_performance_metrics AS stored
    WHERE stored.tutor_id = t.tutor_id ORDER BY "window", calculation_date DESC
) AS m ON true
WHERE t.tutor_id = ANY (%s) ORDER BY t.tutor_id
"""  # noqa: S608 - names of columns

_OURS: Final[LiteralString] = """
FROM tutors AS t JOIN tutor_performance_metrics AS m ON m.tutor_id = t.tutor_id
WHERE m."window" = %(window)s AND starts_with(m.metric_id, 'tms_')
"""

_ANALYTICS: Final[LiteralString] = """
SELECT
    (SELECT count(*) FROM tutors),
    coalesce(sum(tutors) FILTER (WHERE month), 0)::int8,
    coalesce(jsonb_object_agg(tier, tutors) FILTER (WHERE month AND tier IS NOT NULL), '{}'),
    sum(ratings) FILTER (WHERE month) / nullif(sum(rated) FILTER (WHERE month), 0)::float8,
    sum(engagement) FILTER (WHERE month) / nullif(sum(engaged) FILTER (WHERE month), 0)::float8,
    coalesce(sum(sessions) FILTER (WHERE week), 0)::int8,
    coalesce(sum(sessions) FILTER (WHERE month), 0)::int8,
    min(oldest) FILTER (WHERE month)
FROM (
    SELECT
        "window" = 'THIRTY_DAY' AS month, "window" = 'SEVEN_DAY' AS week, performance_tier AS tier, count(*) AS tutors,
        sum(avg_rating) AS ratings, count(avg_rating) AS rated, sum(engagement_score) AS engagement,
        count(engagement_score) AS engaged, sum(sessions_completed) AS sessions, min(calculation_date) AS oldest
    FROM tutor_performance_metrics WHERE starts_with(metric_id, 'tms_') GROUP BY "window", performance_tier
) AS groups
"""


# A rating counts where the session does (contract §4.1), and here only the tutor's own.
_SESSIONS: Final[LiteralString] = """
FROM sessions AS s LEFT JOIN student_feedback AS f ON f.session_id = s.session_id AND f.tutor_id = s.tutor_id
WHERE s.tutor_id = %(tutor)s AND s.scheduled_start < to_timestamp(%(now)s)
    AND s.scheduled_start >= to_timestamp(%(now)s) - make_interval(hours => 24 * %(days)s)
"""
SESSION_COLUMNS: Final[tuple[LiteralString, ...]] = (
    "session_id", "scheduled_start", "actual_start", "duration_minutes", "subject", "session_type", "session_number",
    "no_show", "tutor_initiated_reschedule", "late_start_minutes", "engagement_score", "learning_objectives_met",
)  # fmt: skip
_SESSION_PAGE: Final[LiteralString] = f"""
SELECT {", ".join(f"s.{column}" for column in SESSION_COLUMNS)}, f.overall_rating {_SESSIONS}
ORDER BY s.scheduled_start DESC, s.session_id LIMIT %(limit)s OFFSET %(offset)s
"""
_SESSION_COUNT: Final[LiteralString] = f"""
SELECT (SELECT count(*) FROM tutors WHERE tutor_id = %(tutor)s), (SELECT count(*) {_SESSIONS})
"""  # noqa: S608 - our own text

HORIZONS: Final[tuple[LiteralString, ...]] = ("1day", "7day", "30day", "90day")
_ARE_PREDICTED: Final = "SELECT to_regclass('churn_predictions') IS NOT NULL"
_PREDICTION: Final[LiteralString] = f"""
SELECT churn_score, risk_level, prediction_date, model_version, contributing_factors,
    {", ".join(f"window_{horizon}_probability" for horizon in HORIZONS)}
FROM churn_predictions WHERE tutor_id = %s ORDER BY prediction_date DESC LIMIT 1
"""  # noqa: S608 - names of columns


class StoredFigures:
    """Raises `SinkUnavailable` while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, user_id: int) -> tuple[Any, ...] | None:
        """id, full name, active, superuser, roles, tutor id of a platform's user."""
        return await self._database.run(partial(_user, user_id=user_id), seconds=SECONDS)

    async def tutors(self, tutor_ids: Sequence[str]) -> dict[str, StoredTutor]:
        """Those that exist."""
        return await self._database.run(partial(_tutors, tutor_ids=tutor_ids), seconds=SECONDS)

    async def prediction(self, tutor_id: str) -> Prediction | None:
        """None where nobody has predicted anything, or the platform has no such table."""
        return await self._database.run(partial(_prediction, tutor_id=tutor_id), seconds=SECONDS)

    async def page(self, page: Page) -> list[tuple[Any, StoredTutor]]:
        """Sort key and tutor, with the one window asked for; one more than `limit` when there are more."""
        return await self._database.run(partial(_page, page=page), seconds=SECONDS)

    async def sessions(
        self, tutor_id: str, days: int, now_us: int, limit: int, offset: int
    ) -> tuple[int, list[tuple[Any, ...]]] | None:
        """How many sessions the tutor has in the window that ends at `now_us`, and a page of them, the newest first: values
        of `SESSION_COLUMNS` and the rating. None if there is no such tutor."""
        values = {"tutor": tutor_id, "days": days, "now": now_us / 1e6, "limit": limit, "offset": offset}
        return await self._database.run(partial(_sessions, values=values), seconds=SECONDS)

    async def analytics(self) -> tuple[Any, ...]:
        """Tutors; tutors with a 30-day row; tiers; mean rating and engagement; sessions of 7 and 30 days; oldest row."""
        return await self._database.run(_analytics, seconds=SECONDS)

    async def standing_alerts(self) -> list[AlertRaised]:
        """In no order."""
        return await self._database.run(alerting.standing, seconds=SECONDS)


SECONDS: Final = 3.0  # who asks has little patience


async def _user(connection: Connection, user_id: int) -> tuple[Any, ...] | None:
    if not -(2**31) <= user_id < 2**31:
        return None
    found = await connection.execute(_USER, [user_id])
    return await found.fetchone()


async def _sessions(connection: Connection, values: dict[str, Any]) -> tuple[int, list[tuple[Any, ...]]] | None:
    if "\x00" in values["tutor"]:
        return None
    counted = await (await connection.execute(_SESSION_COUNT, values, binary=True)).fetchone()
    if counted is None or not counted[0]:
        return None
    found = await connection.execute(_SESSION_PAGE, values, binary=True)
    return counted[1], await found.fetchall()


async def _prediction(connection: Connection, tutor_id: str) -> Prediction | None:
    if "\x00" in tutor_id or await (await connection.execute(_ARE_PREDICTED)).fetchone() != (True,):
        return None
    row = await (await connection.execute(_PREDICTION, [tutor_id], binary=True)).fetchone()
    if row is None:
        return None
    score, level, predicted_us, version, factors, *probabilities = row
    known = (value if value is not None and isfinite(value) else None for value in probabilities)
    return Prediction(score, level.upper(), predicted_us, version, factors, dict(zip(HORIZONS, known, strict=True)))


async def _tutors(connection: Connection, tutor_ids: Sequence[str]) -> dict[str, StoredTutor]:
    # NUL is legal in a request's path and in no text of PostgreSQL.
    found = await connection.execute(_TUTORS, [[id_ for id_ in tutor_ids if "\x00" not in id_]], binary=True)
    tutors: dict[str, StoredTutor] = {}
    for tutor_id, name, status, window, as_of_us, *figures in await found.fetchall():
        known = tutors.get(tutor_id) or StoredTutor(tutor_id, name, STATUS_VALUES.get(status, status), None, {}, {})
        if window in WINDOW_VALUES:
            oldest = as_of_us if known.as_of_us is None else min(known.as_of_us, as_of_us)
            windows = {**known.windows, WINDOW_VALUES[window]: _named(figures)}
            instants = {**known.instants, WINDOW_VALUES[window]: as_of_us}
            known = StoredTutor(tutor_id, name, known.status, oldest, windows, instants)
        tutors[tutor_id] = known
    return tutors


def _named(figures: Sequence[Any]) -> dict[str, Any]:
    row = dict(zip(_COLUMNS, figures, strict=True))
    return {**row, "performance_tier": TIER_VALUES.get(row["performance_tier"], row["performance_tier"])}


async def _page(connection: Connection, page: Page) -> list[tuple[Any, StoredTutor]]:
    assert page.sort in SORTS, "a column's name goes into the statement as it is"
    # Nothing to stand on comes last in either direction.
    key: LiteralString = {"tutor_id": 't.tutor_id COLLATE "C"', "tutor_name": 'lower(t.name) COLLATE "C"'}.get(
        page.sort,
        f"coalesce(m.{page.sort}::float8, '{'-' if page.descending else ''}Infinity')",
    )
    beyond, order = ("<", "DESC") if page.descending else (">", "ASC")
    parameters: dict[str, Any] = {"window": WINDOW_NAMES[page.window], "limit": page.limit + 1}
    conditions: LiteralString = ""
    if page.tier is not None:
        conditions += " AND m.performance_tier = %(tier)s"
        parameters["tier"] = TIER_NAMES[page.tier]
    if page.search:
        conditions += " AND (position(lower(%(search)s) IN lower(t.name)) > 0 OR starts_with(t.tutor_id, %(search)s))"
        parameters["search"] = page.search
    if page.after is not None:
        conditions += f' AND ({key}, t.tutor_id COLLATE "C") {beyond} (%(key)s, %(id)s)'
        parameters["key"], parameters["id"] = page.after
    statement: LiteralString = (
        f"SELECT {key}, t.tutor_id, t.name, t.status, m.calculation_date, {_FIGURES} {_OURS}{conditions}"
        f' ORDER BY {key} {order}, t.tutor_id COLLATE "C" {order} LIMIT %(limit)s'
    )
    found = await connection.execute(statement, parameters, binary=True)
    return [
        (
            sort_key,
            StoredTutor(
                id_,
                name,
                STATUS_VALUES.get(status, status),
                as_of_us,
                {page.window: _named(figures)},
                {page.window: as_of_us},
            ),
        )
        for sort_key, id_, name, status, as_of_us, *figures in await found.fetchall()
    ]


async def _analytics(connection: Connection) -> tuple[Any, ...]:
    found = await connection.execute(_ANALYTICS, binary=True)
    row = await found.fetchone()
    assert row is not None, "one row of totals"
    return row
