"""What PostgreSQL stores of each event and metrics record, and the way back from a stored row to an event.

1. A row is a tuple in the order of the platform's columns (contract §5.1); instants are µs since 1970 in UTC, arrays
   are lists, enums are member NAMES (contract §5.2). The database layer converts instants, nothing else.
2. ``x_row(x_of(row)) == row`` for every row written here: the digest of a version (`models.versions`) is the same
   whether it is taken from the event or from what the database gives back.
3. Reading accepts names and values; an unknown text passes both ways as it stands.
4. What the platform does not store (a tutor's age, a session's zone) does not survive the round trip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any, Final, TypeAlias

import orjson

from models.events import Feedback, Session, Tutor, TutorEvent
from models.metrics import MetricsUpdated

Row: TypeAlias = tuple[Any, ...]

TUTOR_COLUMNS: Final = (
    "tutor_id",
    "name",
    "email",
    "onboarding_date",
    "status",
    "subjects",
    "education_level",
    "location",
    "baseline_sessions_per_week",
    "behavioral_archetype",
    "created_at",
    "updated_at",
)
STUDENT_COLUMNS: Final = (
    "student_id",
    "name",
    "age",
    "grade_level",
    "subjects_interested",
    "is_under_13",
    "parent_email",
    "parent_consent_given",
    "parent_consent_date",
    "parent_consent_ip",
    "created_at",
    "updated_at",
)
SESSION_COLUMNS: Final = (
    "session_id",
    "tutor_id",
    "student_id",
    "session_number",
    "scheduled_start",
    "actual_start",
    "duration_minutes",
    "subject",
    "session_type",
    "tutor_initiated_reschedule",
    "no_show",
    "late_start_minutes",
    "engagement_score",
    "learning_objectives_met",
    "technical_issues",
    "created_at",
    "updated_at",
)
FEEDBACK_COLUMNS: Final = (
    "feedback_id",
    "session_id",
    "student_id",
    "tutor_id",
    "overall_rating",
    "is_first_session",
    "subject_knowledge_rating",
    "communication_rating",
    "patience_rating",
    "engagement_rating",
    "helpfulness_rating",
    "would_recommend",
    "improvement_areas",
    "free_text_feedback",
    "submitted_at",
    "created_at",
)
TUTOR_EVENT_COLUMNS: Final = ("event_id", "tutor_id", "event_type", "event_timestamp", "metadata", "created_at")
METRIC_COLUMNS: Final = (
    "metric_id",
    "tutor_id",
    "calculation_date",
    "window",
    "sessions_completed",
    "avg_rating",
    "first_session_success_rate",
    "reschedule_rate",
    "no_show_count",
    "engagement_score",
    "learning_objectives_met_pct",
    "response_time_avg_minutes",
    "performance_tier",
    "created_at",
    "updated_at",
)

# Wire or display value -> member name. Several values may share a name (C5, C6); the first is the one read back.
STATUS_NAMES: Final = {"active": "ACTIVE", "inactive": "INACTIVE", "churned": "CHURNED", "suspended": "INACTIVE"}
ARCHETYPE_NAMES: Final = {
    value: value.upper() for value in ("high_performer", "at_risk", "new_tutor", "steady", "churner")
}
SESSION_TYPE_NAMES: Final = {"1-on-1": "ONE_ON_ONE", "group": "GROUP", "workshop": "GROUP"}
WINDOW_NAMES: Final = {"7day": "SEVEN_DAY", "30day": "THIRTY_DAY", "90day": "NINETY_DAY"}
TIER_NAMES: Final = {
    value: value.upper().replace(" ", "_")
    for value in ("Exemplary", "Strong", "Developing", "Needs Attention", "At Risk")
}


def _values(names: dict[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for value, name in names.items():
        values.setdefault(name, value)
    return values


STATUS_VALUES: Final = _values(STATUS_NAMES)
WINDOW_VALUES: Final = _values(WINDOW_NAMES)
TIER_VALUES: Final = _values(TIER_NAMES)
_ARCHETYPE_VALUES: Final = _values(ARCHETYPE_NAMES)
_SESSION_TYPE_VALUES: Final = _values(SESSION_TYPE_NAMES)


# --- tutors -----------------------------------------------------------------------------------------------------------


def tutor_row(tutor: Tutor) -> Row:
    """`TUTOR_COLUMNS` of a tutor."""
    archetype = tutor.behavioral_archetype
    return (
        tutor.tutor_id,
        tutor.name,
        tutor.email,
        tutor.onboarding_us,
        STATUS_NAMES.get(tutor.status, tutor.status),
        list(tutor.subjects),
        tutor.education_level,
        tutor.location,
        _float(tutor.baseline_sessions_per_week),
        archetype if archetype is None else ARCHETYPE_NAMES.get(archetype, archetype),
        tutor.created_us,
        tutor.updated_us,
    )


def tutor_of(row: Sequence[Any]) -> Tutor:
    """The tutor that a row holds, in wire values."""
    tutor_id, name, email, onboarding, status, subjects, education, location, baseline, archetype, created, updated = (
        row
    )
    return Tutor(
        tutor_id=tutor_id,
        name=name,
        email=email,
        onboarding_us=onboarding,
        status=STATUS_VALUES.get(status, status),
        subjects=tuple(subjects),
        education_level=education,
        location=location,
        baseline_sessions_per_week=baseline,
        behavioral_archetype=_ARCHETYPE_VALUES.get(archetype, archetype),
        created_us=created,
        updated_us=updated,
    )


# --- students ---------------------------------------------------------------------------------------------------------


def student_stub_row(student_id: str, now_us: int) -> Row:
    """`STUDENT_COLUMNS` of a student of whom only the id is known, as the platform's own generator fills them."""
    digits = "".join(character for character in student_id if character in "0123456789")
    name = f"Student {digits or student_id}"
    return (student_id, name, None, None, [], False, None, False, None, None, now_us, now_us)


