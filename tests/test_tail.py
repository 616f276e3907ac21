"""What `topics tail` makes of the records of every topic."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from models import facts, homes, metrics, wire
from models.events import Enriched, Origin, Validated
from models.facts import Barrier
from models.parsing import Accepted, Parser
from models.versions import digest
from models.windows import TutorFacts
from models.wire import LateDelay
from tests.samples import NOW_US, bare, session_payload
from tutormax_streams import tail
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES
from tutormax_streams.settings import Settings
from tutormax_streams.tail import Entry
from tutormax_streams.topics import Topics

ORIGIN = Origin("sessions", 3, 120, NOW_US // 1000)


def record(value: bytes | None, key: bytes | None = None, headers: Any = ()) -> Any:
    return SimpleNamespace(
        topic="-", partition=1, offset=7, timestamp=NOW_US // 1000, key=key, value=value, headers=headers
    )


def entries(topic: str, *arguments: Any) -> list[Entry]:
    return list(tail.entries(topic, record(*arguments)))


def validated() -> Validated:
    fate = Parser().parse("session", bare(session_payload("s1", "t1", NOW_US, NOW_US)), NOW_US)
    assert isinstance(fate, Accepted)
    return Validated(fate.event, digest(fate.event), ORIGIN, ("duration_unusual",))


def fact() -> facts.SessionFact:
    home = homes.home_of(validated())
    (found,) = homes.facts(validated().event.home_id, home, 1)
    assert isinstance(found, facts.SessionFact)
    return found


def test_every_entry_can_be_said_in_json_and_in_a_line():
    event = validated()
    update = metrics.metrics_updated(
        "t1", TutorFacts("t1", [fact()]).windows(NOW_US, "normalized"), as_of_us=NOW_US, epoch=1, position=5,
        tutor_name="Ada", tutor_status="active", oldest_event_time_ms=None, events=1,
    )  # fmt: skip
    writer = bytes(WRITER_BYTES)
    seen = [
        *entries("sessions", bare(session_payload("s1", "t1", NOW_US, NOW_US))),
        *entries("validated", wire.pack_validated([event, event])),
        *entries("validated", wire.pack_history_end(3)),
        *entries("enriched", wire.pack_enriched([Enriched(event.event, event.digest, ORIGIN, {"is_late": True})],
                                                [LateDelay("s1", NOW_US, 2.5)])),
        *entries("facts", wire.pack_facts([fact(), Barrier(1, 2)])),
        *entries("metrics", metrics.encode(update)),
        *entries("persisted", b'{"type":"record.persisted","id":"s1"}'),
        *entries("dead-letter", b"\xff", b"key", [("reason", b"not_json")]),
        *entries("control", b'{"number":1}', b"tutormax"),
        *entries("entities", homes.encode(homes.home_of(event)), b"ss1" + writer),
        *entries("entities", None, b"ss1" + writer),
        *entries("tutor_windows", facts.encode(facts.stored(fact())[1]), facts.stored(fact())[0] + writer),
        *entries("tutor_windows", b"1", EPOCH_KEY + writer),
    ]  # fmt: skip
    assert [entry.kind for entry in seen] == [
        "session", "session", "session", "history-end", "session", "delay", "session", "barrier", "metrics.updated",
        "record.persisted", "letter", "json", "SessionHome", "tombstone", "SessionParts", "epoch",
    ]  # fmt: skip
    for entry in seen:
        json.dumps(entry.as_json())
        time, place, kind, fields = tail.line(entry)
        assert time == "12:00:00.123"
        assert place == f"{entry.topic}/1/7"
        assert kind
        assert fields
        assert "\n" not in fields


def test_instants_are_texts_and_the_origin_is_a_place():
    (entry,) = entries("validated", wire.pack_validated([validated()]))
    assert entry.fields["updated"].endswith("Z")
    assert entry.fields["origin"] == "sessions/3/120"
    assert entry.fields["warnings"] == ["duration_unusual"]


def test_a_header_without_a_value_is_told_as_such():
    (entry,) = entries("dead-letter", b"{", b"k", [("reason", b"not_json"), ("source-trace", None)])
    assert entry.fields["source-trace"] is None
    assert "reason=not_json" in tail.line(entry)[3]


@pytest.mark.parametrize("topic", tail.READABLE)
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"{", b"\x02future", b"\x01\xc1", b"[1]", b"null", None])
def test_nothing_raises_and_nothing_is_left_out(topic: str, value: bytes | None):
    (entry,) = entries(topic, value, b"k" * 12)
    json.dumps(entry.as_json())
    assert tail.line(entry)


def test_absurd_instants_do_not_stop_it():
    fate = validated()
    absurd = msgspec.structs.replace(fate, event=msgspec.structs.replace(fate.event, updated_us=1 << 62))
    (entry,) = entries("validated", wire.pack_validated([absurd]))
    assert entry.fields["updated"] == f"{1 << 62} µs"


def test_a_tutor_is_found_wherever_it_is_named():
    (event,) = entries("validated", wire.pack_validated([validated()]))
    (stored,) = entries("tutor_windows", facts.encode(facts.stored(fact())[1]), facts.stored(fact())[0] + b"writer")
    assert event.names("t1")
    assert stored.names("t1")
    assert not event.names("t")
    assert not stored.names("t2")


def test_every_topic_of_a_deployment_can_be_tailed():
    names = Topics.of(Settings())
    assert {tail.full_name(names, name) for name in tail.READABLE} == {plan.name for plan in names.plans(4)}
