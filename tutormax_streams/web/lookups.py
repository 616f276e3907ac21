"""Figures of tutors over HTTP, from any worker.

1. The owner of a tutor's state answers from it as of the request. Another worker forwards the request to the owner: once,
   under a deadline, vouching for the caller.
2. Where the owner cannot answer (it recovers, cannot be reached, or is not known), the committed rows do, and the answer
   says so. `max_age` refuses what is older.
3. Nobody answers from part of the history, and nobody makes up a zero. Only where the owner itself has been told of no
   such tutor does no row mean 404, or null and a message.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import faust
from aiohttp import web
from yarl import URL

from agents.ports import SinkUnavailable
from models.metrics import utc_text
from tutormax_streams.postgres.stored_figures import StoredFigures
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web import answers
from tutormax_streams.web.access import User
from tutormax_streams.web.answers import Found
from tutormax_streams.web.asking import json_answer, number_of, window_of
from tutormax_streams.web.guard import USER, VOUCH, only_allowed
from tutormax_streams.web.lists import Lists
from tutormax_streams.web.owners import NotHere, Owners
from tutormax_streams.web.patience import within

logger = logging.getLogger(__name__)

HOPS: Final = "X-Tutormax-Forwarded"
FORWARD_SECONDS: Final = 2.0
TREND_DAYS: Final = 30
MOST_AGE_SECONDS: Final = 1e9
DAY_US: Final = 86_400_000_000
CHURN_SECONDS: Final = 0.5
AWAY_US: Final = 10_000_000
UNKNOWN_CHURN: Final = {"churn": None, "churn_message": "not known now, PostgreSQL does not answer"}
UNHEARD: Final = "no row of it is committed, and the owner of this tutor's state does not answer"

Shape = Callable[[Found, int], dict[str, Any]]
Aside = Callable[[str], Awaitable[dict[str, Any]]]
"""What PostgreSQL knows besides, of the tutor with that id."""


class Lookups:
    """The handlers. `vouch` tells other workers who asks; `clock` gives microseconds since 1970."""

    def __init__(
        self,
        owners: Owners,
        stored: StoredFigures,
        vouch: Callable[[User], str],
        clock: Callable[[], int],
        telemetry: Telemetry,
    ) -> None:
        self._owners = owners
        self._stored = stored
        self._vouch = vouch
        self._clock = clock
        self._telemetry = telemetry
        self._client: aiohttp.ClientSession | None = None
        self._predictions_after = 0

    # -- one tutor ----------------------------------------------------------------------------------------------

    async def metrics(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/metrics?window=30day&max_age=`: one window in the platform's shape."""
        window = window_of(request)
        return await self._tutor(request, tutor_id, lambda found, now: answers.metrics_answer(found, window, now))

    async def performance(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/performance`: three windows, the tier, which figures make it, and churn if predicted."""
        return await self._tutor(request, tutor_id, answers.performance_answer, self._churn)

    async def trends(self, request: web.Request, tutor_id: str) -> web.Response:
        """`GET /tutors/{id}/trends?window=30day`: the window as of each of the last 30 days, from the owner's facts."""
        window = window_of(request)
        only_allowed(request, tutor_id)
        now_us = self._clock()
        instants_us = [now_us - days * DAY_US for days in range(TREND_DAYS - 1, -1, -1)]
        try:
            update = self._owners.current(tutor_id)
            trend = self._owners.trend(tutor_id, window, instants_us)
        except NotHere:
            forwarded = await self._forward(request, tutor_id)
            return forwarded or self._later("the worker that holds this tutor's history is not ready")
        name = update.tutor_name
        if name is None:  # the platform may have written the tutor straight into its table
            stored = (await self._stored.tutors([tutor_id])).get(tutor_id)
            if stored is None:
                return self._unknown(tutor_id)
            name = stored.name
        days = [
            {"as_of": utc_text(at_us), **answers.shown(answers.figures(day))}
            for at_us, day in zip(instants_us, trend, strict=True)
        ]
        found = Found.of(update)
        head = {"success": True, "tutor_id": tutor_id, "tutor_name": name, "window": window, "days": days}
        return json_answer({**head, "timestamp": answers.naive(now_us), **answers.provenance(found, now_us)})

    async def _churn(self, tutor_id: str) -> dict[str, Any]:
        if self._clock() < self._predictions_after:
            return UNKNOWN_CHURN  # a server that hangs would hold up each lookup
        try:
            found = await within(CHURN_SECONDS, self._stored.prediction(tutor_id))
        except (SinkUnavailable, TimeoutError) as away:
            logger.info("PostgreSQL does not answer: %r", away)
            self._predictions_after = self._clock() + AWAY_US
            return UNKNOWN_CHURN
        return {"churn": None if found is None else answers.churn(found)}

    async def _tutor(
        self, request: web.Request, tutor_id: str, shape: Shape, aside: Aside | None = None
    ) -> web.Response:
        only_allowed(request, tutor_id)
        max_age = number_of(request, "max_age", None, 0.0, MOST_AGE_SECONDS)
        try:
            update = self._owners.current(tutor_id)
        except NotHere:
            forwarded = await self._forward(request, tutor_id)
            if forwarded is not None:
                return forwarded
            if HOPS in request.headers:
                return self._later("this worker does not hold the tutor's state")
            return await self._from_rows(tutor_id, shape, max_age, aside, owner_knows_nobody=False)
        if update.tutor_name is None:  # no event told who it is, but the platform may have written it into its table
            return await self._from_rows(tutor_id, shape, max_age, aside, owner_knows_nobody=True)
        self._telemetry.count("lookups", source="stream")
        besides = await aside(tutor_id) if aside else {}
        return json_answer({**shape(Found.of(update), self._clock()), **besides})

    async def _forward(self, request: web.Request, tutor_id: str) -> web.Response | None:
        """The owner's answer as it is; None if there is no owner to ask or it has none."""
        url = None if HOPS in request.headers else self._owners.url(tutor_id)
        if url is None:
            return None
        if self._client is None:
            # Its own: Faust's router drops headers and waits for ever.
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=FORWARD_SECONDS))
        if self._client.closed:
            return None  # the worker stops, and its web server is the last to
        # The caller's own token besides: the owner's clock may take the vouch for an old one.
        passed = {name: request.headers[name] for name in ("Authorization", "Cookie") if name in request.headers}
        try:
            async with self._client.get(
                # As it came: joining would follow dots in the path.
                URL(f"{url.origin()}{request.rel_url.raw_path_qs}", encoded=True),
                headers={**passed, HOPS: "1", VOUCH: self._vouch(request[USER])},
                allow_redirects=False,
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

    async def _from_rows(
        self, tutor_id: str, shape: Shape, max_age: float | None, aside: Aside | None, *, owner_knows_nobody: bool
    ) -> web.Response:
        """Unless `owner_knows_nobody` of that id, what is not in a row may be in the stream, and is not denied."""
        try:
            stored = (await self._stored.tutors([tutor_id])).get(tutor_id)
        except SinkUnavailable as away:
            logger.info("PostgreSQL does not answer: %s", away)
            return self._later("neither the owner of this tutor's state nor PostgreSQL answers")
        if stored is None:
            return self._unknown(tutor_id) if owner_knows_nobody else self._later(UNHEARD)
        now_us = self._clock()
        answer = shape(Found.of_rows(stored), now_us)
        age = answer.get("age_seconds")  # of the window asked for, not of the oldest row
        if not owner_knows_nobody and (age is None or None in answer.get("windows", {}).values()):
            return self._later(UNHEARD)
        if max_age is not None and (age is None or age > max_age):
            return self._later("no figures are at hand" if age is None else f"the figures at hand are {age:.1f} s old")
        self._telemetry.count("lookups", source="database")
        return json_answer({**answer, **(await aside(tutor_id) if aside else {})})

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    # -- refusals -----------------------------------------------------------------------------------------------

    def _later(self, why: str) -> web.Response:
        return json_answer(answers.error(why, self._clock()), status=503, headers={"Retry-After": "1"})

    def _unknown(self, tutor_id: str) -> web.Response:
        return json_answer(answers.error(f"Tutor {tutor_id} not found", self._clock()), status=404)

    def unavailable(self, away: SinkUnavailable) -> web.Response:
        """For handlers that only PostgreSQL can answer. What it says names hosts and users: that is for the log."""
        logger.info("PostgreSQL does not answer: %s", away)
        return self._later("PostgreSQL does not answer")


def attach(app: faust.App, lookups: Lookups, lists: Lists) -> None:
    """Serve the lookups from `app`'s web server, each also under `/api`."""

    def serve(path: str, handle: Callable[..., Awaitable[web.Response]]) -> None:
        async def view(_: Any, request: Any, **parts: str) -> Any:
            try:
                return await handle(request, **parts)
            except SinkUnavailable as away:
                return lookups.unavailable(away)

        for prefix in ("", "/api"):
            app.page(prefix + path, name=f"{handle.__name__}{prefix}")(view)

    serve("/tutors", lists.listing)
    serve("/tutors/metrics", lists.batch)
    serve("/tutors/{tutor_id}/metrics", lookups.metrics)
    serve("/tutors/{tutor_id}/performance", lookups.performance)
    serve("/tutors/{tutor_id}/trends", lookups.trends)
    serve("/tutors/{tutor_id}/sessions", lists.sessions)
    serve("/dashboard/analytics", lists.analytics)
    serve("/dashboard/alerts", lists.alerts)
