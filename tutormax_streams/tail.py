"""Records of our topics, readable: what is packed is unpacked, one line or one JSON object for each entry.

Meant for an operator's terminal. It shows what events hold, names and students' words included: it is no log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import orjson
from aiokafka import ConsumerRecord

from models import facts, homes, wire
from models.events import KIND_OF, Enriched, Origin, Validated
from models.facts import Barrier, EventFact, SessionFact, StandingFact
from models.layouts import UnknownVersion
from models.metrics import utc_text
from models.payloads import TOPIC_OF
from models.wire import HistoryEnd
from tables import entities, tutor_windows
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES
from tutormax_streams.topics import RAW, Topics

WIDEST_VALUE: Final = 60
READABLE: Final = (
    *RAW, "validated", "enriched", "facts", "metrics", "persisted", "alerts", "dead-letter", "control",
    entities.NAME, tutor_windows.NAME,
)  # fmt: skip
"""Short names of the topics that can be tailed; the last two are the changelogs of the tables."""

PUBLIC: Final = (*RAW, "metrics", "persisted", "alerts", "dead-letter")


class Entry(msgspec.Struct, frozen=True):
    """One event, fact or other thing out of a record. `fields` is fit for JSON."""

    topic: str  # short name
    partition: int
    offset: int
    time: str
    kind: str
    fields: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return msgspec.structs.asdict(self)

    def names(self, tutor_id: str) -> bool:
        """True if the entry is about this tutor."""
        return _mentions(self.fields, tutor_id)


def full_name(topics: Topics, short_name: str) -> str:
    """The topic behind a name of `READABLE`."""
    if short_name in (entities.NAME, tutor_windows.NAME):
        return topics.changelogs[short_name == tutor_windows.NAME]
    return topics.prefix + short_name


PACKED: Final = ("validated", "enriched", "facts")


def entries(short_name: str, record: ConsumerRecord) -> Iterator[Entry]:
    """What a record holds. Whatever cannot be read is shown as it is; nothing raises."""
    time = utc_text(record.timestamp * 1000)
    unpack = _UNPACK.get(short_name, _json)
    if record.value is None and short_name in PACKED:
        yield Entry(short_name, record.partition, record.offset, time, "mark", {})  # the first record of a partition
        return
    try:
        found = list(unpack(record))
    except (msgspec.DecodeError, UnknownVersion, UnicodeDecodeError) as error:
        found = [("unreadable", {"why": str(error), "bytes": _text(record.value)})]
    for kind, fields in found:
        yield Entry(short_name, record.partition, record.offset, time, kind, fields)


def line(entry: Entry) -> tuple[str, str, str, str]:
    """(time, place, kind, fields) of an entry, to be set side by side."""
    place = f"{entry.topic}/{entry.partition}/{entry.offset}"
    shown = _in_short(entry.fields) if entry.kind == "metrics.updated" else entry.fields
    fields = " ".join(f"{name}={_brief(value)}" for name, value in _flat(shown) if value not in (None, [], ""))
    return entry.time[11:23], place, entry.kind, fields


Found = Iterator[tuple[str, dict[str, Any]]]


def _json(record: ConsumerRecord) -> Found:
    """Raw events, and the public topics."""
    try:
        payload = orjson.loads(record.value) if record.value is not None else None
    except orjson.JSONDecodeError:
        payload = None
    if not isinstance(payload, dict):
        yield "tombstone" if record.value is None else "bytes", {"key": _text(record.key), "value": _text(record.value)}
        return
    kind = payload.pop("type", None)
    yield str(kind or "json"), payload


def _raw(kind: str) -> Callable[[ConsumerRecord], Found]:
    def unpack(record: ConsumerRecord) -> Found:
        for found, fields in _json(record):
            yield kind if found == "json" else found, fields

    return unpack


def _in_short(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Of a metrics record what fits on a line: the tiers instead of all figures."""
    short = {name: metrics.get(name) for name in ("tutor_id", "tutor_name", "as_of", "epoch", "position", "events")}
    return short | {name: window["performance_tier"] for name, window in metrics.get("windows", {}).items()}


def _dead_letter(record: ConsumerRecord) -> Found:
    headers = {name: _text(value) for name, value in record.headers or ()}
    yield "letter", {**headers, "key": _text(record.key), "value": _text(record.value)}


def _validated(record: ConsumerRecord) -> Found:
    unpacked = wire.unpack_validated(record.value or b"")
    if isinstance(unpacked, HistoryEnd):
        yield "history-end", _fields(unpacked)
        return
    for validated in unpacked.events:
        yield KIND_OF[type(validated.event)], _of_event(validated)


def _enriched(record: ConsumerRecord) -> Found:
    unpacked = wire.unpack_enriched(record.value or b"")
    for enriched in unpacked.events:
        yield KIND_OF[type(enriched.event)], {**_of_event(enriched), "derived": enriched.derived}
    for delay in unpacked.delays:
        yield "delay", _fields(delay)


def _facts(record: ConsumerRecord) -> Found:
    for fact in wire.unpack_facts(record.value or b""):
        yield _FACT_KINDS[type(fact)], _fields(fact)


_FACT_KINDS: Final = {SessionFact: "session", EventFact: "event", StandingFact: "standing", Barrier: "barrier"}


def _changelog(decode: Callable[[bytes], Any]) -> Callable[[ConsumerRecord], Found]:
    def unpack(record: ConsumerRecord) -> Found:
        packed_key = record.key or b""
        key, writer = packed_key[:-WRITER_BYTES], packed_key[-WRITER_BYTES:]
        about = {"key": _text(key), "writer": writer.hex()}
        if record.value is None:
            yield "tombstone", about
        elif key == EPOCH_KEY:
            yield "epoch", {**about, "epoch": _text(record.value)}
        else:
            value = decode(record.value)
            yield type(value).__name__, {**about, **_fields(value)}

    return unpack


_UNPACK: Final[dict[str, Callable[[ConsumerRecord], Found]]] = {
    **{topic: _raw(kind) for kind, topic in TOPIC_OF.items()},
    "validated": _validated,
    "enriched": _enriched,
    "facts": _facts,
    "dead-letter": _dead_letter,
    entities.NAME: _changelog(homes.decode),
    tutor_windows.NAME: _changelog(facts.decode),
}


def _of_event(carrier: Validated | Enriched) -> dict[str, Any]:
    found = {**_fields(carrier.event), "origin": _origin(carrier.origin)}
    if carrier.warnings:
        found["warnings"] = list(carrier.warnings)
    return found


def _origin(origin: Origin) -> str:
    return f"{origin.topic}/{origin.partition}/{origin.offset}"


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields by name, instants as text without their suffix."""
    found: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if name.endswith("_us") and isinstance(value, int):
            found[name.removesuffix("_us")] = _instant(value)
        elif name == "time_ms":
            found["time"] = _instant(value * 1000)
        else:
            found[name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _fields(value)
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _instant(instant_us: int) -> str:
    try:
        return utc_text(instant_us)
    except OverflowError:  # absurd, but it is what the record says
        return f"{instant_us} µs"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _mentions(value: Any, tutor_id: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(item, tutor_id) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, tutor_id) for item in value)
    return isinstance(value, str) and (value == tutor_id or value.split("\0")[0] == tutor_id)


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _brief(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "[" + ",".join(map(_brief, value)) + "]"
    text = str(value)
    if not text.isprintable() or " " in text:
        text = repr(text)
    return text if len(text) <= WIDEST_VALUE else text[: WIDEST_VALUE - 1] + "…"
