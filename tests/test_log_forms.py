"""What a line of the log looks like, to machines and to people."""

from __future__ import annotations

import json
import logging

import pytest

from tutormax_streams.logs import Lines, Objects


def record(**extra: object) -> logging.LogRecord:
    made = logging.LogRecord("tutormax_streams.x", logging.WARNING, __file__, 1, "held %s of %d", ("back", 7), None)
    made.__dict__.update(extra)
    return made


def with_traceback() -> logging.LogRecord:
    made = record()
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // 0
    made.exc_info = (caught.type, caught.value, caught.tb)
    return made


def test_an_object_has_the_fields_that_were_given():
    said = json.loads(Objects().format(record(topic="tutormax.facts", offset=12, key=b"\x00\xff")))
    assert said.pop("timestamp").endswith("+00:00")
    assert said.pop("key")
    assert said == {
        "event": "held back of 7",
        "level": "warning",
        "logger": "tutormax_streams.x",
        "topic": "tutormax.facts",
        "offset": 12,
    }


def test_an_object_has_the_traceback_on_its_one_line():
    text = Objects().format(with_traceback())
    assert "\n" not in text
    assert "ZeroDivisionError" in json.loads(text)["exception"]
    assert "exception" not in json.loads(Objects().format(record()))


def test_a_line_is_for_people():
    text = Lines().format(record(topic="tutormax.facts"))
    assert text.split()[1:] == [
        "[warning",
        "]",
        *["held", "back", "of", "7", "[tutormax_streams.x]", "topic=tutormax.facts"],
    ]
    assert Lines().format(with_traceback()).splitlines()[-1].startswith("ZeroDivisionError")
