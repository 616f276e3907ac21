"""What the fields of an event say about each other and about now (contract §2 as resolved in §2.5 and §11).

1. An error makes a dead letter, a warning stays on the event, which counts all the same.
2. "Now" is given, and only ever accepts more as it grows: no rule fails because it is late.
3. How far ahead of now a time may lie depends on what it is:

       stamped by a clock    created_at, updated_at, onboarding_date      5 minutes of clock skew   then an error
       planned or happening  scheduled_start, actual_start (C1)           warned of, up to 31 days  then an error
                             event_timestamp
       of feedback (C2)      submitted_at                                 warned of, up to 32 days  then an error

   `event_timestamp` is an event time like the first two (C16), so it gets their room: a host whose clock runs in
   another zone than it says loses nothing, and what is remembered of it ends in time (31 days).
4. Nothing here raises, whatever the payload holds. The common way through is straight: one comparison for all errors,
   and only an event that fails it is looked at again to say why.
"""

from __future__ import annotations

import re
from datetime import tzinfo
from typing import Final

from models.events import Feedback, Session, Tutor, TutorEvent
from models.fates import Accepted, Rejected
from models.payloads import FeedbackPayload, SessionPayload, TutorEventPayload, TutorPayload
from models.rows import metadata_text, response_time_minutes
from models.times import DAY_US, NEVER_US, instant

WARNINGS: Final[dict[str, str]] = {
    # tutor
    "age_unusual": "age is outside 22-65 (C10)",
    "baseline_unusual": "baseline_sessions_per_week is outside 5-30 (C10)",
    "name_truncated": "name is longer than 200 characters and was cut (C12)",
    "location_truncated": "location is longer than 200 characters and was cut (C12)",
    "created_before_onboarding": "created_at is earlier than onboarding_date",
    # tutor and session
    "subject_unknown": "a subject is not among the platform's seventeen (C11)",
    # session
    "scheduled_start_ahead": "scheduled_start is in the future (C1)",
    "actual_start_ahead": "actual_start is in the future (C1)",
    "actual_start_missing": "neither a no-show nor an actual_start",
    "actual_start_on_no_show": "a no-show with an actual_start, which was dropped (C9)",
    "late_start_mismatch": "actual_start is further from scheduled_start than late_start_minutes + 5",
    "duration_unusual": "duration_minutes is none of 30, 45, 60, 90, 120, nor a no-show's 0 (C7)",
    "first_session_mismatch": "is_first_session and session_number = 1 contradict each other (C17)",
    "engagement_rescaled": "engagement_score was above 1 and taken as a percentage (C3)",
    "engagement_on_no_show": "a no-show with an engagement_score above 0.1",
    # feedback
    "submitted_ahead": "submitted_at is in the future (C2)",
    "submitted_before_created": "submitted_at is earlier than created_at (C2)",
    "recommendation_missing": "a first session without would_recommend (C19)",
    "areas_missing": "a first session without improvement_areas",
    "low_rating_without_areas": "a first session rated 3 or less without any improvement area",
    "low_rating_without_text": "rated 2 or less with fewer than 10 characters of text",
    "rating_unlike_categories": "overall_rating is more than 1.5 from the mean of the category ratings",
    "recommended_despite_rating": "recommended, though rated below 3",
    "not_recommended_despite_rating": "not recommended, though rated 4 or more",
    # tutor event
    "event_ahead": "event_timestamp is in the future",
}
"""Every code that `Accepted.warnings` can hold, and what it means."""

SUBJECTS: Final = frozenset(
    {
        *("Mathematics", "Algebra", "Calculus", "Geometry", "Physics", "Chemistry", "Biology", "Computer Science"),
        *("English", "Writing", "Literature", "Spanish", "French"),
        *("SAT Prep", "ACT Prep", "AP Test Prep", "GRE Prep"),
    }
)
USUAL_DURATIONS: Final = frozenset({30, 45, 60, 90, 120})
MAX_NAME_LENGTH: Final = 200
MAX_METADATA_BYTES: Final = 1_000_000
"""Numbers can grow when they are written anew (`1e15`): this leaves an event room in a Kafka record of default size."""
MAX_RESPONSE_MINUTES: Final = 1e100
"""Either way. Sums of such numbers stay finite, and so do the sums of squares that PostgreSQL's `avg` keeps."""

MINUTE_US: Final = 60_000_000
SKEW_US: Final = 5 * MINUTE_US
START_AHEAD_US: Final = 31 * DAY_US
FEEDBACK_AHEAD_US: Final = 32 * DAY_US

