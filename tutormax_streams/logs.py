"""Structured logs: one JSON object a line on standard error, or readable lines for people."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import structlog

REPEAT_SECONDS = 10.0


class Repeats(logging.Filter):
    """Passes what a client library keeps saying once in `REPEAT_SECONDS`, with how often it was said besides.

    While no broker answers, aiokafka logs some two hundred lines a second.
    """

    def __init__(self, libraries: tuple[str, ...]) -> None:
        super().__init__()
        self._libraries = libraries
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._libraries) or not isinstance(record.msg, str):
            return True
        key, now = (record.name, record.msg), time.monotonic()
        since, unsaid = self._said.get(key, (-REPEAT_SECONDS, 0))
        if now - since < REPEAT_SECONDS:
            self._said[key] = (since, unsaid + 1)
            return False
        self._said[key] = (now, 0)
        if unsaid:
            record.msg = f"{record.msg} ({unsaid} more like this)"
        return True


def configure(level: str, log_format: str) -> None:
    """Route the standard library's logging, and with it every library's, through structlog's renderer."""
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if log_format == "json" else []),
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(Repeats(("aiokafka", "faust")))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("faust", "mode", "aiokafka", "aiohttp.access", "abc"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
