"""What the home of an entity remembers: which version won, and every tutor ever named.

An entity's home is the partition of its home id (for feedback: its session's), so that all versions of a session and
of its feedback meet in one place, in any order.

1. A home is the merge of all versions seen; the merge is commutative, associative and idempotent.
2. A tutor once named is never forgotten: a session that moved must leave its old tutor, whatever the order.
3. On every event of a home, each tutor ever named is sent the home's components, so that a replay repairs whatever a
   crash left unsent.
4. A home names at most `MOST_TUTORS` tutors. An event that would name one more is refused (`outgrown`): it is none of
   the accepted events that laws 1 and 2 speak of. Which events those are depends on their order, and only in a home
   that was named with more tutors than that. Homes that grew apart (a zombie's and its successor's) are merged whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from models.events import Event, Feedback, Session, Tutor, TutorEvent, Validated
from models.facts import (
    RETENTION_US,
    EventFact,
    EventPart,
    Fact,
    FeedbackPart,
    SessionFact,
    SessionPart,
    StandingFact,
    StandingPart,
    matters_until,
    newer,
)
from models.layouts import unreadable

MOST_TUTORS = 100  # real sessions name one or two; each of them is told of every event, so this bounds what one costs
ON_TIME_MINUTES = 10  # contract §4.2: late_start_minutes <= 10 counts as on time


class SessionHome(msgspec.Struct, array_like=True, tag="s", gc=False, frozen=True):
    """A session, its feedback, and every tutor ever named by either."""

    session: SessionPart | None
    feedback: FeedbackPart | None
    tutors: tuple[str, ...]


class EventHome(msgspec.Struct, array_like=True, tag="e", gc=False, frozen=True):
    """A tutor event and every tutor ever named for it."""

    event: EventPart
    tutors: tuple[str, ...]


Home: TypeAlias = SessionHome | EventHome | StandingPart

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Home] = msgspec.msgpack.Decoder(Home)


def encode(home: Home) -> bytes:
    return _encoder.encode(home)


def decode(payload: bytes) -> Home:
    """Raises `UnknownVersion` for what a later release wrote, `msgspec.DecodeError` for what is none of ours."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as exc:
        raise unreadable(payload, exc) from None


def home_key(event: Event) -> bytes:
    """Key of the event's home in the table of entities."""
    kind = type(event)
    if kind is Session or kind is Feedback:
        return b"s" + event.home_id.encode()
    return (b"e" if kind is TutorEvent else b"t") + event.home_id.encode()


def lies_at(key: bytes, home: Home) -> bool:
    """Whether `home` may lie under `key`. Raises `UnicodeDecodeError` for what is no key."""
    key.decode()
    return key[:1] == (b"s" if isinstance(home, SessionHome) else b"e" if isinstance(home, EventHome) else b"t")


def session_part(session: Session, digest: bytes) -> SessionPart:
    no_show = session.no_show
    return SessionPart(
        session.updated_us,
        digest,
        session.tutor_id,
        session.scheduled_start_us,
        session.session_number == 1,
        not no_show and session.actual_start_us is not None,
        no_show,
        session.tutor_initiated_reschedule,
        session.late_start_minutes <= ON_TIME_MINUTES,
        session.engagement_score,
        session.learning_objectives_met,
    )


def home_of(validated: Validated) -> Home:
    """The home as if this were the only event it ever saw."""
    event, digest = validated.event, validated.digest
    if isinstance(event, Session):
        return SessionHome(session_part(event, digest), None, (event.tutor_id,))
    if isinstance(event, Feedback):
        rating = FeedbackPart(event.submitted_us, digest, event.tutor_id, event.overall_rating)
        return SessionHome(None, rating, (event.tutor_id,))
    if isinstance(event, TutorEvent):
        part = EventPart(event.event_us, digest, event.tutor_id, event.event_type, event.response_time_minutes)
        return EventHome(part, (event.tutor_id,))
    return StandingPart(event.updated_us, digest, event.tutor_id, event.name, event.status)


def merge(a: Home, b: Home) -> Home:
    """Merge two states of one home (law 1). Raises `TypeError` for homes of different kinds."""
    if isinstance(a, SessionHome) and isinstance(b, SessionHome):
        return SessionHome(newer(a.session, b.session), newer(a.feedback, b.feedback), _named(a.tutors, b.tutors))
    if isinstance(a, EventHome) and isinstance(b, EventHome):
        return EventHome(newer(a.event, b.event) or a.event, _named(a.tutors, b.tutors))
    if isinstance(a, StandingPart) and isinstance(b, StandingPart):
        return newer(a, b) or a
    raise TypeError(f"cannot merge {type(a).__name__} with {type(b).__name__}")


def _named(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    return a if a == b else tuple(sorted({*a, *b}))


def outgrown(known: Home | None, merged: Home) -> bool:
    """True when `merged` names a tutor too many, and one that `known` (None: nothing) did not name (law 4)."""
    if isinstance(merged, StandingPart) or len(merged.tutors) <= MOST_TUTORS:
        return False
    return known is None or isinstance(known, StandingPart) or len(known.tutors) < len(merged.tutors)


def is_winner(validated: Validated, home: Home) -> bool:
    """True when the event is the version that its home holds to be the current one."""
    event = validated.event
    part: SessionPart | FeedbackPart | EventPart | StandingPart | None
    if isinstance(home, SessionHome):
        part = home.feedback if isinstance(event, Feedback) else home.session
    else:
        part = home.event if isinstance(home, EventHome) else home
    return part is not None and part.version_us == event.version_us and part.digest == validated.digest


def facts(home_id: str, home: Home, time_ms: int) -> Sequence[Fact]:
    """What each tutor ever named is told (law 3)."""
    if isinstance(home, SessionHome):
        return [SessionFact(tutor_id, home_id, home.session, home.feedback, time_ms) for tutor_id in home.tutors]
    if isinstance(home, EventHome):
        return [EventFact(tutor_id, home_id, home.event, time_ms) for tutor_id in home.tutors]
    return [StandingFact(home.tutor_id, home, time_ms)]


def too_old(event: Event, now_us: int) -> bool:
    """True for an event that can change no window any more: it goes to PostgreSQL only."""
    if isinstance(event, Session):
        return max(event.scheduled_start_us, event.updated_us) + RETENTION_US <= now_us
    if isinstance(event, TutorEvent):
        return event.event_us + RETENTION_US <= now_us
    if isinstance(event, Tutor):
        return False
    return matters_until(None, FeedbackPart(event.submitted_us, b"", event.tutor_id, 0)) <= now_us


def expired(home: Home, now_us: int) -> bool:
    """True when the home can be forgotten."""
    if isinstance(home, SessionHome):
        return matters_until(home.session, home.feedback) <= now_us
    return isinstance(home, EventHome) and home.event.version_us + RETENTION_US <= now_us
