"""What a request asks for: nothing in it, however odd, is more than a 400."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tutormax_streams.web.asking import cursor, number_of, read_cursor, whole_of

DEEP = "[" * 5_000


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize("sort", ["tutor_id", "-tutor_name", "avg_rating", "-avg_rating"])
@pytest.mark.parametrize("key", [4.5, 0, float("inf"), float("-inf"), "Ada Ünlü"])
def test_a_cursor_of_ours_comes_back(sort: str, key: Any):
    named = "tutor_" in sort
    if named is isinstance(key, str):
        assert read_cursor(cursor(sort, key, "t1"), sort) == (key, "t1")


@pytest.mark.parametrize(
    "text",
    [
        "rubbish", "ü", packed(DEEP), packed('{"a": 1, "b": 2, "c": 3}'), packed("5"), packed("[]"),
        packed('["avg_rating", true, "t1"]'),
        packed('["avg_rating", "4", "t1"]'),
        packed('["avg_rating", 4, 1]'),
        packed('["-avg_rating", 4, "t1"]'),
        packed('["avg_rating", ' + "9" * 400 + ', "t1"]'),  # beyond a double
        packed('["avg_rating", NaN, "t1"]'),
        packed(json.dumps(["avg_rating", 4, "t\0"])),
        packed('["avg_rating", 4, "\\ud800"]'),  # half a character, which PostgreSQL cannot be sent
    ],
)  # fmt: skip
def test_any_other_cursor_is_refused(text: str):
    with pytest.raises(web.HTTPBadRequest):
        read_cursor(text, "avg_rating")


def test_half_a_character_in_a_name_is_refused():
    with pytest.raises(web.HTTPBadRequest):
        read_cursor(packed('["tutor_name", "\\udfff", "t1"]'), "tutor_name")


@pytest.mark.parametrize("text", ["1.5", "0", "501", "1e2", "", "x", "1_0", "\u0663", "-1", " 5", "%2B5"])
def test_a_limit_is_a_whole_number(text: str):
    with pytest.raises(web.HTTPBadRequest):
        whole_of(make_mocked_request("GET", f"/tutors?limit={text}"), "limit", 50, 1, 500)
    assert whole_of(make_mocked_request("GET", "/tutors?limit=7"), "limit", 50, 1, 500) == 7
    assert whole_of(make_mocked_request("GET", "/tutors"), "limit", 50, 1, 500) == 50


@pytest.mark.parametrize("text", ["soon", "", "nan", "inf", "-1", "1_0", "1e10", "\u0663"])
def test_an_age_is_a_number(text: str):
    with pytest.raises(web.HTTPBadRequest):
        number_of(make_mocked_request("GET", f"/?max_age={text}"), "max_age", None, 0, 1e9)
    for good in ("0", "1.5", "1e3", "1E+2"):
        request = make_mocked_request("GET", f"/?max_age={good.replace('+', '%2B')}")
        assert number_of(request, "max_age", None, 0, 1e9) == float(good)
