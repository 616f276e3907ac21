"""Pages of other origins that may ask: which, and what browsers are told about it.

Only listed origins are named, each exactly as it asked, and all answers say that they vary with it. A preflight is
answered for every route that exists and tells the methods that it has; it needs no token, for browsers send none.
Cookies are allowed: who lists an origin trusts its pages with the sessions of who uses them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web

MAX_AGE_SECONDS: Final = 600  # how long a browser may remember a preflight; Chromium allows two hours at most
ALLOWED_HEADERS: Final = "Authorization, Content-Type, Last-Event-ID"
EXPOSED_HEADERS: Final = "Retry-After"


class Cors:
    """`origins` as browsers write them; none: no other origin may ask."""

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)

    def allows(self, origin: str | None) -> bool:
        return origin is not None and origin in self._origins

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to the question whether a request may come; None if this is none, or nobody's who may ask."""
        if (
            request.method != hdrs.METH_OPTIONS
            or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers
            or not self.allows(request.headers.get(hdrs.ORIGIN))
        ):
            return None
        route = request.match_info.http_exception  # nothing here has OPTIONS of its own
        if not isinstance(route, web.HTTPMethodNotAllowed):
            return None
        return web.Response(
            status=204,
            headers={
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(route.allowed_methods)),
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ALLOWED_HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_SECONDS),
            },
        )

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """For aiohttp's signal before an answer begins, streams included."""
        if not self._origins:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and origin in self._origins:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED_HEADERS
