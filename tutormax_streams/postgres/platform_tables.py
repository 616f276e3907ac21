"""The platform's tables and indexes as its migrations leave them (contract §5.1, §5.3), for databases without them.

Enums are VARCHARs that hold member names; nothing has a server default but the two consents of students. Of the
platform's tables only those that this application writes.
"""

from __future__ import annotations

from typing import Final, LiteralString

PLATFORM_TABLES: Final[dict[str, tuple[LiteralString, ...]]] = {
    "tutors": (
        """
        CREATE TABLE tutors (
            tutor_id varchar(50) PRIMARY KEY,
            name varchar(200) NOT NULL,
            email varchar(255) NOT NULL,
            onboarding_date timestamptz NOT NULL,
            status varchar(50) NOT NULL,
            subjects varchar[] NOT NULL,
            education_level varchar(100),
            location varchar(200),
            baseline_sessions_per_week double precision,
            behavioral_archetype varchar(50),
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX ix_tutors_email ON tutors (email)",
        "CREATE INDEX ix_tutors_status ON tutors (status)",
        "CREATE INDEX idx_tutors_onboarding_status ON tutors (onboarding_date, status)",
        "CREATE INDEX idx_tutors_onboarding ON tutors (onboarding_date)",
        "CREATE INDEX idx_tutors_status_created ON tutors (status, created_at)",
    ),
    "students": (
        """
        CREATE TABLE students (
            student_id varchar(50) PRIMARY KEY,
            name varchar(200) NOT NULL,
            age integer,
            grade_level varchar(50),
            subjects_interested varchar[],
            is_under_13 boolean NOT NULL DEFAULT false,
            parent_email varchar(255),
            parent_consent_given boolean NOT NULL DEFAULT false,
            parent_consent_date timestamptz,
            parent_consent_ip varchar(45),
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """,
    ),
    "sessions": (
        """
        CREATE TABLE sessions (
            session_id varchar(50) PRIMARY KEY,
            tutor_id varchar(50) NOT NULL REFERENCES tutors (tutor_id) ON DELETE CASCADE,
            student_id varchar(50) NOT NULL REFERENCES students (student_id) ON DELETE CASCADE,
            session_number integer NOT NULL,
            scheduled_start timestamptz NOT NULL,
            actual_start timestamptz,
            duration_minutes integer NOT NULL,
            subject varchar(100) NOT NULL,
            session_type varchar(50) NOT NULL,
            tutor_initiated_reschedule boolean NOT NULL,
            no_show boolean NOT NULL,
            late_start_minutes integer NOT NULL,
            engagement_score double precision,
            learning_objectives_met boolean,
            technical_issues boolean NOT NULL,
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """,
        "CREATE INDEX ix_sessions_tutor_id ON sessions (tutor_id)",
        "CREATE INDEX ix_sessions_student_id ON sessions (student_id)",
        "CREATE INDEX ix_sessions_scheduled_start ON sessions (scheduled_start)",
        "CREATE INDEX ix_sessions_subject ON sessions (subject)",
        "CREATE INDEX idx_sessions_start_tutor ON sessions (scheduled_start, tutor_id)",
        "CREATE INDEX idx_sessions_tutor_start ON sessions (tutor_id, scheduled_start)",
        """
        CREATE INDEX idx_sessions_tutor_start_covering ON sessions (tutor_id, scheduled_start)
        INCLUDE (duration_minutes, engagement_score, learning_objectives_met, no_show, late_start_minutes)
        """,
        "CREATE INDEX idx_sessions_student_start ON sessions (student_id, scheduled_start)",
        "CREATE INDEX idx_sessions_tutor_flags ON sessions (tutor_id, no_show, tutor_initiated_reschedule)",
        "CREATE INDEX idx_sessions_start_created ON sessions (scheduled_start, created_at)",
        """
        CREATE INDEX idx_sessions_completed ON sessions (tutor_id, scheduled_start, subject)
        WHERE NOT no_show AND actual_start IS NOT NULL
        """,
    ),
    "student_feedback": (
        """
        CREATE TABLE student_feedback (
            feedback_id varchar(50) PRIMARY KEY,
            session_id varchar(50) NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
            student_id varchar(50) NOT NULL REFERENCES students (student_id) ON DELETE CASCADE,
            tutor_id varchar(50) NOT NULL REFERENCES tutors (tutor_id) ON DELETE CASCADE,
            overall_rating integer NOT NULL,
            is_first_session boolean NOT NULL,
            subject_knowledge_rating integer,
            communication_rating integer,
            patience_rating integer,
            engagement_rating integer,
            helpfulness_rating integer,
            would_recommend boolean,
            improvement_areas varchar[],
            free_text_feedback text,
            submitted_at timestamptz NOT NULL,
            created_at timestamptz NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX ix_student_feedback_session_id ON student_feedback (session_id)",
        "CREATE INDEX ix_student_feedback_student_id ON student_feedback (student_id)",
        "CREATE INDEX ix_student_feedback_tutor_id ON student_feedback (tutor_id)",
        "CREATE INDEX idx_feedback_submitted_tutor ON student_feedback (submitted_at, tutor_id)",
        "CREATE INDEX idx_feedback_tutor_submitted ON student_feedback (tutor_id, submitted_at)",
        "CREATE INDEX idx_feedback_tutor_first ON student_feedback (tutor_id, is_first_session, submitted_at)",
        """
        CREATE INDEX idx_feedback_poor ON student_feedback (overall_rating, submitted_at) WHERE overall_rating <= 3
        """,
        "CREATE INDEX idx_feedback_session ON student_feedback (session_id)",
    ),
    "tutor_performance_metrics": (
        """
        CREATE TABLE tutor_performance_metrics (
            metric_id varchar(50) PRIMARY KEY,
            tutor_id varchar(50) NOT NULL REFERENCES tutors (tutor_id) ON DELETE CASCADE,
            calculation_date timestamptz NOT NULL,
            "window" varchar(20) NOT NULL,
            sessions_completed integer NOT NULL,
            avg_rating double precision,
            first_session_success_rate double precision,
            reschedule_rate double precision,
            no_show_count integer NOT NULL,
            engagement_score double precision,
            learning_objectives_met_pct double precision,
            response_time_avg_minutes double precision,
            performance_tier varchar(50),
            created_at timestamptz NOT NULL,
            updated_at timestamptz NOT NULL
        )
        """,
        "CREATE INDEX ix_tutor_performance_metrics_tutor_id ON tutor_performance_metrics (tutor_id)",
        "CREATE INDEX ix_tutor_performance_metrics_calculation_date ON tutor_performance_metrics (calculation_date)",
        'CREATE INDEX idx_metrics_date_window ON tutor_performance_metrics (calculation_date, "window")',
        "CREATE INDEX idx_metrics_tutor_date ON tutor_performance_metrics (tutor_id, calculation_date)",
        'CREATE INDEX idx_metrics_window_date ON tutor_performance_metrics ("window", calculation_date)',
        """
        CREATE INDEX idx_metrics_tier ON tutor_performance_metrics (performance_tier)
        WHERE performance_tier IS NOT NULL
        """,
    ),
    "tutor_events": (
        """
        CREATE TABLE tutor_events (
            event_id varchar(50) PRIMARY KEY,
            tutor_id varchar(50) NOT NULL REFERENCES tutors (tutor_id) ON DELETE CASCADE,
            event_type varchar(100) NOT NULL,
            event_timestamp timestamptz NOT NULL,
            metadata jsonb,
            created_at timestamptz NOT NULL
        )
        """,
        "CREATE INDEX ix_tutor_events_tutor_id ON tutor_events (tutor_id)",
        "CREATE INDEX ix_tutor_events_event_type ON tutor_events (event_type)",
        "CREATE INDEX ix_tutor_events_event_timestamp ON tutor_events (event_timestamp)",
        "CREATE INDEX idx_tutor_events_tutor_time ON tutor_events (tutor_id, event_timestamp)",
        "CREATE INDEX idx_tutor_events_type_time ON tutor_events (event_type, event_timestamp)",
        "CREATE INDEX idx_tutor_events_metadata ON tutor_events USING gin (metadata)",
    ),
}
"""Table -> statements that create it and its indexes, in foreign-key order."""

USERS_TABLE: Final = """
CREATE TABLE users (
    id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    email varchar(320) NOT NULL,
    hashed_password varchar(1024) NOT NULL,
    is_active boolean NOT NULL,
    is_superuser boolean NOT NULL,
    is_verified boolean NOT NULL,
    full_name varchar(255),
    roles varchar[] NOT NULL,
    tutor_id varchar(50) UNIQUE REFERENCES tutors (tutor_id),
    student_id varchar(50) UNIQUE REFERENCES students (student_id)
)
"""
"""Who may sign in (contract §8). The platform's alone: only the demo and tests make it."""