# --- sessions ---------------------------------------------------------------------------------------------------------


def session_row(session: Session) -> Row:
    """`SESSION_COLUMNS` of a session."""
    return (
        session.session_id,
        session.tutor_id,
        session.student_id,
        session.session_number,
        session.scheduled_start_us,
        session.actual_start_us,
        session.duration_minutes,
        session.subject,
        SESSION_TYPE_NAMES.get(session.session_type, session.session_type),
        session.tutor_initiated_reschedule,
        session.no_show,
        session.late_start_minutes,
        _float(session.engagement_score),
        session.learning_objectives_met,
        session.technical_issues,
        session.created_us,
        session.updated_us,
    )


def session_of(row: Sequence[Any]) -> Session:
    """The session that a row holds, in wire values. Its score stays as stored, whatever its scale."""
    values = list(row)
    values[8] = _SESSION_TYPE_VALUES.get(values[8], values[8])
    return Session(*values)


# --- feedback ---------------------------------------------------------------------------------------------------------


def feedback_row(feedback: Feedback) -> Row:
    """`FEEDBACK_COLUMNS` of a feedback."""
    areas = feedback.improvement_areas
    return (
        feedback.feedback_id,
        feedback.session_id,
        feedback.student_id,
        feedback.tutor_id,
        feedback.overall_rating,
        feedback.is_first_session,
        feedback.subject_knowledge_rating,
        feedback.communication_rating,
        feedback.patience_rating,
        feedback.engagement_rating,
        feedback.helpfulness_rating,
        feedback.would_recommend,
        areas if areas is None else list(areas),
        feedback.free_text_feedback,
        feedback.submitted_us,
        feedback.created_us,
    )


def feedback_of(row: Sequence[Any]) -> Feedback:
    """The feedback that a row holds. The student portal leaves NULL for no text; an event says ""."""
    values = list(row)
    if values[12] is not None:
        values[12] = tuple(values[12])
    values[13] = values[13] or ""
    return Feedback(*values)


# --- tutor events -----------------------------------------------------------------------------------------------------


def tutor_event_row(event: TutorEvent) -> Row:
    """`TUTOR_EVENT_COLUMNS` of a tutor event; `metadata` as JSON text. NOT NULL `created_at` falls back on the event's
    own time."""
    created_us = event.event_us if event.created_us is None else event.created_us
    return (event.event_id, event.tutor_id, event.event_type, event.event_us, event.metadata, created_us)


