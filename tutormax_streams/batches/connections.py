"""What Faust's web server leaves to aiohttp's defaults: how long it holds a connection that asks for nothing, and how
much may be asked for at once."""

from __future__ import annotations

from typing import Any

import faust
from aiohttp.web import AppRunner

IDLE_SECONDS = 75.0
LONGEST_LINE_BYTES = 64 << 10  # 500 ids of 50 characters in a batch lookup, each escaped in part


def bound_idle_connections(app: faust.App, seconds: float = IDLE_SECONDS) -> None:
    """Close connections on which no whole request has come for so long: idle ones, and those of clients who spell out a
    request's head byte by byte. aiohttp's default is an hour. And take longer request lines than its 8 KiB. Before the
    web server starts.
    """
    server: Any = app.web
    server._runner = AppRunner(
        server.web_app, access_log=None, keepalive_timeout=seconds, max_line_size=LONGEST_LINE_BYTES
    )
