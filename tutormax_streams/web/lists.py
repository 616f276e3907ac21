"""Figures of many tutors over HTTP, from the committed rows: one statement instead of a question to every worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from models.alerts import SEVERITIES
from models.metrics import WINDOW_DAYS, utc_text
from models.rows import TIER_NAMES
from tutormax_streams.postgres.stored_figures import SORTS, Page, StoredFigures, StoredTutor
from tutormax_streams.web import alert_messages, answers
from tutormax_streams.web.answers import Found
from tutormax_streams.web.asking import bad, cursor, json_answer, read_cursor, whole_of, window_of
from tutormax_streams.web.guard import only_allowed, staff_only

MOST_IDS: Final = 500
MOST_LIMIT: Final = 500
USUAL_LIMIT: Final = 50
USUAL_SESSIONS: Final = 20
MOST_OFFSET: Final = 1_000_000
MOST_ALERTS: Final = 50


class Lists:
    """The handlers, which raise `SinkUnavailable`. `clock` gives microseconds since 1970."""

    def __init__(self, stored: StoredFigures, clock: Callable[[], int]) -> None:
        self._stored = stored
        self._clock = clock

    async def batch(self, request: web.Request) -> web.Response:
        """`GET /tutors/metrics?ids=a,b&window=`: up to 500 tutors; unknown ones are listed as such."""
        window = window_of(request)
        named = request.query.get("ids", "").split(",")
        if not all(named) or len(named) > MOST_IDS:
            raise bad(f"ids must name 1 to {MOST_IDS} tutors, separated by commas")
        ids = list(dict.fromkeys(named))
        only_allowed(request, *ids)
        found = await self._stored.tutors(ids)
        now_us = self._clock()
        listed = [answers.metrics_answer(Found.of_rows(found[id_]), window, now_us) for id_ in ids if id_ in found]
        return json_answer(
            {
                "success": True,
                "window": window,
                "tutors": listed,
                "unknown": [id_ for id_ in ids if id_ not in found],
                "timestamp": answers.naive(now_us),
                "source": "database",
            }
        )

    async def listing(self, request: web.Request) -> web.Response:
        """`GET /tutors?tier=&search=&sort=-avg_rating&window=&limit=&cursor=`: a page of tutors; `-` sorts downwards."""
        staff_only(request)
        query = request.query
        sort = query.get("sort", "tutor_id")
        column = next((name for name in SORTS if name == sort.removeprefix("-")), None)
        if column is None:
            raise bad(f"sort must be one of {', '.join(SORTS)}, with - before it to sort downwards")
        tier = query.get("tier") or None
        if tier is not None and tier not in TIER_NAMES:
            raise bad(f"tier must be one of {', '.join(TIER_NAMES)}")
        limit = whole_of(request, "limit", USUAL_LIMIT, 1, MOST_LIMIT)
        page = Page(
            window=window_of(request),
            sort=column,
            descending=sort.startswith("-"),
            limit=limit,
            tier=tier,
            search=query.get("search", "").replace("\x00", "").strip() or None,
            after=read_cursor(query.get("cursor"), sort),
        )
        rows = await self._stored.page(page)
        now_us = self._clock()
        tutors = [_line(stored, page.window, now_us) for _, stored in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        return json_answer(
            {
                "success": True,
                "window": page.window,
                "tutors": tutors,
                "next_cursor": None if last is None else cursor(sort, last[0], last[1].tutor_id),
                "timestamp": answers.naive(now_us),
                "source": "database",
            }
        )

    async def sessions(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/sessions?window=&limit=&offset=`: the tutor's sessions behind a window's figures, newest
        first."""
        only_allowed(request, tutor_id)
        window = window_of(request)
        limit = whole_of(request, "limit", USUAL_SESSIONS, 1, MOST_LIMIT)
        offset = whole_of(request, "offset", 0, 0, MOST_OFFSET)
        now_us = self._clock()
        found = await self._stored.sessions(tutor_id, WINDOW_DAYS[window], now_us, limit, offset)
        if found is None:
            return json_answer(answers.error(f"Tutor {tutor_id} not found", now_us), status=404)
        total, rows = found
        return json_answer(
            {
                "success": True,
                "tutor_id": tutor_id,
                "window": window,
                "sessions": [answers.session(row) for row in rows],
                "pagination": {
                    "total": total,
                    "limit": limit,
                    "offset": offset,
                    "has_more": offset + len(rows) < total,
                },
                "timestamp": answers.naive(now_us),
                "source": "database",
            }
        )

    async def analytics(self, request: web.Request) -> web.Response:
        """`GET /dashboard/analytics`: the platform's `analytics_update` payload."""
        staff_only(request)
        return json_answer(await self.totals())

    async def alerts(self, request: web.Request) -> web.Response:
        """`GET /dashboard/alerts`: those that stand, the worst first and of these the newest."""
        staff_only(request)
        standing = await self._stored.standing_alerts()
        standing.sort(key=lambda alert: alert.as_of, reverse=True)
        standing.sort(key=lambda alert: SEVERITIES.index(alert.severity))
        return json_answer(
            {
                "success": True,
                "alerts": [alert_messages.event(alert) for alert in standing[:MOST_ALERTS]],
                "total": len(standing),
                "timestamp": answers.naive(self._clock()),
                "source": "database",
            }
        )

    async def totals(self) -> dict[str, Any]:
        """Counts over all tutors, from committed rows."""
        tutors, active, tiers, rating, engagement, week, month, oldest_us = await self._stored.analytics()
        spread = {tier: tiers.get(name, 0) for tier, name in TIER_NAMES.items()}
        now_us = self._clock()
        return {
            "total_tutors": tutors,
            "active_tutors": active,
            "performance_distribution": spread,
            "avg_rating": None if rating is None else round(rating, 2),
            "avg_engagement_score": None if engagement is None else round(engagement, 2),
            "total_sessions_7day": int(week),
            "total_sessions_30day": int(month),
            "alerts_count": {
                "critical": spread["At Risk"] + spread["Needs Attention"],
                "warning": spread["Developing"],
                "info": 0,
            },
            "timestamp": answers.naive(now_us),
            "source": "database",
            "oldest_as_of": None if oldest_us is None else utc_text(oldest_us),
        }


def _line(stored: StoredTutor, window: str, now_us: int) -> dict[str, Any]:
    found = Found.of_rows(stored)
    return {
        "tutor_id": stored.tutor_id,
        "tutor_name": stored.name,
        "tutor_status": stored.status,
        **answers.shown(stored.windows[window]),
        "as_of": answers.as_of(found),
        "age_seconds": answers.age(found, now_us),
    }
