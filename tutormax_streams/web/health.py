"""/livez, /readyz, /metrics and /version on every worker."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import faust
from prometheus_client import CONTENT_TYPE_LATEST

from tutormax_streams.telemetry import Telemetry

Reasons = Callable[[], list[str]]


class Health:
    """Why this worker is not ready, by role. A role without reasons is ready."""

    def __init__(self) -> None:
        self._roles: dict[str, list[Reasons]] = {}

    def watch(self, role: str, reasons: Reasons) -> None:
        self._roles.setdefault(role, []).append(reasons)

    def report(self) -> dict[str, Any]:
        roles = {role: [r for reasons in checks for r in reasons()] for role, checks in self._roles.items()}
        return {
            "ready": not any(roles.values()),
            "roles": {role: {"ready": not found, "reasons": found} for role, found in roles.items()},
        }


def attach(app: faust.App, health: Health, telemetry: Telemetry, refresh: Callable[[], None]) -> None:
    """Serve the endpoints from `app`'s web server; `refresh` brings gauges up to date before they are rendered."""

    @app.page("/livez")
    async def livez(web: Any, request: Any) -> Any:
        return web.json({"alive": True})

    @app.page("/readyz")
    async def readyz(web: Any, request: Any) -> Any:
        report = health.report()
        return web.json(report, status=200 if report["ready"] else 503)

    @app.page("/metrics")
    async def metrics(web: Any, request: Any) -> Any:
        refresh()
        return web.bytes(telemetry.render(), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    @app.page("/version")
    async def version_page(web: Any, request: Any) -> Any:
        return web.json(
            {
                "tutormax-streams": version("tutormax-streams"),
                "faust-streaming": version("faust-streaming"),
                "python": platform.python_version(),
            }
        )
