"""What the windows remember of a session, a tutor event and a tutor: components, their merge and their binary form.

1. A fact has components that are decided apart: of a session its *session part* and its *feedback part*; of a tutor
   event and of a tutor's standing one part each.
2. Each part carries its version (time in µs, 8-byte digest). Merging keeps the greater version of each part, so the
   merge is commutative, associative and idempotent, and the order of arrival does not matter.
3. A part names the tutor it belongs to. For the tutor whose fact it is it counts; for any other it stands
   "elsewhere": it counts for nothing, yet its start and its version stay known, so that a rating given to one tutor
   for another's session finds its start and an old version cannot rise again.
4. A fact matters until max(scheduled start, version time) + 121 days: 90 for the longest window and 31 that a start
   may lie ahead. After that nothing that comes late can rise again, if no version's start lies further ahead of its own
   `updated_at` than those 31 days (decision 002 says what happens otherwise).
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import msgspec

from models.layouts import unreadable

DAY_US = 86_400_000_000
RETENTION_US = 121 * DAY_US
ORPHAN_RETENTION_US = 365 * DAY_US  # a rating whose session was never seen: its start is unknown, so wait longer


class SessionPart(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The figures of a session that the windows need; belongs to `tutor_id`."""

    version_us: int
    digest: bytes
    tutor_id: str
    start_us: int
    is_first: bool  # session_number = 1
    completed: bool  # not no_show and actual_start known
    no_show: bool
    rescheduled: bool
    on_time: bool  # late_start_minutes <= 10
    engagement: float | None
    objectives_met: bool | None


class FeedbackPart(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A session's rating; belongs to the tutor who was rated, not always the session's."""

    version_us: int
    digest: bytes
    tutor_id: str
    rating: int


class EventPart(msgspec.Struct, array_like=True, tag="e", gc=False, frozen=True):
    """A tutor event; `version_us` is its event time."""

    version_us: int
    digest: bytes
    tutor_id: str
    event_type: str
    response_time_minutes: float | None


class StandingPart(msgspec.Struct, array_like=True, tag="t", gc=False, frozen=True):
    """What lookups say of the tutor."""

    version_us: int
    digest: bytes
    tutor_id: str
    name: str
    status: str  # wire value


class SessionParts(msgspec.Struct, array_like=True, tag="s", gc=False, frozen=True):
    """A session as a tutor's windows remember it."""

    session: SessionPart | None
    feedback: FeedbackPart | None


class Barriers(msgspec.Struct, array_like=True, tag="b", gc=False, frozen=True):
    """Which partitions of `validated` have delivered all of the database's history of `epoch`."""

    epoch: int
    partitions: tuple[int, ...]


class SessionFact(msgspec.Struct, array_like=True, tag="s", gc=False, frozen=True):
    """Both components of a session, addressed to one of the tutors ever named for it."""

    tutor_id: str
    session_id: str
    session: SessionPart | None
    feedback: FeedbackPart | None
    time_ms: int = 0  # Kafka time of the raw record that caused it


class EventFact(msgspec.Struct, array_like=True, tag="e", gc=False, frozen=True):
    """A tutor event, addressed to one of the tutors ever named for it."""

    tutor_id: str
    event_id: str
    event: EventPart
    time_ms: int = 0


class StandingFact(msgspec.Struct, array_like=True, tag="t", gc=False, frozen=True):
    """A tutor exists."""

    tutor_id: str
    standing: StandingPart
    time_ms: int = 0


class Barrier(msgspec.Struct, array_like=True, tag="b", gc=False, frozen=True):
    """All of the database's history of `epoch` that homes on partition `partition` of `validated` has passed."""

    epoch: int
    partition: int


Fact: TypeAlias = SessionFact | EventFact | StandingFact

Remembered: TypeAlias = SessionParts | EventPart | StandingPart | Barriers

BARRIER_KEY = b"\x00barrier"  # no tutor id starts with NUL

_SEPARATOR = b"\x00"  # ids cannot hold it, so no tutor's keys are a prefix of another's
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Remembered] = msgspec.msgpack.Decoder(Remembered)
_Part = TypeVar("_Part", SessionPart, FeedbackPart, EventPart, StandingPart)


