"""Somebody else writes into a changelog or a topic of ours: what is not ours is passed over and told, work goes on."""

from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest
from faust.types import TP

from models import facts, homes, wire
from models.facts import Barriers, EventPart, SessionFact, StandingPart
from models.layouts import LATER, UnknownVersion
from tables import entities, tutor_windows
from tests.agents.fakes import Broker, Record, app, assign, batch
from tests.agents.rigs import AggregateRig, EnrichRig
from tests.agents.test_enrich import named
from tests.samples import NOW_US
from tutormax_streams import epoch
from tutormax_streams.batches import MergedTable
from tutormax_streams.batches.shelves import SharedMemory
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES, held_of
from tutormax_streams.epoch import Epoch
from tutormax_streams.refused import CONFIGURATION, STATE, Refused

HOME = homes.home_of(named(1))
_, REMEMBERED = facts.stored(SessionFact("t1", "s1", HOME.session, None))  # type: ignore[union-attr]
FACT = facts.encode(REMEMBERED)
WRITER = b"wrtr-A"
OURS = {"entities": (b"ss1" + WRITER, homes.encode(HOME)), "tutor_windows": (b"t1\x00ss1" + WRITER, FACT)}
EVENT = facts.encode(EventPart(NOW_US, b"digest..", "t1", "login", None))

FOREIGN: list[Any] = [
    pytest.param(None, b"no key at all", id="no key"),
    pytest.param(b"", FACT, id="empty key"),
    pytest.param(b"short", FACT, id="short key"),
    pytest.param(b"ss1" + b"wrtr-B", b"", id="empty value"),
    pytest.param(b"ss1" + b"wrtr-B", b"rubbish", id="text"),
    pytest.param(b"t1\x00ss1" + b"wrtr-B", b'{"session_id": "s1"}', id="JSON"),
    pytest.param(b"t1\x00ss1" + b"wrtr-B", FACT[:-1], id="cut off"),
    pytest.param(b"t1\x00ss1" + b"wrtr-B", FACT + b"\x00", id="something behind it"),
    pytest.param(b"\xff\xfe\x00ss1" + b"wrtr-B", FACT, id="key is no text"),
    pytest.param(b"t1\x00ss1" + b"wrtr-B", EVENT, id="another kind than the key says"),
    pytest.param(b"t1\x00ss1" + b"wrtr-B", facts.encode(Barriers(7, (0,))), id="a barrier of no partition"),
    pytest.param(b"\x00\x00offset" + b"wrtr-B", FACT, id="a key that shelves keep for themselves"),
    pytest.param(b"ss1" + b"wrtr-B", LATER, id="half of what a later release would write"),
]


MARK = (EPOCH_KEY + bytes(WRITER_BYTES), b"1")


def table(name: str) -> MergedTable[Any]:
    if name == "entities":
        return entities.declare(app(), 1, None, SharedMemory())
    return tutor_windows.declare(app(), 1, None, SharedMemory()).table


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("key", "value"), FOREIGN)
async def test_a_foreign_record_in_a_changelog_is_passed_over_and_told(
    name: str, key: bytes | None, value: bytes, caplog: pytest.LogCaptureFixture
):
    recovered, broker, told = table(name), Broker(), list[int]()
    recovered.on_foreign = told.append
    changelog = TP(recovered.changelog_name, 0)
    records = [MARK, OURS[name], (key, value), (OURS[name][0][:-6] + b"wrtr-C", OURS[name][1])]
    broker.logs[changelog] = [
        Record(changelog.topic, 0, offset, content, held_key) for offset, (held_key, content) in enumerate(records)
    ]
    with caplog.at_level(logging.ERROR):
        await assign(recovered, broker, [0])
    assert told == [1]
    assert f"{changelog.topic}-0@2" in caplog.text
    assert [held_key for held_key, _ in recovered.scan(0, b"")] == [OURS[name][0][:-6]]
    assert recovered.held.shelf(0).offset == 3


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("entities", homes.home_key(named(1).event), HOME),
        ("entities", b"ee1", homes.EventHome(facts.decode(EVENT), ("t1",))),  # type: ignore[arg-type]
        ("entities", b"tt1", StandingPart(NOW_US, b"digest..", "t1", "A", "active")),
        ("tutor_windows", b"t1\x00ee1", facts.decode(EVENT)),
        ("tutor_windows", b"t\xc3\xa9\x00t", StandingPart(NOW_US, b"digest..", "té", "A", "active")),
        ("tutor_windows", facts.BARRIER_KEY, Barriers(7, (0,))),
    ],
)
def test_everything_that_we_write_is_sound(name: str, key: bytes, value: Any):
    assert table(name).is_sound(key, value)


