"""Figures of tutors over HTTP, from any worker.

1. The owner of a tutor's state answers from it as of the request. Another worker forwards the request to the owner: once,
   under a deadline, with the caller's own token.
2. Where the owner cannot answer (it recovers, cannot be reached, or is not known), the committed rows do, and the answer
   says so. `max_age` refuses what is older.
3. Nobody answers from part of the history, and nobody makes up a zero: no row means null and a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import faust
import orjson
from aiohttp import web

from agents.ports import SinkUnavailable
from models.metrics import utc_text
from models.rows import TIER_NAMES
from tutormax_streams.postgres.stored_figures import SORTS, Page, StoredFigures, StoredTutor
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web import answers
from tutormax_streams.web.answers import USUAL_WINDOW, WINDOWS, Found
from tutormax_streams.web.guard import USER
from tutormax_streams.web.owners import NotHere, Owners

logger = logging.getLogger(__name__)

HOPS: Final = "X-Tutormax-Forwarded"
FORWARD_SECONDS: Final = 2.0
MOST_IDS: Final = 500
MOST_LIMIT: Final = 500
TREND_DAYS: Final = 30
DAY_US: Final = 86_400_000_000

Shape = Callable[[Found, int], dict[str, Any]]


class Lookups:
    """The handlers. `clock` gives microseconds since 1970."""

    def __init__(self, owners: Owners, stored: StoredFigures, clock: Callable[[], int], telemetry: Telemetry) -> None:
        self._owners = owners
        self._stored = stored
        self._clock = clock
        self._telemetry = telemetry
        self._client: aiohttp.ClientSession | None = None

    # -- one tutor ----------------------------------------------------------------------------------------------

    async def metrics(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/metrics?window=30day&max_age=`: one window in the platform's shape."""
        window = _window(request)
        return await self._tutor(request, tutor_id, lambda found, now: answers.metrics_answer(found, window, now))

    async def performance(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/performance`: three windows, the tier, and which figures make it."""
        return await self._tutor(request, tutor_id, answers.performance_answer)

    async def trends(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/trends?window=30day`: the window as of each of the last 30 days, from the owner's facts."""
        window = _window(request)
        _only_allowed(request, tutor_id)
        now_us = self._clock()
        instants_us = [now_us - days * DAY_US for days in range(TREND_DAYS - 1, -1, -1)]
        try:
            update = self._owners.current(tutor_id)
            trend = self._owners.trend(tutor_id, window, instants_us)
        except NotHere:
            forwarded = await self._forward(request, tutor_id)
            return forwarded or self._later("the worker that holds this tutor's history is not ready")
        if update.tutor_name is None:
            return self._unknown(tutor_id)
        days = [
            {"as_of": utc_text(at_us), **answers.shown(answers.figures(day))}
            for at_us, day in zip(instants_us, trend, strict=True)
        ]
        found = Found.of(update)
        head = {"success": True, "tutor_id": tutor_id, "tutor_name": found.tutor_name, "window": window, "days": days}
        return _json({**head, "timestamp": answers.naive(now_us), **answers.provenance(found, now_us)})

    async def _tutor(self, request: web.Request, tutor_id: str, shape: Shape) -> web.Response:
        _only_allowed(request, tutor_id)
        max_age = _number(request, "max_age", None, 0.0, 1e9)
        try:
            update = self._owners.current(tutor_id)
        except NotHere:
            forwarded = await self._forward(request, tutor_id)
            if forwarded is not None:
                return forwarded
            if HOPS in request.headers:
                return self._later("this worker does not hold the tutor's state")
            return await self._from_rows(tutor_id, shape, max_age)
        if update.tutor_name is None:
            return self._unknown(tutor_id)
        self._telemetry.count("lookups", source="stream")
        return _json(shape(Found.of(update), self._clock()))

    async def _forward(self, request: web.Request, tutor_id: str) -> web.Response | None:
        """The owner's answer as it is; None if there is no owner to ask or it has none."""
        url = None if HOPS in request.headers else self._owners.url(tutor_id)
        if url is None:
            return None
        if self._client is None:
            # Its own: Faust's router drops headers and waits for ever.
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FORWARD_SECONDS))
        passed = {name: request.headers[name] for name in ("Authorization", "Cookie") if name in request.headers}
        try:
            async with self._client.get(
                url.join(request.rel_url), headers={**passed, HOPS: "1"}, allow_redirects=False
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError) as failure:
            logger.info("the owner at %s does not answer: %r", url, failure)
            return None
        if response.status >= 500:
            return None
        self._telemetry.count("lookups", source="forwarded")
        headers = {name: response.headers[name] for name in ("Retry-After",) if name in response.headers}
        return web.Response(body=body, status=response.status, content_type=response.content_type, headers=headers)

    async def _from_rows(self, tutor_id: str, shape: Shape, max_age: float | None) -> web.Response:
        try:
            stored = (await self._stored.tutors([tutor_id])).get(tutor_id)
        except SinkUnavailable as away:
            return self._later(f"neither the owner of this tutor's state nor PostgreSQL answers: {away}")
        if stored is None:
            return self._unknown(tutor_id)
        now_us = self._clock()
        found = _found(stored, now_us)
        if max_age is not None and (not found.windows or found.age_seconds(now_us) > max_age):
            return self._later(f"the newest figures at hand are {found.age_seconds(now_us):.1f} s old")
        self._telemetry.count("lookups", source="database")
        return _json(shape(found, now_us))

    # -- many tutors, from committed rows -----------------------------------------------------------------------

    async def batch(self, request: web.Request) -> web.Response:
        """`GET /tutors/metrics?ids=a,b&window=`: up to 500 tutors; unknown ones are listed as such."""
        window = _window(request)
        ids = list(dict.fromkeys(id_ for id_ in request.query.get("ids", "").split(",") if id_))
        if not 0 < len(ids) <= MOST_IDS:
            raise _bad(f"ids must name 1 to {MOST_IDS} tutors, separated by commas")
        user = request[USER]
        if not all(user.may_read(id_) for id_ in ids):
            raise web.HTTPForbidden
        found = await self._stored.tutors(ids)
        now_us = self._clock()
        listed = [answers.metrics_answer(_found(found[id_], now_us), window, now_us) for id_ in ids if id_ in found]
        return _json(
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
        _staff_only(request)
        query = request.query
        sort = query.get("sort", "tutor_id")
        column = next((name for name in SORTS if name == sort.lstrip("-")), None)
        if column is None:
            raise _bad(f"sort must be one of {', '.join(SORTS)}, with - before it to sort downwards")
        tier = query.get("tier") or None
        if tier is not None and tier not in TIER_NAMES:
            raise _bad(f"tier must be one of {', '.join(TIER_NAMES)}")
        limit = int(_number(request, "limit", 50, 1, MOST_LIMIT) or 0)
        page = Page(
            window=_window(request),
            sort=column,
            descending=sort.startswith("-"),
            limit=limit,
            tier=tier,
            search=query.get("search", "").replace("\x00", "").strip() or None,
            after=_read_cursor(query.get("cursor"), sort),
        )
        rows = await self._stored.page(page)
        now_us = self._clock()
        tutors = [_line(stored, page.window, now_us) for _, stored in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        return _json(
            {
                "success": True,
                "window": page.window,
                "tutors": tutors,
                "next_cursor": None if last is None else _cursor(sort, last[0], last[1].tutor_id),
                "timestamp": answers.naive(now_us),
                "source": "database",
            }
        )

    async def analytics(self, request: web.Request) -> web.Response:
        """`GET /dashboard/analytics`: the platform's `analytics_update` payload."""
        _staff_only(request)
        return _json(await self.totals())

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

    async def session(self, request: web.Request) -> web.Response:
        """`GET /whoami`: who is signed in, and what they may read."""
        user = request[USER]
        return _json(
            {
                "success": True,
                "user_id": user.user_id,
                "full_name": user.full_name,
                "is_staff": user.is_staff,
                "tutor_id": user.tutor_id,
            }
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    # -- refusals -----------------------------------------------------------------------------------------------

    def _later(self, why: str) -> web.Response:
        return _json(answers.error(why, self._clock()), status=503, headers={"Retry-After": "1"})

    def _unknown(self, tutor_id: str) -> web.Response:
        return _json(answers.error(f"Tutor {tutor_id} not found", self._clock()), status=404)

    def unavailable(self, away: SinkUnavailable) -> web.Response:
        return self._later(f"PostgreSQL does not answer: {away}")


def _found(stored: StoredTutor, now_us: int) -> Found:
    return Found(
        stored.tutor_id,
        stored.name,
        stored.status,
        "database",
        now_us if stored.as_of_us is None else stored.as_of_us,
        stored.windows,
    )


def _line(stored: StoredTutor, window: str, now_us: int) -> dict[str, Any]:
    found = _found(stored, now_us)
    return {
        "tutor_id": stored.tutor_id,
        "tutor_name": stored.name,
        "tutor_status": stored.status,
        **answers.shown(stored.windows[window]),
        "as_of": utc_text(found.as_of_us),
        "age_seconds": round(found.age_seconds(now_us), 3),
    }


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


def _bad(detail: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(reason=detail)


def _window(request: web.Request) -> str:
    window = request.query.get("window", USUAL_WINDOW)
    if window not in WINDOWS:
        raise _bad(f"Invalid window. Must be one of: {', '.join(WINDOWS)}")
    return window


def _number(request: web.Request, name: str, usual: float | None, least: float, most: float) -> float | None:
    text = request.query.get(name)
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise _bad(f"{name} must be a number from {least:g} to {most:g}")
    return value


def _only_allowed(request: web.Request, tutor_id: str) -> None:
    if not request[USER].may_read(tutor_id):
        raise web.HTTPForbidden


def _staff_only(request: web.Request) -> None:
    if not request[USER].is_staff:
        raise web.HTTPForbidden


def _cursor(sort: str, key: Any, tutor_id: str) -> str:
    """Where the next page begins; infinities, which stand for nothing, survive Python's JSON."""
    return base64.urlsafe_b64encode(json.dumps([sort, key, tutor_id]).encode()).decode()


def _read_cursor(text: str | None, sort: str) -> tuple[Any, str] | None:
    if not text:
        return None
    try:
        of, key, tutor_id = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, binascii.Error):
        of, key, tutor_id = None, None, None
    named = sort.lstrip("-") in ("tutor_id", "tutor_name")
    wanted: tuple[type, ...] = (str,) if named else (int, float)
    if of != sort or not isinstance(key, wanted) or isinstance(key, bool) or not isinstance(tutor_id, str):
        raise _bad("cursor must be the next_cursor of a page with the same sort")
    if "\x00" in tutor_id or "\x00" in str(key):
        raise _bad("cursor must be the next_cursor of a page with the same sort")
    return key, tutor_id


def attach(app: faust.App, lookups: Lookups) -> None:
    """Serve the lookups from `app`'s web server, each also under `/api`."""

    def serve(path: str, handle: Callable[..., Awaitable[web.Response]]) -> None:
        async def view(_: Any, request: Any, **parts: str) -> Any:
            try:
                return await handle(request, **parts)
            except SinkUnavailable as away:
                return lookups.unavailable(away)

        for prefix in ("", "/api"):
            app.page(prefix + path, name=f"{handle.__name__}{prefix}")(view)

    serve("/tutors", lookups.listing)
    serve("/tutors/metrics", lookups.batch)
    serve("/tutors/{tutor_id}/metrics", lookups.metrics)
    serve("/tutors/{tutor_id}/performance", lookups.performance)
    serve("/tutors/{tutor_id}/trends", lookups.trends)
    serve("/dashboard/analytics", lookups.analytics)
    serve("/whoami", lookups.session)
