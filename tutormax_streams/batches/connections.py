"""What Faust's web server leaves to aiohttp's defaults: how long it holds a connection that asks for nothing."""

from __future__ import annotations

from typing import Any

import faust
from aiohttp.web import AppRunner

IDLE_SECONDS = 75.0


def bound_idle_connections(app: faust.App, seconds: float = IDLE_SECONDS) -> None:
    """Close connections on which no whole request has come for so long: idle ones, and those of clients who spell out a
    request's head byte by byte. aiohttp's default is an hour. Before the web server starts.
    """
    server: Any = app.web
    server._runner = AppRunner(server.web_app, access_log=None, keepalive_timeout=seconds)
