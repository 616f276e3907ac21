"""One flawless payload of each kind, as a producer would write it, and the ways to spoil it."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from models.parsing import Accepted, Parser, Rejected

Payload = dict[str, Any]

NOW_US: Final = 1_795_435_200_000_000  # 2026-11-23T12:00:00Z
ABSENT: Final = object()

EXAMPLES: Final[dict[str, Payload]] = {
    "tutor": {
        "tutor_id": "tutor_00001",
        "name": "Ann Lee",
        "email": "ann.lee@example.org",
        "age": 35,
        "location": "Porto",
        "education_level": "PhD",
        "subjects": ["Algebra", "Physics"],
        "subject_type": "STEM",
        "onboarding_date": "2025-04-15T07:05:28.907676",
        "tenure_days": 587,
        "behavioral_archetype": "steady",
        "baseline_sessions_per_week": 15,
        "status": "active",
        "created_at": "2025-04-15T07:05:28.907676",
        "updated_at": "2026-11-23T11:00:00Z",
    },
    "session": {
        "session_id": "7b870d05-9b49-448e-b40c-3481aca6141f",
        "tutor_id": "tutor_00001",
        "student_id": "student_00001",
        "session_number": 2,
        "is_first_session": False,
        "scheduled_start": "2026-11-20T18:00:00",
        "actual_start": "2026-11-20T18:02:00",
        "duration_minutes": 60,
        "subject": "Algebra",
        "session_type": "1-on-1",
        "tutor_initiated_reschedule": False,
        "no_show": False,
        "technical_issues": False,
        "learning_objectives_met": True,
        "late_start_minutes": 0,
        "engagement_score": 0.862,
        "created_at": "2026-11-23T11:00:00.931065",
        "updated_at": "2026-11-23T11:00:00.931066",
    },
    "feedback": {
        "feedback_id": "c97bb546-8252-4538-9adf-5d86d2e2b4ce",
        "session_id": "7b870d05-9b49-448e-b40c-3481aca6141f",
        "student_id": "student_00001",
        "tutor_id": "tutor_00001",
        "overall_rating": 4,
        "is_first_session": False,
        "subject_knowledge_rating": 4,
        "communication_rating": 5,
        "patience_rating": 4,
        "engagement_rating": 4,
        "helpfulness_rating": 3,
        "free_text_feedback": "Very clear.",
        "submitted_at": "2026-11-21T08:01:24.629933",
        "created_at": "2026-11-21T08:01:24.629933",
    },
    "tutor_event": {
        "event_id": "event-1",
        "tutor_id": "tutor_00001",
        "event_type": "message_response",
        "event_timestamp": "2026-11-22T09:00:00+01:00",
        "metadata": {"response_time_minutes": 12.5, "channel": "chat"},
        "created_at": "2026-11-22T08:00:01Z",
    },
}


def payload(kind: str, /, **changes: Any) -> Payload:
    """The flawless payload of `kind` with `changes`; `ABSENT` takes a key away."""
    changed = EXAMPLES[kind] | changes
    return {key: value for key, value in changed.items() if value is not ABSENT}


def parsed(kind: str, /, **changes: Any) -> Accepted | Rejected:
    return Parser().parse(kind, json.dumps(payload(kind, **changes)).encode(), NOW_US)


def accepted(kind: str, /, **changes: Any) -> Accepted:
    fate = parsed(kind, **changes)
    assert isinstance(fate, Accepted), fate
    return fate


def rejected(kind: str, /, **changes: Any) -> Rejected:
    fate = parsed(kind, **changes)
    assert isinstance(fate, Rejected), fate
    return fate


def envelope(data: Any, /, **changes: Any) -> Payload:
    """The platform's Redis envelope around `data`; `ABSENT` takes a key away."""
    whole = {
        "id": "0f8fad5b-d9cb-469f-a165-70867728950e",
        "timestamp": "2026-11-22T14:59:32.302789",
        "channel": "tutormax:sessions",
        "data": data,
        "metadata": {},
        "checksum": hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest(),
    } | changes
    return {key: value for key, value in whole.items() if value is not ABSENT}
