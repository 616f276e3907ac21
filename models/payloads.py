"""The four raw events as producers write them (contract §2, as resolved in §11), each a strict pydantic model.

A model answers for one field at a time: present, of its exact type, within its range. `bool` is no number, a number
with a fraction is no whole number, a text is neither; a whole number will do where any number may stand. Unknown keys
are ignored. What fields say about each other, about now and about the zone is for `models.rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

INT4_MAX: Final = 2**31 - 1
"""The greatest value of PostgreSQL's `integer`."""

Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=50)]
Rating: TypeAlias = Annotated[int, Field(ge=1, le=5)]
Text100: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
NonEmpty: TypeAlias = Annotated[str, Field(min_length=1)]


class Payload(BaseModel):
    """What the four have in common."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


class TutorPayload(Payload):
    """Contract §2.1; ranges of the API (C10), free subjects (C11), four statuses (C5)."""

    tutor_id: Id
    name: NonEmpty
    email: Annotated[str, Field(max_length=255)]
    age: Annotated[int, Field(ge=18, le=100)]
    location: NonEmpty
    education_level: Text100
    subjects: Annotated[list[Text100], Field(min_length=1, max_length=10, fail_fast=True)]
    subject_type: Literal["STEM", "Language", "TestPrep"]
    onboarding_date: str
    tenure_days: Annotated[int, Field(ge=0)]  # not kept: enrichment computes it anew
    behavioral_archetype: Literal["high_performer", "at_risk", "new_tutor", "steady", "churner"]
    baseline_sessions_per_week: Annotated[float, Field(ge=0, le=50)]
    status: Literal["active", "inactive", "suspended", "churned"] | None = None
    created_at: str
    updated_at: str


class SessionPayload(Payload):
    """Contract §2.2; free subject (C11), engagement as fraction or percentage (C3)."""

    session_id: Id
    tutor_id: Id
    student_id: Id
    session_number: Annotated[int, Field(ge=1, le=INT4_MAX)]
    is_first_session: bool
    scheduled_start: str
    actual_start: str | None = None
    duration_minutes: Annotated[int, Field(ge=0, le=300)]
    subject: Text100
    session_type: Literal["1-on-1", "group", "workshop"] | None = None
    tutor_initiated_reschedule: bool
    no_show: bool
    technical_issues: bool
    learning_objectives_met: bool
    late_start_minutes: Annotated[int, Field(ge=0, le=60)]
    engagement_score: Annotated[float, Field(ge=0, le=100)]
    created_at: str
    updated_at: str


class FeedbackPayload(Payload):
    """Contract §2.3; categories optional, null text is empty text (C18), recommendation optional (C19)."""

    feedback_id: Id
    session_id: Id
    student_id: Id
    tutor_id: Id
    overall_rating: Rating
    is_first_session: bool
    subject_knowledge_rating: Rating | None = None
    communication_rating: Rating | None = None
    patience_rating: Rating | None = None
    engagement_rating: Rating | None = None
    helpfulness_rating: Rating | None = None
    free_text_feedback: Annotated[str, Field(max_length=5000)] | None = None
    would_recommend: bool | None = None
    improvement_areas: Annotated[list[str], Field(max_length=10, fail_fast=True)] | None = None
    submitted_at: str
    created_at: str


class TutorEventPayload(Payload):
    """Contract §2.4: the columns of `tutor_events`."""

    event_id: Id
    tutor_id: Id
    event_type: Text100
    event_timestamp: str
    metadata: dict[str, Any] | None = None
    created_at: str | None = None


PAYLOADS: Final[dict[str, type[Payload]]] = {
    "tutor": TutorPayload,
    "session": SessionPayload,
    "feedback": FeedbackPayload,
    "tutor_event": TutorEventPayload,
}

TOPIC_OF: Final = {"tutor": "tutors", "session": "sessions", "feedback": "feedback", "tutor_event": "tutor-events"}
"""Where each kind of event belongs; topic names without prefix."""

NAME_OF: Final = {
    "tutor": "tutor profile",
    "session": "session event",
    "feedback": "feedback event",
    "tutor_event": "tutor event",
}
"""What to call each kind before people."""

MARKS_OF: Final = {
    "feedback": frozenset({"feedback_id", "overall_rating"}),
    "session": frozenset({"session_id", "scheduled_start"}),
    "tutor_event": frozenset({"event_id", "event_type"}),
    "tutor": frozenset({"tutor_id", "email"}),
}
"""The keys by which a person would tell what kind of event an object is, most telling first."""
