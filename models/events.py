"""The four events of the platform as they travel inside the product, after validation.

Every instant is an integer count of microseconds since 1970-01-01T00:00:00Z (suffix ``_us``), so that equal instants
are equal values whatever zone a producer wrote them in. Texts are the platform's wire values ("active", "1-on-1");
`models.rows` turns them into what PostgreSQL stores. Nothing here parses or judges: see `models.parsing`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Tutor(msgspec.Struct, array_like=True, tag="tutor", gc=False, frozen=True):
    """A tutor's profile, one version of it (contract §2.1). Home id: `tutor_id`; version time: `updated_us`."""

    tutor_id: str
    name: str
    email: str
    onboarding_us: int
    status: str  # active | inactive | suspended | churned
    subjects: tuple[str, ...]
    education_level: str | None
    location: str | None
    baseline_sessions_per_week: float | None
    behavioral_archetype: str | None  # wire value: high_performer, at_risk, new_tutor, steady, churner
    created_us: int
    updated_us: int
    # Not stored by the platform:
    age: int | None = None
    subject_type: str | None = None
    updated_offset_seconds: int = 0  # zone that `updated_at` was written in, for is_active_today

    @property
    def home_id(self) -> str:
        return self.tutor_id

    @property
    def version_us(self) -> int:
        return self.updated_us


class Session(msgspec.Struct, array_like=True, tag="session", gc=False, frozen=True):
    """A tutoring session, one version of it (contract §2.2). Home id: `session_id`; version time: `updated_us`."""

    session_id: str
    tutor_id: str
    student_id: str
    session_number: int
    scheduled_start_us: int
    actual_start_us: int | None
    duration_minutes: int
    subject: str
    session_type: str  # 1-on-1 | group | workshop
    tutor_initiated_reschedule: bool
    no_show: bool
    late_start_minutes: int
    engagement_score: float | None  # 0-1 from events (C3); rows of the database keep what they hold
    learning_objectives_met: bool | None
    technical_issues: bool
    created_us: int
    updated_us: int
    # Not stored by the platform:
    is_first_session: bool | None = None
    start_offset_seconds: int = 0  # zone that `scheduled_start` was written in, for weekday and time of day

    @property
    def home_id(self) -> str:
        return self.session_id

    @property
    def version_us(self) -> int:
        return self.updated_us


class Feedback(msgspec.Struct, array_like=True, tag="feedback", gc=False, frozen=True):
    """A student's feedback on a session, one version of it (contract §2.3). Home id: `session_id`; version time:
    `submitted_us`."""

    feedback_id: str
    session_id: str
    student_id: str
    tutor_id: str
    overall_rating: int
    is_first_session: bool
    subject_knowledge_rating: int | None
    communication_rating: int | None
    patience_rating: int | None
    engagement_rating: int | None
    helpfulness_rating: int | None
    would_recommend: bool | None
    improvement_areas: tuple[str, ...] | None
    free_text_feedback: str
    submitted_us: int
    created_us: int

    @property
    def home_id(self) -> str:
        return self.session_id

    @property
    def version_us(self) -> int:
        return self.submitted_us


class TutorEvent(msgspec.Struct, array_like=True, tag="tutor_event", gc=False, frozen=True):
    """Something a tutor did on the platform, such as a login (contract §2.4). Home id: `event_id`; version time:
    `event_us`."""

    event_id: str
    tutor_id: str
    event_type: str
    event_us: int
    metadata: str | None  # JSON text of an object, keys sorted, or None
    created_us: int | None
    response_time_minutes: float | None = None  # metadata.response_time_minutes where it is a JSON number

    @property
    def home_id(self) -> str:
        return self.event_id

    @property
    def version_us(self) -> int:
        return self.event_us


Event: TypeAlias = Tutor | Session | Feedback | TutorEvent

KIND_OF: dict[type, str] = {Tutor: "tutor", Session: "session", Feedback: "feedback", TutorEvent: "tutor_event"}


class Origin(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a raw record stood: its identity, and the moment its freshness is counted from.

    `topic` is the raw topic without prefix ("sessions"), or "database" for rows loaded by `rebuild`.
    """

    topic: str
    partition: int
    offset: int
    time_ms: int  # the record's Kafka timestamp, milliseconds since the epoch


class Validated(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """An accepted event on its way to its home (topic `validated`)."""

    event: Event
    digest: bytes  # 8 bytes, `models.versions.digest`: the second half of the version
    origin: Origin
    warnings: tuple[str, ...] = ()


class Enriched(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The winning version of an entity with what contract §3 derives from it (topic `enriched`)."""

    event: Event
    digest: bytes
    origin: Origin
    derived: dict[str, bool | int | float | str]
    warnings: tuple[str, ...] = ()