_AHEAD: Final = {SKEW_US: "5 minutes", START_AHEAD_US: "31 days", FEEDBACK_AHEAD_US: "32 days"}
_WRITTEN_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def tutor(payload: TutorPayload, now_us: int, naive_zone: tzinfo) -> Accepted | Rejected:
    """Contract §2.1."""
    onboarding_us, _ = instant(payload.onboarding_date, naive_zone)
    created_us, _ = instant(payload.created_at, naive_zone)
    updated_us, updated_offset_seconds = instant(payload.updated_at, naive_zone)
    faults = _time_faults(
        now_us,
        ("onboarding_date", onboarding_us, SKEW_US),
        ("created_at", created_us, SKEW_US),
        ("updated_at", updated_us, SKEW_US),
    )
    _, at, domain = payload.email.rpartition("@")
    if not at or "." not in domain:
        faults.append("email must have an @ and a dot after the last @")
    if faults:
        return Rejected("invalid", "; ".join(faults))

    warnings = []
    if not 22 <= payload.age <= 65:
        warnings.append("age_unusual")
    if not 5 <= payload.baseline_sessions_per_week <= 30:
        warnings.append("baseline_unusual")
    if len(payload.name) > MAX_NAME_LENGTH:
        warnings.append("name_truncated")
    if len(payload.location) > MAX_NAME_LENGTH:
        warnings.append("location_truncated")
    if created_us < onboarding_us:
        warnings.append("created_before_onboarding")
    if not SUBJECTS.issuperset(payload.subjects):
        warnings.append("subject_unknown")
    event = Tutor(
        tutor_id=payload.tutor_id,
        name=payload.name[:MAX_NAME_LENGTH],
        email=payload.email,
        onboarding_us=onboarding_us,
        status=payload.status or "active",
        subjects=tuple(payload.subjects),
        education_level=payload.education_level,
        location=payload.location[:MAX_NAME_LENGTH],
        baseline_sessions_per_week=payload.baseline_sessions_per_week,
        behavioral_archetype=payload.behavioral_archetype,
        created_us=created_us,
        updated_us=updated_us,
        age=payload.age,
        subject_type=payload.subject_type,
        updated_offset_seconds=updated_offset_seconds,
    )
    return Accepted(event, tuple(warnings))


def session(payload: SessionPayload, now_us: int, naive_zone: tzinfo) -> Accepted | Rejected:
    """Contract §2.2. Most events are sessions: keep it straight and free of calls."""
    scheduled_start_us, start_offset_seconds = instant(payload.scheduled_start, naive_zone)
    actual_start_us = None if payload.actual_start is None else instant(payload.actual_start, naive_zone)[0]
    created_us, _ = instant(payload.created_at, naive_zone)
    updated_us, _ = instant(payload.updated_at, naive_zone)
    no_show = payload.no_show
    duration_minutes = payload.duration_minutes
    late_start_minutes = payload.late_start_minutes
    if (
        scheduled_start_us > now_us + START_AHEAD_US
        or (actual_start_us is not None and actual_start_us > now_us + START_AHEAD_US)
        or created_us > now_us + SKEW_US
        or updated_us > now_us + SKEW_US
        or (late_start_minutes > duration_minutes and not no_show)  # C8: a no-show lasts 0 minutes
    ):
        faults = _time_faults(
            now_us,
            ("scheduled_start", scheduled_start_us, START_AHEAD_US),
            ("actual_start", actual_start_us, START_AHEAD_US),
            ("created_at", created_us, SKEW_US),
            ("updated_at", updated_us, SKEW_US),
        )
        if late_start_minutes > duration_minutes and not no_show:
            faults.append("late_start_minutes must not exceed duration_minutes")
        return Rejected("invalid", "; ".join(faults))

    warnings = []
    session_number = payload.session_number
    is_first_session = payload.is_first_session
    subject = payload.subject
    engagement_score = payload.engagement_score
    if engagement_score > 1:
        engagement_score /= 100
        warnings.append("engagement_rescaled")
    if scheduled_start_us > now_us:
        warnings.append("scheduled_start_ahead")
    if no_show:
        if actual_start_us is not None:
            actual_start_us = None
            warnings.append("actual_start_on_no_show")
        if engagement_score > 0.1:
            warnings.append("engagement_on_no_show")
    elif actual_start_us is None:
        warnings.append("actual_start_missing")
    else:
        if actual_start_us > now_us:
            warnings.append("actual_start_ahead")
        if abs(actual_start_us - scheduled_start_us) > (late_start_minutes + 5) * MINUTE_US:
            warnings.append("late_start_mismatch")
    if duration_minutes not in USUAL_DURATIONS and not (no_show and duration_minutes == 0):
        warnings.append("duration_unusual")
    if is_first_session is not (session_number == 1):
        warnings.append("first_session_mismatch")
    if subject not in SUBJECTS:
        warnings.append("subject_unknown")
    event = Session(
        payload.session_id,
        payload.tutor_id,
        payload.student_id,
        session_number,
        scheduled_start_us,
        actual_start_us,
        duration_minutes,
        subject,
        payload.session_type or "1-on-1",
        payload.tutor_initiated_reschedule,
        no_show,
        late_start_minutes,
        engagement_score,
        payload.learning_objectives_met,
        payload.technical_issues,
        created_us,
        updated_us,
        is_first_session,
        start_offset_seconds,
    )
    return Accepted(event, tuple(warnings)) if warnings else Accepted(event)


