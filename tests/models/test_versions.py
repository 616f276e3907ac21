"""Digests: the same for what is stored alike, pinned because tables and facts keep them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.events import Event, Feedback, Session, Tutor, TutorEvent
from models.rows import (
    feedback_of,
    feedback_row,
    session_of,
    session_row,
    tutor_event_of,
    tutor_event_row,
    tutor_of,
    tutor_row,
)
from models.versions import DIGEST_SIZE, digest

TUTOR = Tutor("t1", "Ann", "a@b.c", 1, "active", ("Math",), "PhD", None, 12, "steady", 2, 3, 40, "STEM", 3600)
SESSION = Session("s1", "t1", "u1", 1, 5, None, 60, "Math", "1-on-1", False, False, 0, 0.5, True, False, 7, 8, True, 9)
FEEDBACK = Feedback("f1", "s1", "u1", "t1", 5, True, 1, 2, 3, 4, None, True, (), "thanks", 9, 10)
EVENT = TutorEvent("e1", "t1", "login", 11, None, None)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (TUTOR, "410f4134839ab6ee"),
        (SESSION, "60ecfd89104efa41"),
        (FEEDBACK, "cf489ecd405618d5"),
        (EVENT, "e96295927162af4f"),
    ],
    ids=["tutor", "session", "feedback", "tutor event"],
)
def test_digests_are_storage(event: Event, expected: str) -> None:
    assert digest(event).hex() == expected
    assert len(digest(event)) == DIGEST_SIZE == 8


@pytest.mark.parametrize(
    ("event", "stored"),
    [
        (TUTOR, tutor_of(tutor_row(TUTOR))),
        (SESSION, session_of(session_row(SESSION))),
        (FEEDBACK, feedback_of(feedback_row(FEEDBACK))),
        (EVENT, tutor_event_of(tutor_event_row(EVENT))),
    ],
    ids=["tutor", "session", "feedback", "tutor event"],
)
def test_a_stored_row_has_the_digest_of_its_event(event: Event, stored: Event) -> None:
    assert digest(stored) == digest(event)


@pytest.mark.parametrize(
    "changes",
    [
        {"age": 41},
        {"subject_type": None},
        {"updated_offset_seconds": 0},
        {"baseline_sessions_per_week": 12.0},
    ],
    ids=str,
)
def test_what_is_not_stored_does_not_matter(changes: dict[str, Any]) -> None:
    assert digest(msgspec.structs.replace(TUTOR, **changes)) == digest(TUTOR)


def test_what_is_stored_alike_is_the_same_version() -> None:
    inactive = msgspec.structs.replace(TUTOR, status="inactive")
    assert digest(msgspec.structs.replace(TUTOR, status="suspended")) == digest(inactive) != digest(TUTOR)


@pytest.mark.parametrize("field", FEEDBACK.__struct_fields__)
def test_every_stored_column_matters(field: str) -> None:
    value = getattr(FEEDBACK, field)
    changed = (
        ("x",) if field == "improvement_areas" else (value or 0) + 1 if not isinstance(value, str) else value + "x"
    )
    if isinstance(value, bool):
        changed = not value
    assert digest(msgspec.structs.replace(FEEDBACK, **{field: changed})) != digest(FEEDBACK)
