"""Structured logs: one JSON object a line on standard error, or readable lines for people."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

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


class Objects(JsonFormatter):
    """One JSON object a line: `timestamp`, `level`, `logger`, `event`, the fields given as `extra`, `exception`."""

    def __init__(self) -> None:
        super().__init__(
            ["message", "levelname", "name"],
            rename_fields={"message": "event", "levelname": "level", "name": "logger", "exc_info": "exception"},
            rename_fields_keep_missing=False,
            timestamp=True,
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data["level"] = log_data["level"].lower()
        return log_data


class Lines(logging.Formatter):
    """The same for people: a readable line, then the traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        when = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        fields = "".join(f" {name}={value}" for name, value in record.__dict__.items() if name not in RESERVED_ATTRS)
        return f"{when} [{record.levelname.lower():<8}] {record.message:<30} [{record.name}]{fields}"


def configure(level: str, log_format: str) -> None:
    """Route the standard library's logging, and with it every library's, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Objects() if log_format == "json" else Lines())
    handler.addFilter(Repeats(("aiokafka", "faust")))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("faust", "mode", "aiokafka", "aiohttp.access", "abc"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
