"""What a request asks for, read from its query and checked, and answers as JSON. What is wrong is said with a 400."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import orjson
from aiohttp import web

from tutormax_streams.web.answers import USUAL_WINDOW, WINDOWS


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
    if not text:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise bad(f"{name} must be a number from {least:g} to {most:g}")
    return value


def cursor(sort: str, key: Any, tutor_id: str) -> str:
    """Where the next page begins; infinities, which stand for nothing, survive Python's JSON."""
    return base64.urlsafe_b64encode(json.dumps([sort, key, tutor_id]).encode()).decode()


def read_cursor(text: str | None, sort: str) -> tuple[Any, str] | None:
    if not text:
        return None
    try:
        of, key, tutor_id = json.loads(base64.urlsafe_b64decode(text))
    except (ValueError, binascii.Error):
        of, key, tutor_id = None, None, None
    named = sort.lstrip("-") in ("tutor_id", "tutor_name")
    wanted: tuple[type, ...] = (str,) if named else (int, float)
    if of != sort or not isinstance(key, wanted) or isinstance(key, bool) or not isinstance(tutor_id, str):
        raise bad("cursor must be the next_cursor of a page with the same sort")
    if "\x00" in tutor_id or "\x00" in str(key):
        raise bad("cursor must be the next_cursor of a page with the same sort")
    return key, tutor_id
