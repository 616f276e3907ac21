"""What validate owes besides the contract: fates that are counted, and a breaker that waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from faust.types import TP

from models.breaker import Breaker
from tests.agents.fakes import Record, batch
from tests.agents.rigs import ValidateRig
from tests.oracle import DAY_US
from tests.samples import NOW_US, bare, session_payload
from tests.turns import SOON_SECONDS, turns
from tutormax_streams.batches import Revoked

GOOD = bare(session_payload("s1", "t1", NOW_US - DAY_US, NOW_US - DAY_US))
ODD = bare(session_payload("s2", "t1", NOW_US - DAY_US, NOW_US - DAY_US, duration_minutes=61))
BAD = b"{"


def records(*values: bytes | None) -> list[Record]:
    return [Record("sessions", 0, offset, value, key=b"k%d" % offset) for offset, value in enumerate(values)]


@pytest.fixture
async def rig() -> ValidateRig:
    rig = ValidateRig([])
    await rig.begin()
    return rig


async def test_every_record_has_one_fate_and_all_are_counted(rig: ValidateRig):
    await rig.feed(batch(records(GOOD, None, ODD, BAD, b"", None, GOOD)))
    counted = {key[2]: n for key, n in rig.counts.counted.items() if key[0] == "events" and len(key) == 3}
    assert counted == {"accepted": 2, "accepted_with_warnings": 1, "dead_letter": 2, "tombstone": 2}
    assert rig.letters.by_place == {("sessions", 0, 3): ("not_json", BAD), ("sessions", 0, 4): ("empty", b"")}
    assert rig.counts.counted["warnings", "sessions", "duration_unusual"] == 1


async def test_a_record_that_makes_the_parser_raise_is_kept_and_its_neighbours_go_on(
    rig: ValidateRig, monkeypatch: pytest.MonkeyPatch
):
    parser = rig.steps["sessions"].parser
    real = parser.parse

    def parse(kind: Any, raw: bytes, now_us: int) -> Any:
        if raw == ODD:
            raise ZeroDivisionError
        return real(kind, raw, now_us)

    monkeypatch.setattr(parser, "parse", parse, raising=False)
    await rig.feed(batch(records(ODD, GOOD)))
    assert rig.letters.by_place == {("sessions", 0, 0): ("error", ODD)}
    assert len(rig.broker.records("validated")) == 1


async def test_an_open_breaker_keeps_the_batch_and_leaves_other_topics_alone(rig: ValidateRig):
    object.__setattr__(rig.steps["sessions"], "breaker", Breaker(50, window=10, cooldown_seconds=0.2))
    await rig.feed(batch(records(*[BAD] * 10)))
    assert rig.counts.gauges["breaker_open", "sessions"] == 1
    waiting = asyncio.create_task(rig.feed(batch(records(GOOD))))
    await rig.feed(batch([Record("tutors", 0, 0, BAD)]))
    assert not waiting.done()
    await waiting
    await rig.feed(batch(records(*[GOOD] * 10)))
    assert rig.counts.gauges["breaker_open", "sessions"] == 0
    assert len(rig.letters.by_place) == 11


async def test_tombstones_say_nothing_about_a_topic(rig: ValidateRig):
    """A compacted topic's records without values, before and behind rubbish, neither keep the breaker closed nor close it."""
    breaker = Breaker(50, window=10, cooldown_seconds=0.2)
    object.__setattr__(rig.steps["sessions"], "breaker", breaker)
    await rig.feed(batch(records(*[None] * 30, *[BAD] * 10)))
    assert rig.counts.gauges["breaker_open", "sessions"] == 1
    await rig.feed(batch(records(*[None] * 30)))
    assert breaker.state == "half-open"
    assert rig.counts.gauges["breaker_open", "sessions"] == 1


async def test_a_batch_that_waits_for_the_breaker_goes_when_its_partition_goes(rig: ValidateRig):
    object.__setattr__(rig.steps["sessions"], "breaker", Breaker(50, window=10, cooldown_seconds=3600))
    await rig.feed(batch(records(*[BAD] * 10)))
    kept = batch(records(GOOD))
    waiting = asyncio.create_task(rig.feed(kept))
    await turns()
    kept.revoke()
    with pytest.raises(Revoked):
        await asyncio.wait_for(waiting, SOON_SECONDS)
    assert not rig.broker.logs[TP("validated", 0)]