def feedback(payload: FeedbackPayload, now_us: int, naive_zone: tzinfo) -> Accepted | Rejected:
    """Contract §2.3."""
    submitted_us, _ = instant(payload.submitted_at, naive_zone)
    created_us, _ = instant(payload.created_at, naive_zone)
    if submitted_us > now_us + FEEDBACK_AHEAD_US or created_us > now_us + SKEW_US:
        faults = _time_faults(
            now_us, ("submitted_at", submitted_us, FEEDBACK_AHEAD_US), ("created_at", created_us, SKEW_US)
        )
        return Rejected("invalid", "; ".join(faults))

    warnings = []
    rating = payload.overall_rating
    is_first_session = payload.is_first_session
    text = payload.free_text_feedback or ""
    areas = payload.improvement_areas
    would_recommend = payload.would_recommend
    categories = (
        payload.subject_knowledge_rating,
        payload.communication_rating,
        payload.patience_rating,
        payload.engagement_rating,
        payload.helpfulness_rating,
    )
    if submitted_us > now_us:
        warnings.append("submitted_ahead")
    if submitted_us < created_us:
        warnings.append("submitted_before_created")
    if is_first_session:
        if would_recommend is None:
            warnings.append("recommendation_missing")
        if areas is None:
            warnings.append("areas_missing")
        if rating <= 3 and not areas:
            warnings.append("low_rating_without_areas")
    if rating <= 2 and len(text.strip()) < 10:
        warnings.append("low_rating_without_text")
    given = [category for category in categories if category is not None]
    if 2 * abs(rating * len(given) - sum(given)) > 3 * len(given):  # |rating - mean| > 1.5, in whole numbers
        warnings.append("rating_unlike_categories")
    if would_recommend and rating < 3:
        warnings.append("recommended_despite_rating")
    if would_recommend is False and rating >= 4:
        warnings.append("not_recommended_despite_rating")
    event = Feedback(
        payload.feedback_id,
        payload.session_id,
        payload.student_id,
        payload.tutor_id,
        rating,
        is_first_session,
        *categories,
        would_recommend,
        None if areas is None else tuple(areas),
        text,
        submitted_us,
        created_us,
    )
    return Accepted(event, tuple(warnings)) if warnings else Accepted(event)


def tutor_event(payload: TutorEventPayload, now_us: int, naive_zone: tzinfo) -> Accepted | Rejected:
    """Contract §2.4."""
    event_us, _ = instant(payload.event_timestamp, naive_zone)
    created_us = None if payload.created_at is None else instant(payload.created_at, naive_zone)[0]
    faults = _time_faults(now_us, ("event_timestamp", event_us, START_AHEAD_US), ("created_at", created_us, SKEW_US))
    metadata = None
    minutes = None
    if payload.metadata is not None:
        try:
            metadata = metadata_text(payload.metadata) or ""
        except (TypeError, RecursionError):
            return Rejected("too_deep", "metadata is nested more than 254 levels deep")
        minutes = response_time_minutes(payload.metadata)
        if len(metadata.encode()) > MAX_METADATA_BYTES:
            faults.append(f"metadata must not be longer than {MAX_METADATA_BYTES} bytes")
        if minutes is not None and abs(minutes) > MAX_RESPONSE_MINUTES:
            faults.append("metadata.response_time_minutes is beyond any time that a reply can take")
    if faults:
        return Rejected("invalid", "; ".join(faults))
    if metadata is not None and "\\u0000" in metadata and _WRITTEN_NUL.search(metadata):
        return Rejected("nul", "metadata holds a NUL character")

    event = TutorEvent(payload.event_id, payload.tutor_id, payload.event_type, event_us, metadata, created_us, minutes)
    return Accepted(event, ("event_ahead",)) if event_us > now_us else Accepted(event)


def _time_faults(now_us: int, *times: tuple[str, int | None, int]) -> list[str]:
    """A sentence for each of the (field, instant, how far it may lie ahead) that is no time or too far ahead."""
    faults = []
    for field, at_us, ahead_us in times:
        if at_us == NEVER_US:
            faults.append(f"{field} is not an ISO 8601 time of the years 1 to 9999")
        elif at_us is not None and at_us > now_us + ahead_us:
            faults.append(f"{field} lies more than {_AHEAD[ahead_us]} ahead")
    return faults