@pytest.mark.parametrize("name", OURS)
async def test_a_value_of_a_later_release_is_not_passed_over_in_recovery(name: str):
    """Else what it says would be missing from then on, without anybody being told."""
    recovered, broker, told = table(name), Broker(), list[int]()
    recovered.on_foreign = told.append
    changelog, (key, value) = TP(recovered.changelog_name, 0), OURS[name]
    records = [MARK, (key, value), (key[:-6] + b"wrtr-B", LATER + b"\x02" + value)]
    broker.logs[changelog] = [Record(changelog.topic, 0, n, content, held) for n, (held, content) in enumerate(records)]
    with pytest.raises(UnknownVersion, match="written by a later release"):
        await assign(recovered, broker, [0])
    assert told == []
    assert recovered.held.shelf(0).offset is None  # the release that can read it begins where this one did


async def test_a_value_of_a_later_release_on_the_disk_stops_the_worker_and_refuses_no_event():
    rig = EnrichRig([])
    await rig.begin()
    await rig.feed(batch([Record("validated", 0, 0, wire.pack_validated([named(1)]))]))
    shelf = rig.table.held.shelf(0)
    shelf.write([(key, held_of([WRITER], LATER + b"\x02" + payload)) for key, payload in rig.table.scan(0, b"")])
    with pytest.raises(UnknownVersion):
        await rig.feed(batch([Record("validated", 0, 1, wire.pack_validated([named(2)]))]))
    assert not rig.letters.by_place


async def test_many_foreign_records_are_told_in_one_line(caplog: pytest.LogCaptureFixture):
    recovered, broker, told = table("entities"), Broker(), list[int]()
    recovered.on_foreign = told.append
    changelog = TP(recovered.changelog_name, 0)
    broker.logs[changelog] = [Record(changelog.topic, 0, n, b"rubbish", b"k%d" % n) for n in range(500)]
    with caplog.at_level(logging.ERROR):
        await assign(recovered, broker, [0])
    assert told == [500]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("value", [b"{}", b"rubbish", b"\x01rubbish", b"\x00\x00\x00\x00\x01", b""])
async def test_a_foreign_record_in_a_packed_topic_is_refused_alone(value: bytes):
    enrich, aggregate = EnrichRig([]), AggregateRig([])
    for rig, topic, ours in (
        (enrich, "validated", wire.pack_validated([named(1)])),
        (aggregate, "facts", wire.pack_facts([SessionFact("t1", "s1", HOME.session, None)])),  # type: ignore[union-attr]
    ):
        await rig.begin()
        await rig.feed(batch([Record(topic, 0, 0, value), Record(topic, 0, 1, ours)]))
        assert list(rig.letters.by_place) == [(topic, 0, 0)]
        assert len(list(rig.table.scan(0, b""))) == 1


# -- the epoch --------------------------------------------------------------------------------------------------------

NOW = Epoch(3, 24, "empty", "complete", 1)


def test_the_epoch_is_read_as_it_was_written():
    assert epoch.decoded("tutormax.control", msgspec.json.encode(NOW)) == NOW


def test_the_state_of_a_later_release_is_refused_with_a_sentence():
    later = json.dumps(msgspec.to_builtins(NOW) | {"version": epoch.VERSION + 1, "origin": "elsewhere"}).encode()
    with pytest.raises(Refused, match="written by a later release") as refused:
        epoch.decoded("tutormax.control", later)
    assert refused.value.code == CONFIGURATION


@pytest.mark.parametrize("payload", [b"", b"rubbish", b"[]", b'{"version": 1}', b'{"version": "2"}'])
def test_what_is_no_epoch_is_refused_with_the_way_out(payload: bytes):
    with pytest.raises(Refused, match="delete the topic, and run `tutormax-streams rebuild`") as refused:
        epoch.decoded("tutormax.control", payload)
    assert refused.value.code == STATE
