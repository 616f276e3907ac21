"""Which of two versions of one entity wins: the later one, and of two equally late the one with the greater digest.

A version is a pair (version time in µs, digest), compared as pairs are. The digest covers what PostgreSQL stores
(`models.rows`), so two records that would store the same row are the same version, and the tie-break can be repeated
from a stored row. Digests are kept in tables and facts: the bytes are pinned by a test (contract §2.5).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import msgspec

from models.events import Event, Feedback, Session, Tutor, TutorEvent
from models.rows import Row, feedback_row, session_row, tutor_event_row, tutor_row

Version: TypeAlias = tuple[int, bytes]

DIGEST_SIZE: Final = 8

_ROW_OF: Final[dict[type, Callable[[Any], Row]]] = {
    Tutor: tutor_row,
    Session: session_row,
    Feedback: feedback_row,
    TutorEvent: tutor_event_row,
}
_encode: Final = msgspec.msgpack.Encoder().encode


def digest(event: Event) -> bytes:
    """8 bytes over the columns that PostgreSQL stores of an event."""
    return blake2b(_encode(_ROW_OF[type(event)](event)), digest_size=DIGEST_SIZE).digest()
