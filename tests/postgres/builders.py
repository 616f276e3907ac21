"""Events and metrics records to be written, each valid as it stands; keyword arguments replace fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from models.events import Enriched, Event, Feedback, Origin, Session, Tutor, TutorEvent
from models.metrics import MetricsUpdated, WindowInputs, metrics_updated, window_metrics
from models.rows import metric_id
from models.versions import digest

T = 1_764_504_000_123_456
"""2025-11-30T12:00:00.123456Z in µs."""

HOUR = 3_600_000_000
DAY = 24 * HOUR


def enriched(event: Event) -> Enriched:
    return Enriched(event, digest(event), Origin("sessions", 0, 0, T // 1000), {})


def tutor(tutor_id: str = "tutor_00001", at: int = T, **changes: Any) -> Enriched:
    event = Tutor(
        tutor_id=tutor_id,
        name="Ada Example",
        email=f"{tutor_id}@example.org",
        onboarding_us=T - 400 * DAY,
        status="active",
        subjects=("Algebra", "Physics"),
        education_level="PhD",
        location="Kramerville",
        baseline_sessions_per_week=12.0,
        behavioral_archetype="high_performer",
        created_us=T - 400 * DAY,
        updated_us=at,
    )
    return enriched(msgspec.structs.replace(event, **changes))


def session(session_id: str = "s-1", tutor_id: str = "tutor_00001", at: int = T, **changes: Any) -> Enriched:
    event = Session(
        session_id=session_id,
        tutor_id=tutor_id,
        student_id="student_00042",
        session_number=1,
        scheduled_start_us=T - DAY,
        actual_start_us=T - DAY + 120_000_000,
        duration_minutes=60,
        subject="Algebra",
        session_type="1-on-1",
        tutor_initiated_reschedule=False,
        no_show=False,
        late_start_minutes=2,
        engagement_score=0.862,
        learning_objectives_met=True,
        technical_issues=False,
        created_us=T - DAY,
        updated_us=at,
    )
    return enriched(msgspec.structs.replace(event, **changes))


def feedback(session_id: str = "s-1", tutor_id: str = "tutor_00001", at: int = T, **changes: Any) -> Enriched:
    event = Feedback(
        feedback_id=f"f-{session_id}",
        session_id=session_id,
        student_id="student_00042",
        tutor_id=tutor_id,
        overall_rating=4,
        is_first_session=True,
        subject_knowledge_rating=5,
        communication_rating=4,
        patience_rating=None,
        engagement_rating=4,
        helpfulness_rating=4,
        would_recommend=True,
        improvement_areas=("late",),
        free_text_feedback='Grüße, \\ \t\n"quoted" 🎓',
        submitted_us=at,
        created_us=T,
    )
    return enriched(msgspec.structs.replace(event, **changes))


def tutor_event(event_id: str = "e-1", tutor_id: str = "tutor_00001", at: int = T, **changes: Any) -> Enriched:
    event = TutorEvent(
        event_id=event_id,
        tutor_id=tutor_id,
        event_type="message_response",
        event_us=at,
        metadata='{"response_time_minutes":12.5}',
        created_us=None,
        response_time_minutes=12.5,
    )
    return enriched(msgspec.structs.replace(event, **changes))


def metrics(
    tutor_id: str = "tutor_00001", *, epoch: int = 1, position: int = 10, as_of: int = T, **inputs: Any
) -> MetricsUpdated:
    """A record whose three windows all hold `inputs`."""
    windows = {
        window: window_metrics(
            window, metric_id(tutor_id, window), WindowInputs(**inputs), "normalized", login_known=False
        )
        for window in ("7day", "30day", "90day")
    }
    return metrics_updated(tutor_id, windows, as_of_us=as_of, epoch=epoch, position=position)


_CONNECTIONS: dict[str, psycopg.Connection[tuple[Any, ...]]] = {}


def rows(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a query answers, asked on a connection of the tests' own."""
    connection = _CONNECTIONS.get(url)
    if connection is None or connection.closed:
        connection = _CONNECTIONS[url] = psycopg.connect(url, autocommit=True)
    cursor = connection.execute(query.encode(), values or None)
    return cursor.fetchall() if cursor.description else []


def ids(written: Sequence[Any]) -> list[tuple[str, str]]:
    return sorted((persisted.kind, persisted.id) for persisted in written)
