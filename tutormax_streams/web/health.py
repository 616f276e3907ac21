"""/livez, /readyz, /startupz, /metrics and /version of every worker: on its web port, or on a port of their own."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final

import faust
from aiohttp import web
from mode import Service
from prometheus_client import CONTENT_TYPE_LATEST

from tutormax_streams.batches.connections import IDLE_SECONDS
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web.asking import json_answer
from tutormax_streams.web.guard import HEADERS

STOP_SECONDS: Final = 1.0  # nothing here takes longer

Reasons = Callable[[], list[str]]
Handle = Callable[[web.Request], Awaitable[web.Response]]


class Health:
    """Why this worker is not ready, by role, and whether its start is over. A role without reasons is ready."""

    def __init__(self) -> None:
        self._roles: dict[str, list[Reasons]] = {}
        self._starting: dict[str, Reasons] = {}  # of those whose start is not over
        self._unready_since: dict[str, float] = {}

    def watch(self, role: str, reasons: Reasons) -> None:
        self._roles.setdefault(role, []).append(reasons)

    def watch_start(self, role: str, reasons: Reasons) -> None:
        """`reasons` says what the role's start still lacks; once that was nothing, it is never asked again."""
        self._starting[role] = reasons

    def look(self, now: float) -> None:
        """About once a second, so that what is over for a moment only is not missed. `now` in seconds."""
        self.startup()
        for role, found in self.reasons().items():
            if found:
                self._unready_since.setdefault(role, now)
            else:
                self._unready_since.pop(role, None)

    def reasons(self) -> dict[str, list[str]]:
        """By role."""
        return {role: [r for reasons in checks for r in reasons()] for role, checks in self._roles.items()}

    def unready_seconds(self, role: str, now: float) -> float | None:
        """How long a role has not been ready, as far as `look` saw; None if it is."""
        since = self._unready_since.get(role)
        return None if since is None else now - since

    def report(self, role: str | None = None) -> dict[str, Any]:
        """Of all roles, or of one. Raises KeyError for one that this worker does not have."""
        roles = self.reasons()
        if role is not None:
            roles = {role: roles[role]}
        return {
            "ready": not any(roles.values()),
            "roles": {role: {"ready": not found, "reasons": found} for role, found in roles.items()},
        }

    def startup(self) -> dict[str, Any]:
        """What the start of each role still lacks. Over once is over: what happens later is for `report`."""
        roles = {role: reasons() for role, reasons in self._starting.items()}
        self._starting = {role: self._starting[role] for role, found in roles.items() if found}
        roles = {role: roles.get(role, []) for role in self._roles}
        return {
            "started": not self._starting,
            "roles": {role: {"started": not found, "reasons": found} for role, found in roles.items()},
        }


def versions() -> dict[str, str]:
    """Of this program and what it stands on."""
    return {
        "tutormax-streams": version("tutormax-streams"),
        "faust-streaming": version("faust-streaming"),
        "python": platform.python_version(),
    }


def probes(health: Health, telemetry: Telemetry, refresh: Callable[[], None]) -> dict[str, Handle]:
    """The endpoints by path; `refresh` brings gauges up to date before they are rendered."""

    async def livez(request: web.Request) -> web.Response:
        return json_answer({"alive": True})

    async def readyz(request: web.Request) -> web.Response:
        role = request.query.get("role")
        try:
            report = health.report(role)
        except KeyError:
            why = f"this worker has no role {role!r}"
            return json_answer({"ready": False, "roles": {str(role): {"ready": False, "reasons": [why]}}}, status=404)
        return json_answer(report, status=200 if report["ready"] else 503)

    async def startupz(request: web.Request) -> web.Response:
        report = health.startup()
        return json_answer(report, status=200 if report["started"] else 503)

    async def metrics(request: web.Request) -> web.Response:
        refresh()
        return web.Response(body=telemetry.render(), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    async def version_page(request: web.Request) -> web.Response:
        return json_answer(versions())

    return {
        "/livez": livez,
        "/readyz": readyz,
        "/startupz": startupz,
        "/metrics": metrics,
        "/version": version_page,
    }


def attach(app: faust.App, served: dict[str, Handle]) -> None:
    """Serve the endpoints from `app`'s web server."""

    def serve(path: str, handle: Handle) -> None:
        async def view(_: Any, request: Any) -> Any:
            return await handle(request)

        app.page(path, name=path.strip("/"))(view)

    for path, handle in served.items():
        serve(path, handle)


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


class HealthServer(Service):
    """Serves the endpoints on a port of their own. Started before the apps and stopped after them."""

    def __init__(self, served: dict[str, Handle], host: str, port: int, **options: Any) -> None:
        super().__init__(**options)
        server = web.Application()
        server.add_routes([web.get(path, handle) for path, handle in served.items()])
        server.on_response_prepare.append(_with_headers)
        self._runner = web.AppRunner(
            server, access_log=None, shutdown_timeout=STOP_SECONDS, keepalive_timeout=IDLE_SECONDS
        )
        self._host, self._port = host, port

    async def on_start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()

    async def on_stop(self) -> None:
        await asyncio.wait_for(self._runner.cleanup(), 2 * STOP_SECONDS)