def tutor_prefix(tutor_id: str) -> bytes:
    """What the keys of all facts of a tutor begin with."""
    return tutor_id.encode() + _SEPARATOR


def entity_id(key: bytes, prefix: bytes) -> str:
    """The session or tutor event that a key is about; `prefix` is its tutor's."""
    return key[len(prefix) + 1 :].decode()


def stored(fact: Fact) -> tuple[bytes, Remembered]:
    """Under which key (tutor, kind and entity) a fact is stored, and what."""
    if isinstance(fact, SessionFact):
        return f"{fact.tutor_id}\0s{fact.session_id}".encode(), SessionParts(fact.session, fact.feedback)
    if isinstance(fact, EventFact):
        return f"{fact.tutor_id}\0e{fact.event_id}".encode(), fact.event
    return f"{fact.tutor_id}\0t".encode(), fact.standing


def fact_of(key: bytes, value: Remembered) -> Fact:
    """The fact that lies under `key`."""
    tutor, _, entity = key.partition(_SEPARATOR)
    tutor_id = tutor.decode()
    if isinstance(value, SessionParts):
        return SessionFact(tutor_id, entity[1:].decode(), value.session, value.feedback)
    if isinstance(value, EventPart):
        return EventFact(tutor_id, entity[1:].decode(), value)
    if isinstance(value, StandingPart):
        return StandingFact(tutor_id, value)
    raise TypeError(f"no fact lies under {key!r}")


def lies_at(key: bytes, value: Remembered) -> bool:
    """Whether `value` may lie under `key`. Raises `UnicodeDecodeError` for what is no key."""
    return key == (BARRIER_KEY if isinstance(value, Barriers) else stored(fact_of(key, value))[0])


def encode(value: Remembered) -> bytes:
    return _encoder.encode(value)


def decode(payload: bytes) -> Remembered:
    """Raises `UnknownVersion` for what a later release wrote, `msgspec.DecodeError` for what is none of ours."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as exc:
        raise unreadable(payload, exc) from None


def newer(a: _Part | None, b: _Part | None) -> _Part | None:
    """The part with the greater version; equal versions have equal content."""
    if a is None:
        return b
    if b is None or a.version_us > b.version_us:
        return a
    return a if a.version_us == b.version_us and a.digest >= b.digest else b


def newest_us(fact: Fact) -> int:
    """When the newest thing that a fact tells was said, by its own version time."""
    if isinstance(fact, SessionFact):
        session, feedback = fact.session, fact.feedback
        said_us = 0 if session is None else session.version_us
        return said_us if feedback is None or feedback.version_us < said_us else feedback.version_us
    return fact.event.version_us if isinstance(fact, EventFact) else fact.standing.version_us


def merge(a: Remembered, b: Remembered) -> Remembered:
    """Merge what is remembered under one key (law 2). Raises `TypeError` for values of different kinds."""
    if isinstance(a, SessionParts) and isinstance(b, SessionParts):
        return SessionParts(newer(a.session, b.session), newer(a.feedback, b.feedback))
    if isinstance(a, EventPart) and isinstance(b, EventPart):
        return newer(a, b) or a
    if isinstance(a, StandingPart) and isinstance(b, StandingPart):
        return newer(a, b) or a
    if isinstance(a, Barriers) and isinstance(b, Barriers):
        if a.epoch != b.epoch:
            return a if a.epoch > b.epoch else b
        return Barriers(a.epoch, tuple(sorted({*a.partitions, *b.partitions})))
    raise TypeError(f"cannot merge {type(a).__name__} with {type(b).__name__}")


def matters_until(session: SessionPart | None, feedback: FeedbackPart | None) -> int:
    """Instant from which a session's fact can change no window any more (law 4)."""
    if session is None:
        return 0 if feedback is None else feedback.version_us + ORPHAN_RETENTION_US
    latest = max(session.start_us, session.version_us)
    if feedback is not None and feedback.version_us > latest:
        latest = feedback.version_us
    return latest + RETENTION_US


def expired(value: Remembered, now_us: int) -> bool:
    """True when what is remembered can be forgotten."""
    if isinstance(value, SessionParts):
        return matters_until(value.session, value.feedback) <= now_us
    return isinstance(value, EventPart) and value.version_us + RETENTION_US <= now_us
