"""What a request asks for, read from its query and checked, and answers as JSON. What is wrong is said with a 400."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, Final

import orjson
from aiohttp import web

from tutormax_streams.web.answers import USUAL_WINDOW, WINDOWS

_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WHOLE: Final = re.compile(r"[0-9]{1,9}")


def json_answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json", headers=headers)


def bad(detail: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(reason=detail)


def window_of(request: web.Request) -> str:
    window = request.query.get("window", USUAL_WINDOW)
    if window not in WINDOWS:
        raise bad(f"Invalid window. Must be one of: {', '.join(WINDOWS)}")
    return window


def number_of(request: web.Request, name: str, usual: float | None, least: float, most: float) -> float | None:
    text = request.query.get(name)
    if text is None:
        return usual
    value = float(text) if _NUMBER.fullmatch(text) else float("nan")
    if not least <= value <= most:
        raise bad(f"{name} must be a number from {least:g} to {most:g}")
    return value


def whole_of(request: web.Request, name: str, usual: int, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return usual
    if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
        raise bad(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def cursor(sort: str, key: Any, tutor_id: str) -> str:
    """Where the next page begins; infinities, which stand for nothing, survive Python's JSON."""
    return base64.urlsafe_b64encode(json.dumps([sort, key, tutor_id]).encode()).decode()


def read_cursor(text: str | None, sort: str) -> tuple[Any, str] | None:
    """The sort key and id that `cursor` wrote. Whatever else a client makes up is refused here, not by PostgreSQL."""
    if not text:
        return None
    wrong = bad("cursor must be the next_cursor of a page with the same sort")
    try:
        of, key, tutor_id = json.loads(base64.urlsafe_b64decode(text))
        if of != sort or not isinstance(tutor_id, str):
            raise wrong
        if sort.removeprefix("-") in ("tutor_id", "tutor_name"):
            if not isinstance(key, str):
                raise wrong
        elif isinstance(key, bool) or not isinstance(key, int | float) or math.isnan(key := float(key)):
            raise wrong
        if b"\x00" in f"{key}{tutor_id}".encode():
            raise wrong
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise wrong from None
    return key, tutor_id
