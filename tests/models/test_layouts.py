"""Values of tables, byte for byte: they outlive the release that wrote them. A change here needs rule 2 of CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from models import facts, homes
from models.facts import Barriers, EventPart, FeedbackPart, SessionPart, SessionParts, StandingPart
from models.homes import EventHome, SessionHome
from models.layouts import LATER, UnknownVersion

SESSION = SessionPart(1, b"digest-s", "t1", 2, True, True, False, False, True, 0.5, None)
RATING = FeedbackPart(3, b"digest-f", "t1", 5)
EVENT = EventPart(4, b"digest-e", "t1", "login", None)
STANDING = StandingPart(5, b"digest-t", "t1", "A", "active")

PARTS = (
    b"\xa1s\x9b\x01\xc4\x08digest-s\xa2t1\x02\xc3\xc3\xc2\xc2\xc3\xcb?\xe0\x00\x00\x00\x00\x00\x00\xc0"
    b"\x94\x03\xc4\x08digest-f\xa2t1\x05"
)
OF_EVENT = b"\x96\xa1e\x04\xc4\x08digest-e\xa2t1\xa5login\xc0"
OF_STANDING = b"\x96\xa1t\x05\xc4\x08digest-t\xa2t1\xa1A\xa6active"


@pytest.mark.parametrize(
    ("module", "value", "stored"),
    [
        (facts, SessionParts(SESSION, RATING), b"\x93" + PARTS),
        (facts, EVENT, OF_EVENT),
        (facts, STANDING, OF_STANDING),
        (facts, Barriers(7, (0, 1)), b"\x93\xa1b\x07\x92\x00\x01"),
        (homes, SessionHome(SESSION, RATING, ("t1", "t2")), b"\x94" + PARTS + b"\x92\xa2t1\xa2t2"),
        (homes, EventHome(EVENT, ("t1",)), b"\x93\xa1e" + OF_EVENT + b"\x91\xa2t1"),
        (homes, STANDING, OF_STANDING),
    ],
)
def test_a_tables_value_lies_as_it_always_has(module: Any, value: Any, stored: bytes) -> None:
    assert module.encode(value) == stored
    assert module.decode(stored) == value


@pytest.mark.parametrize("decode", [facts.decode, homes.decode])
def test_what_a_later_release_wrote_is_told_from_what_is_none_of_ours(decode: Callable[[bytes], Any]) -> None:
    with pytest.raises(UnknownVersion, match="version 2, and this release reads 1"):
        decode(LATER + b"\x02" + OF_STANDING)
    for foreign in (b"", LATER, b"rubbish", b"{}", b"\x02" + OF_STANDING):
        with pytest.raises(msgspec.DecodeError):
            decode(foreign)
