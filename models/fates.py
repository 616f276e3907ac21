"""What becomes of a raw record: accepted, perhaps with warnings, or rejected for a reason that a person understands."""

from __future__ import annotations

from typing import Final

import msgspec

from models.events import Event

REASONS: Final[dict[str, str]] = {
    "empty": "the record has a value, but there is nothing in it",
    "not_json": "the value is not JSON as RFC 8259 and UTF-8 define it",
    "too_large": "the value is larger, uncompressed, than a record of the internal topics can be",
    "too_deep": "the value is nested deeper than any event needs",
    "not_an_object": "the value is JSON, but not an object",
    "envelope": "the value is an envelope that lacks something or is damaged",
    "checksum": "the envelope's checksum is not that of its data",
    "wrong_kind": "the event belongs on another topic",
    "invalid": "a field breaks a rule",
    "nul": "a stored text holds a NUL character, which PostgreSQL cannot hold",
    "error": "validation itself raised: a bug of ours, please report it",
}
"""Every code that `Rejected.reason` can hold, and what it means."""

LATER_REASONS: Final[dict[str, str]] = {
    "enrichment": "enrichment raised: a bug of ours, please report it",
    "too_many_tutors": "its session or tutor event was named with too many different tutors before",
    "merge": "merging what an event says about a tutor raised: a bug of ours, please report it; a newer version of the event brings what is missing, or `rebuild`",
    "internal": "a record of an internal topic cannot be read: somebody else wrote to it",
    "duplicate": "PostgreSQL holds the same unique value under another id, such as a tutor's e-mail address",
    "refused_by_database": "PostgreSQL will never take the row; the detail names column or constraint",
    "unstorable": "a value cannot be sent to PostgreSQL",
}
"""Codes of dead letters that events become after validation, and what they mean."""


class Rejected(msgspec.Struct, frozen=True):
    """A dead letter: go on with the next record, the producer has to mend this one."""

    reason: str
    """A key of `REASONS`."""
    detail: str
    """A sentence that names the fields at fault; never what a producer wrote into them."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An event to be processed."""

    event: Event
    warnings: tuple[str, ...] = ()
    """Keys of `models.rules.WARNINGS`: what is odd about the event, though it counts."""
