"""What every request passes: who asks, how often, and what every answer carries.

Open to everyone are health, metrics and the page's shell, which holds no figures. Everything else needs a token of the
platform: `Authorization: Bearer`, or the cookie that `POST /session` gives a browser in exchange for one. A worker
that forwards a request vouches for who asked it instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tutormax_streams.web.access import Access, Closed, Refused, User, bearer
from tutormax_streams.web.answers import error
from tutormax_streams.web.cors import Cors

logger = logging.getLogger(__name__)

COOKIE: Final = "tutormax_token"
VOUCH: Final = "X-Tutormax-Vouch"
OPEN: Final = frozenset(
    {
        *("/livez", "/readyz", "/startupz", "/metrics", "/version", "/dashboard", "/operations", "/session"),
        *("/docs", "/openapi.json", "/asyncapi.json"),
    }
)
OPEN_BELOW: Final = ("/static/",)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
USER: Final = web.RequestKey("user", User)
MOST_SUBJECTS: Final = 100_000
CLOSED_SECONDS: Final = "5"  # after them a closed door is worth another knock
ENDLESS: Final = frozenset({"/events", "/ws/dashboard"})  # they bound each write and their own length
MOST_REQUEST_BYTES: Final = 64 << 10
MOST_SECONDS: Final = 30.0  # for one request; what a handler asks of others has shorter deadlines of its own

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Limiter:
    """A bucket of `per_minute` requests for each subject, refilled steadily; 0 means no limit."""

    def __init__(self, per_minute: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._monotonic = monotonic
        self._left: dict[int, tuple[float, float]] = {}  # subject -> when, how many then

    def wait_seconds(self, subject: int) -> float:
        """0 if the subject may go on, which is counted; else how long until it may."""
        if not self._most:
            return 0.0
        now = self._monotonic()
        at, left = self._left.get(subject, (now, self._most))
        left = min(self._most, left + (now - at) * self._most / 60)
        if left < 1:
            return (1 - left) * 60 / self._most
        if len(self._left) >= MOST_SUBJECTS:
            self._left.clear()
        self._left[subject] = (now, left - 1)
        return 0.0


def guard(
    access: Access, limiter: Limiter, clock: Callable[[], int], cors: Cors, most_seconds: float = MOST_SECONDS
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware. `clock` gives microseconds since 1970; a request that takes longer than `most_seconds` gets 503."""

    def refuse(status: int, detail: str, **headers: str) -> web.Response:
        return web.json_response(error(detail, clock()), status=status, headers=headers)

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (request.content_length or 0) > MOST_REQUEST_BYTES:
            raise web.HTTPRequestEntityTooLarge(MOST_REQUEST_BYTES, request.content_length or 0)
        if (preflight := cors.preflight(request)) is not None:
            return preflight
        if request.path in OPEN or request.path.startswith(OPEN_BELOW):
            return await handler(request)
        if (vouched := access.vouched(request.headers.get(VOUCH))) is not None:
            request[USER] = vouched  # and counted where it was let in
            return await handler(request)
        try:
            user = await access.user(bearer(request.headers.get("Authorization")) or request.cookies.get(COOKIE))
        except Refused as refused:
            return refuse(refused.status, str(refused), **{"WWW-Authenticate": "Bearer"})
        except Closed as closed:
            return refuse(503, f"lookups are closed: {closed}", **{"Retry-After": CLOSED_SECONDS})
        if wait := limiter.wait_seconds(user.user_id):
            return refuse(429, "Too many requests", **{"Retry-After": str(int(wait) + 1)})
        request[USER] = user
        return await handler(request)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        deadline = asyncio.timeout(None if request.path in ENDLESS else most_seconds)
        try:
            async with deadline:
                response = await answer(request, handler)
        except web.HTTPException as raised:
            if raised.status < 400:
                raise
            response = refuse(raised.status, raised.reason)
            if "Allow" in raised.headers:
                response.headers["Allow"] = raised.headers["Allow"]
        except Exception:
            if deadline.expired():
                logger.warning("a request to %s was given up after %s s", request.path, most_seconds)
                response = refuse(503, "this took too long", **{"Retry-After": CLOSED_SECONDS})
                response.force_close()  # the rest of a body may still be on its way
            else:
                logger.exception("a request to %s failed", request.path)
                response = refuse(500, "Internal server error")
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    return middleware


def is_encrypted(request: web.Request) -> bool:
    """Whether the client speaks TLS, with us or with a proxy before us. A client that lies harms itself alone."""
    return request.scheme == "https" or request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"


def staff_only(request: web.Request) -> None:
    """Raises 403 for everybody else."""
    if not request[USER].is_staff:
        raise web.HTTPForbidden


def only_allowed(request: web.Request, *tutor_ids: str) -> None:
    """Raises 403 for who may not read all of these tutors."""
    if not all(request[USER].may_read(tutor_id) for tutor_id in tutor_ids):
        raise web.HTTPForbidden