def tutor_event_of(row: Sequence[Any]) -> TutorEvent:
    """The tutor event that a row holds; `metadata` may come decoded or as JSON text, spelt as PostgreSQL likes."""
    event_id, tutor_id, event_type, event_us, metadata, created_us = row
    if isinstance(metadata, str | bytes):
        metadata = orjson.loads(metadata)
    return TutorEvent(
        event_id=event_id,
        tutor_id=tutor_id,
        event_type=event_type,
        event_us=event_us,
        metadata=metadata_text(metadata),
        created_us=created_us,
        response_time_minutes=response_time_minutes(metadata),
    )


def metadata_text(metadata: Any) -> str | None:
    """The one spelling of a tutor event's metadata: JSON with sorted keys, from the object or from what ``jsonb`` gives.

    ``jsonb`` keeps numbers as decimals: it forgets that 1e16 was a float and that zero had a sign. So does this
    spelling, and a text made from the event equals the text made from the stored row. Raises TypeError for what JSON
    cannot hold or what is nested deeper than 254 levels.
    """
    if metadata is None:
        return None
    try:
        text = orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
        if not _UNSTABLE_NUMBER.search(text):
            return text.decode()
    except orjson.JSONEncodeError:
        pass  # an integer beyond 64 bits, most likely; otherwise the second try says so again
    return orjson.dumps(_stable_numbers(metadata), option=orjson.OPT_SORT_KEYS).decode()


def response_time_minutes(metadata: Any) -> float | None:
    """`response_time_minutes` of a decoded metadata object, where it is a JSON number that a float can hold."""
    value = metadata.get("response_time_minutes") if isinstance(metadata, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        minutes = float(value)
    except OverflowError:
        return None
    return minutes if isfinite(minutes) else None


# An exponent or a negative zero, perhaps: within a text it is harmless to think so.
_UNSTABLE_NUMBER: Final = re.compile(rb"\d[eE]|-0\.0")


def _stable_numbers(value: Any) -> Any:
    """`value` with whole numbers beyond 1e16 as int if 64 bits hold them, else as float, and zero without a sign."""
    if isinstance(value, dict):
        return {key: _stable_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_stable_numbers(item) for item in value]
    if isinstance(value, float):
        if value == 0:
            return 0.0
        return int(value) if abs(value) >= 1e16 and _INT_MIN <= value < _INT_END else value
    if isinstance(value, int) and not _INT_MIN <= value < _INT_END:
        return float(value) if abs(value) < _FLOAT_END else value
    return value


_INT_MIN, _INT_END = -(2**63), 2**64  # what orjson writes as integers
_FLOAT_END: Final = 2**1024


# --- metrics ----------------------------------------------------------------------------------------------------------


def metric_id(tutor_id: str, window: str) -> str:
    """Key of the one current row of a tutor and window: ``tms_``, 32 hex digits of the tutor id's blake2b, ``_``, the
    window; at most 42 characters whatever the tutor id. Stored: changing it orphans every row written before."""
    return f"tms_{blake2b(tutor_id.encode(), digest_size=16).hexdigest()}_{window}"


def metric_rows(update: MetricsUpdated) -> list[Row]:
    """`METRIC_COLUMNS` of a record's windows, one row each. `created_at` is meant for a first insert only."""
    as_of = update.as_of_us
    return [
        (
            metric_id(update.tutor_id, window.window),
            update.tutor_id,
            as_of,
            WINDOW_NAMES[window.window],
            window.sessions_completed,
            window.avg_rating,
            window.first_session_success_rate,
            window.reschedule_rate,
            window.no_show_count,
            window.engagement_score,
            window.learning_objectives_met_pct,
            window.response_time_avg_minutes,
            TIER_NAMES[window.performance_tier],
            as_of,
            as_of,
        )
        for window in update.windows.values()
    ]


def _float(value: float | None) -> float | None:
    # The column is a float8: a whole number given as int comes back as a float.
    return value if value is None else float(value)
