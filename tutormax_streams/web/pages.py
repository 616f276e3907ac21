"""The page at `/dashboard`, its files, and signing in and out of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, Final

import faust
from aiohttp import web

from tutormax_streams.web.access import Access, Closed, Refused, bearer
from tutormax_streams.web.answers import error
from tutormax_streams.web.guard import CLOSED_SECONDS, COOKIE, USER, is_encrypted

STATIC: Final = Path(str(resources.files("tutormax_streams.web").joinpath("static")))
LONGEST_SIGNED_IN_SECONDS: Final = 12 * 3600


def attach(app: faust.App, access: Access, clock: Callable[[], int]) -> None:
    """Serve them from `app`'s web server."""

    @app.page("/dashboard", name="dashboard")
    async def dashboard(_: Any, request: Any) -> Any:
        return web.FileResponse(STATIC / "dashboard.html", headers={"Cache-Control": "no-cache"})

    @app.page("/whoami", name="whoami")
    async def whoami(_: Any, request: Any) -> Any:
        """Who is signed in, and what they may read."""
        user = request[USER]
        return web.json_response(
            {
                "success": True,
                "user_id": user.user_id,
                "full_name": user.full_name,
                "is_staff": user.is_staff,
                "tutor_id": user.tutor_id,
            }
        )

    class Session(faust.web.View):
        """`POST` with a bearer token sets the cookie that browsers need; `DELETE` takes it away."""

        async def post(self, request: Any) -> Any:
            token = bearer(request.headers.get("Authorization"))
            try:
                await access.user(token)
            except Refused as refused:
                headers = {"WWW-Authenticate": "Bearer"}
                return web.json_response(error(str(refused), clock()), status=refused.status, headers=headers)
            except Closed as closed:
                headers = {"Retry-After": CLOSED_SECONDS}
                return web.json_response(error(f"lookups are closed: {closed}", clock()), status=503, headers=headers)
            response = web.Response(status=204)
            response.set_cookie(
                COOKIE,
                token or "",
                max_age=LONGEST_SIGNED_IN_SECONDS,
                httponly=True,
                samesite="Strict",
                secure=is_encrypted(request),
            )
            return response

        async def delete(self, request: Any) -> Any:
            response = web.Response(status=204)
            response.del_cookie(COOKIE)
            return response

    app.page("/session", name="session")(Session)

    app.web.add_static("/static", STATIC)
