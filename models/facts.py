"""What the windows remember of a session, a tutor event and a tutor: components, their merge and their binary form.

1. A fact has components that are decided apart: of a session its *session part* and its *feedback part*; of a tutor
   event and of a tutor's standing one part each.
2. Each part carries its version (time in µs, 8-byte digest). Merging keeps the greater version of each part, so the
   merge is commutative, associative and idempotent, and the order of arrival does not matter.
3. A part names the tutor it belongs to. For the tutor whose fact it is it counts; for any other it stands
   "elsewhere": it counts for nothing, yet its start and its version stay known, so that a rating given to one tutor
   for another's session finds its start and an old version cannot rise again.
4. A fact matters until max(scheduled start, version time) + 121 days: 90 for the longest window and 31 that a start
   may lie ahead.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

DAY_US = 86_400_000_000
RETENTION_US = 121 * DAY_US


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


class EventPart(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A tutor event; `version_us` is its event time."""

    version_us: int
    digest: bytes
    tutor_id: str
    event_type: str
    response_time_minutes: float | None


class StandingPart(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What lookups say of the tutor."""

    version_us: int
    digest: bytes
    tutor_id: str
    name: str
    status: str  # wire value


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
