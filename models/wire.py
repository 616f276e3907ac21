"""The packed form of the internal topics: one Kafka record carries many entries, after one byte of version.

A record of a later version than ours raises `UnknownVersion`: two versions side by side need a release that reads both.
What begins otherwise is nothing that we wrote, and raises `msgspec.DecodeError` like anything else that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from models.events import Enriched, Validated
from models.facts import Barrier, EventFact, SessionFact, StandingFact
from models.layouts import UnknownVersion

VERSION = b"\x01"
LAST_VERSION = b"\x1f"  # of any release; JSON and other text begin with greater bytes
PACK_BYTES = 256 * 1024  # well below the brokers' limit of 1 MiB
LIKELY_TO_FIT = 500  # entries: more are cut before they are packed, since what turns out too large is packed again

_Entry = TypeVar("_Entry")
_encoder = msgspec.msgpack.Encoder()


class HistoryEnd(msgspec.Struct, array_like=True, tag="end", gc=False, frozen=True):
    """Last entry that `rebuild` writes to a partition of `validated`: the database's history of `epoch` ends here."""

    epoch: int


class LateDelay(msgspec.Struct, array_like=True, tag="delay", gc=False, frozen=True):
    """A feedback's delay, known only now that its session has been seen (or has moved)."""

    session_id: str
    submitted_us: int
    feedback_delay_hours: float


class Events(msgspec.Struct, array_like=True, tag="v", gc=False):
    """Entries of topic `validated`."""

    events: list[Validated]


Facts = SessionFact | EventFact | StandingFact | Barrier
_validated: msgspec.msgpack.Decoder[Events | HistoryEnd] = msgspec.msgpack.Decoder(Events | HistoryEnd)
_facts = msgspec.msgpack.Decoder(list[Facts])


class EnrichedEntries(msgspec.Struct, array_like=True, tag="n", gc=False):
    """Entries of topic `enriched`."""

    events: list[Enriched]
    delays: list[LateDelay] = []


_enriched = msgspec.msgpack.Decoder(EnrichedEntries)


def _body(packed: bytes) -> memoryview:
    version = packed[:1]
    if version != VERSION:
        if VERSION < version <= LAST_VERSION:
            raise UnknownVersion("a packed record", version[0])
        raise msgspec.DecodeError("it does not begin with a version")
    return memoryview(packed)[1:]


def pack_validated(events: Sequence[Validated]) -> bytes:
    return VERSION + _encoder.encode(Events(list(events)))


def pack_history_end(epoch: int) -> bytes:
    return VERSION + _encoder.encode(HistoryEnd(epoch))


def unpack_validated(packed: bytes) -> Events | HistoryEnd:
    return _validated.decode(_body(packed))


def pack_enriched(events: Sequence[Enriched], delays: Sequence[LateDelay] = ()) -> bytes:
    return VERSION + _encoder.encode(EnrichedEntries(list(events), list(delays)))


def unpack_enriched(packed: bytes) -> EnrichedEntries:
    return _enriched.decode(_body(packed))


def pack_facts(facts: Sequence[Facts]) -> bytes:
    return VERSION + _encoder.encode(facts)


def unpack_facts(packed: bytes) -> list[Facts]:
    return _facts.decode(_body(packed))


def packs(entries: Sequence[_Entry], pack: Callable[[Sequence[_Entry]], bytes]) -> list[bytes]:
    """Packed records of at most `PACK_BYTES`, or of one entry; none for no entries."""
    if len(entries) <= LIKELY_TO_FIT:
        return _packs(entries, pack) if entries else []
    runs = (entries[at : at + LIKELY_TO_FIT] for at in range(0, len(entries), LIKELY_TO_FIT))
    return [packed for run in runs for packed in _packs(run, pack)]


def _packs(entries: Sequence[_Entry], pack: Callable[[Sequence[_Entry]], bytes]) -> list[bytes]:
    packed = pack(entries)
    if len(packed) <= PACK_BYTES or len(entries) == 1:
        return [packed]
    half = len(entries) // 2
    return _packs(entries[:half], pack) + _packs(entries[half:], pack)
