"""Payloads as producers write them, and the spellings they come in: the bricks of `histories` and `corpus`.

Every payload built here is valid at `NOW_US`; `changes` replace or add keys.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from tests.oracle import Payload, instant_us

TOPICS = ("tutors", "sessions", "feedback", "tutor-events")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NOW_US = instant_us("2025-11-30T12:00:00.123456Z")
"""The tests' default now."""


# --- Spellings -------------------------------------------------------------------------------------------------------


def spelled(moment_us: int, style: int = 0) -> str:
    """One instant in one of six spellings that mean the same where naive times are UTC."""
    if style % 6 == 1:
        moment = (EPOCH + timedelta(microseconds=moment_us)).astimezone(timezone(timedelta(hours=5, minutes=30)))
        return moment.isoformat()
    moment = (EPOCH + timedelta(microseconds=moment_us)).replace(tzinfo=None)
    if style % 6 == 2:
        return moment.isoformat()
    if style % 6 == 3:
        return moment.isoformat(sep=" ")
    return moment.isoformat() + ("Z", "", "", "", "+00:00", "Z")[style % 6]


def bare(payload: Payload) -> bytes:
    return json.dumps(payload).encode()


def enveloped(payload: Payload, rng: random.Random, checksum: str | None = None) -> bytes:
    """The Redis envelope of contract §1.2."""
    canonical = json.dumps(payload, sort_keys=True).encode()
    return json.dumps(
        {
            "id": f"{rng.getrandbits(128):032x}",
            "timestamp": "2025-11-22T14:59:32.302789",
            "channel": "tutormax:any",
            "data": payload,
            "metadata": {},
            "checksum": checksum or hashlib.sha256(canonical).hexdigest(),
        }
    ).encode()


# What a tutor event may say of a response; only the numbers count (contract §4.2).
ODD_METADATA: tuple[Any, ...] = (
    None,
    {},
    {"response_time_minutes": 7},
    {"response_time_minutes": 0.1},
    {"response_time_minutes": 1e6},
    {"response_time_minutes": -3.25},
    {"response_time_minutes": True},
    {"response_time_minutes": "9"},
    {"response_time_minutes": None},
    {"response_time_minutes": [4]},
    {"other": {"response_time_minutes": 4}},
)


# --- Payloads with everything a producer writes ----------------------------------------------------------------------


def tutor_payload(tutor_id: str, updated_us: int, style: int = 0, /, **changes: Any) -> Payload:
    return {
        "tutor_id": tutor_id,
        "name": f"Tutor {tutor_id}",
        "email": f"{tutor_id}@example.org",  # unique in the platform: never two tutors with one address
        "age": 40,
        "location": "Lisbon",
        "education_level": "PhD",
        "subjects": ["Algebra", "Physics"],
        "subject_type": "STEM",
        "onboarding_date": "2024-01-02T03:04:05",
        "tenure_days": 400,
        "behavioral_archetype": "steady",
        "baseline_sessions_per_week": 12,
        "status": "active",
        "created_at": "2024-01-02T03:04:05Z",
        "updated_at": spelled(updated_us, style),
    } | changes


def session_payload(
    session_id: str, tutor_id: str, start_us: int, updated_us: int, style: int = 0, /, **changes: Any
) -> Payload:
    payload = {
        "session_id": session_id,
        "tutor_id": tutor_id,
        "student_id": "student_00001",
        "session_number": 2,
        "is_first_session": False,
        "scheduled_start": spelled(start_us, style),
        "actual_start": spelled(start_us, style),
        "duration_minutes": 60,
        "subject": "Algebra",
        "session_type": "1-on-1",
        "tutor_initiated_reschedule": False,
        "no_show": False,
        "late_start_minutes": 0,
        "engagement_score": 0.8,
        "learning_objectives_met": True,
        "technical_issues": False,
        "created_at": spelled(updated_us, style + 1),
        "updated_at": spelled(updated_us, style),
    } | changes
    if payload["no_show"]:
        payload["actual_start"] = None
    payload["is_first_session"] = payload["session_number"] == 1
    return payload


def feedback_payload(
    feedback_id: str, session_id: str, tutor_id: str, rating: int, submitted_us: int, style: int = 0, /, **changes: Any
) -> Payload:
    return {
        "feedback_id": feedback_id,
        "session_id": session_id,
        "student_id": "student_00001",
        "tutor_id": tutor_id,
        "overall_rating": rating,
        "is_first_session": False,
        "subject_knowledge_rating": rating,
        "communication_rating": rating,
        "patience_rating": rating,
        "engagement_rating": rating,
        "helpfulness_rating": rating,
        "free_text_feedback": "",
        "submitted_at": spelled(submitted_us, style),
        "created_at": spelled(min(submitted_us, NOW_US), style),
    } | changes


def tutor_event_payload(
    event_id: str, tutor_id: str, event_type: str, event_us: int, style: int = 0, /, **changes: Any
) -> Payload:
    return {
        "event_id": event_id,
        "tutor_id": tutor_id,
        "event_type": event_type,
        "event_timestamp": spelled(event_us, style),
    } | changes


def by_topic(arrivals: Iterable[tuple[str, Payload]]) -> dict[str, list[Payload]]:
    """What the oracle takes, from (topic, payload) in any order."""
    payloads: dict[str, list[Payload]] = {topic: [] for topic in TOPICS}
    for topic, payload in arrivals:
        payloads[topic].append(payload)
    return payloads
