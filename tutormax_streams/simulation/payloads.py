"""The payloads of contract §2 as producers write them, from a simulated tutor and a random generator."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tutormax_streams.simulation.profiles import SimulatedTutor, student_id

DURATIONS = (30, 30, 45, 45, 45, 45, 60, 60, 60, 60, 60, 60, 60, 60, 60, 60, 90, 90, 90, 120)  # contract §2.2's shares
ON_TIME_MINUTES = (0, 0, 0, 0, 2, 2, 5, 10)
VERY_LATE_MINUTES = 15
WAITED_MINUTES = 15  # until a student who does not come counts as a no-show
NEW_STUDENT = 0.14  # of a tutor's sessions are a student's first
STUDENTS_KEPT = 12
FEEDBACK_COVERAGE = 0.85
PRAISE = ("Very clear and patient.", "Great session, thank you!", "Explained it better than my book.", "Well prepared.")
COMPLAINTS = ("I did not understand much.", "Not well prepared this time.", "We lost a lot of time.")
AREAS = ("late", "unprepared", "unclear", "not_patient", "technical_issues")


class Record(NamedTuple):
    """What goes to Kafka: the raw topic's name without prefix, the key, the payload."""

    topic: str
    key: str
    payload: dict[str, Any]


def encode(record: Record) -> tuple[str, bytes, bytes]:
    """Topic, key and value as bytes."""
    return record.topic, record.key.encode(), orjson.dumps(record.payload)


def text(seconds: int) -> str:
    """A whole second since 1970 as producers write it."""
    day, second = divmod(seconds, 86_400)
    return f"{_date(day)}T{_clock(second)}Z"


@lru_cache(maxsize=1024)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()


@lru_cache(maxsize=86_400)
def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def unique_id(chance: random.Random) -> str:
    """The text of a random UUID (version 4)."""
    digits = f"{chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def tutor_record(tutor: SimulatedTutor, now: int, *, status: str = "active") -> Record:
    """The tutor's profile as of second `now`."""
    onboarding = text(now - tutor.tenure_days * 86_400)
    payload = {
        "tutor_id": tutor.tutor_id,
        "name": tutor.name,
        "email": tutor.email,
        "age": tutor.age,
        "location": tutor.location,
        "education_level": tutor.education_level,
        "subjects": list(tutor.subjects),
        "subject_type": tutor.subject_type,
        "onboarding_date": onboarding,
        "tenure_days": tutor.tenure_days,
        "behavioral_archetype": tutor.archetype,
        "baseline_sessions_per_week": tutor.sessions_per_week,
        "status": status,
        "created_at": onboarding,
        "updated_at": text(now),
    }
    return Record("tutors", tutor.tutor_id, payload)


def session_record(chance: random.Random, tutor: SimulatedTutor, start: int, booked: int) -> Record:
    """A finished session that was planned for second `start` and booked at second `booked`; known when it is over."""
    draw, manner = chance.random, tutor.manner
    student, number = _student(chance, tutor)
    planned = DURATIONS[int(draw() * 20)]
    no_show = draw() < manner.no_show
    if no_show:
        actual_start, late, engagement, objectives_met = None, 0, 0.0, False
    else:
        late = VERY_LATE_MINUTES if draw() < manner.very_late else ON_TIME_MINUTES[int(draw() * 8)]
        actual_start = text(start + late * 60)
        engagement = round(min(max(manner.engagement + 0.16 * (draw() - 0.5), 0.0), 1.0), 3)
        objectives_met = draw() < manner.objectives_met
    session_id = unique_id(chance)
    payload = {
        "session_id": session_id,
        "tutor_id": tutor.tutor_id,
        "student_id": student,
        "session_number": number,
        "is_first_session": number == 1,
        "scheduled_start": text(start),
        "actual_start": actual_start,
        "duration_minutes": 0 if no_show else planned,
        "subject": tutor.subjects[int(draw() * len(tutor.subjects))],
        "session_type": "1-on-1",
        "tutor_initiated_reschedule": draw() < manner.rescheduled,
        "no_show": no_show,
        "late_start_minutes": late,
        "engagement_score": engagement,
        "learning_objectives_met": objectives_met,
        "technical_issues": draw() < 0.03,
        "created_at": text(booked),
        "updated_at": text(start + (WAITED_MINUTES if no_show else planned) * 60),
    }
    return Record("sessions", session_id, payload)


def ended(start: int, session: dict[str, Any]) -> int:
    """The second at which a session planned for `start` was over, one way or the other."""
    return start + (session["duration_minutes"] or WAITED_MINUTES) * 60


def feedback_record(chance: random.Random, tutor: SimulatedTutor, session: dict[str, Any], submitted: int) -> Record:
    """What the session's student says of `tutor` at second `submitted`."""
    draw = chance.random
    place = draw()
    rating = 5
    for share in tutor.manner.ratings:
        if place < share:
            break
        rating -= 1
    remark = ""
    if rating <= 2:
        remark = COMPLAINTS[int(draw() * len(COMPLAINTS))]
    elif draw() < 0.7:
        remark = PRAISE[int(draw() * len(PRAISE))]
    # Categories lie around the overall rating.
    low, high = max(rating - 1, 1), min(rating + 1, 5)
    payload = {
        "feedback_id": unique_id(chance),
        "session_id": session["session_id"],
        "student_id": session["student_id"],
        "tutor_id": tutor.tutor_id,
        "overall_rating": rating,
        "is_first_session": session["is_first_session"],
        "subject_knowledge_rating": high if draw() < 0.3 else rating,
        "communication_rating": low if draw() < 0.3 else rating,
        "patience_rating": high if draw() < 0.3 else rating,
        "engagement_rating": low if draw() < 0.3 else rating,
        "helpfulness_rating": rating,
        "free_text_feedback": remark,
        "submitted_at": text(submitted),
        "created_at": text(submitted),
    }
    if session["is_first_session"]:
        payload["would_recommend"] = rating >= 4
        payload["improvement_areas"] = [] if rating >= 4 else [AREAS[int(draw() * len(AREAS))]]
    return Record("feedback", session["session_id"], payload)


def tutor_event_record(chance: random.Random, tutor: SimulatedTutor, event_type: str, at: int) -> Record:
    """A `login` or a `message_response` at second `at` (contract §2.4)."""
    metadata = None
    if event_type == "message_response":
        metadata = {"response_time_minutes": round(tutor.manner.response_minutes * (0.3 + 1.4 * chance.random()), 1)}
    event_id = unique_id(chance)
    payload = {
        "event_id": event_id,
        "tutor_id": tutor.tutor_id,
        "event_type": event_type,
        "event_timestamp": text(at),
        "metadata": metadata,
        "created_at": text(at),
    }
    return Record("tutor-events", event_id, payload)


def _student(chance: random.Random, tutor: SimulatedTutor) -> tuple[str, int]:
    """Who comes, and which session of theirs with this tutor it is; remembers it."""
    students = tutor.students
    if not students or chance.random() < NEW_STUDENT:
        student = (student_id(chance), 1)
        students.append(student)
        if len(students) > STUDENTS_KEPT:
            students.pop(0)
        return student
    place = int(chance.random() * len(students))
    name, sessions = students[place]
    students[place] = student = (name, sessions + 1)
    return student
