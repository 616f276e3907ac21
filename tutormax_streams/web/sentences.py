"""What documents say and the code does not: a sentence about each topic and each field of the public records.

The pages of `docs/` and the document of the topics (`tutormax_streams/web/asyncapi.py`) say the same.
"""

from __future__ import annotations

from typing import Final

from models.metrics import MOST_POOR_FIRST_SESSIONS

TOPIC_CONTENT: Final = {
    "tutors": ("any, or none", "tutors' profiles; JSON"),
    "sessions": ("any, or none", "sessions; JSON"),
    "feedback": ("any, or none", "students' feedback; JSON"),
    "tutor-events": ("any, or none", "what tutors do: `login`, `message_response`, anything else; JSON"),
    "validated": ("partition of the home id", "accepted events, packed"),
    "enriched": ("partition of the home id", "winning versions with derived fields, packed"),
    "facts": ("partition of `tutor_id`", "what windows must know, addressed to tutors, packed"),
    "metrics": ("`tutor_id`", "`metrics.updated`: a tutor's three windows; JSON"),
    "persisted": ("`tutor_id`", "`record.persisted`: a row was committed; JSON"),
    "alerts": ("`tutor_id`", "what somebody should hear of: `tier.changed`, `alert.raised` and others; JSON"),
    "dead-letter": ("the record's own", "refused records, bytes intact, the reason in headers"),
    "control": ("`TUTORMAX_APP_ID`", "the epoch of the state; JSON"),
    "tutormax-stream-entities-changelog": ("home id + writer", "table `entities`: winning versions by home"),
    "tutormax-stream-tutor_windows-changelog": ("tutor, entity + writer", "table `tutor_windows`: facts by tutor"),
}

RECORD_FIELDS: Final = {
    "type": "always `metrics.updated`",
    "version": "of this layout",
    "tutor_id": "whose windows these are",
    "tutor_name": "null while the tutor's profile has not arrived",
    "tutor_status": "`active`, `inactive`, `suspended` or `churned`; null as above",
    "as_of": "the instant that all three windows end at, UTC",
    "as_of_us": "the same in microseconds since 1970",
    "epoch": "which beginning the state has; grows with each `rebuild`",
    "position": "offset in topic `facts` up to which facts are counted",
    "windows": "by name: `7day`, `30day`, `90day`",
    "declines_7day_vs_30day": "the 30-day figure minus the 7-day figure: positive is worse",
    "oldest_event_time_ms": "Kafka time of the oldest event first counted in this record; null if there is none",
    "events": "how many events are first counted in this record; 0 for a refresh",
    "poor_first_sessions_7day": "first sessions of the last 7 days rated below 3 or more than 10 minutes late; of more "
    f"than {MOST_POOR_FIRST_SESSIONS} the newest",
    "reschedules_14day_count": "sessions of the last 14 days that the tutor moved",
    "is_settled": "false while history flows in: figures on their way, of which no alert is made",
}

WINDOW_FIELDS: Final = {
    "window": "its name",
    "metric_id": "key of the row in `tutor_performance_metrics`",
    "sessions_completed": "sessions that took place",
    "avg_rating_stars": "mean overall rating, 1 to 5",
    "first_session_success_rate_pct": "of rated first sessions, the share rated 4 or 5",
    "reschedule_rate_pct": "share of sessions that the tutor moved",
    "no_show_count": "sessions that nobody came to",
    "engagement_score_pct": "login, session and punctuality parts weighted",
    "learning_objectives_met_pct": "of sessions that say, the share that met them",
    "response_time_avg_minutes": "mean of reported response times",
    "performance_tier": "Exemplary, Strong, Developing, Needs Attention or At Risk",
    "sessions_scheduled": "all sessions in the window, no-shows included",
    "first_sessions_count": "sessions with `session_number` 1",
    "reschedule_count": "sessions that the tutor moved",
    "feedback_count": "ratings in the window",
    "no_show_rate_pct": "share of sessions that nobody came to",
    "sessions_per_week": "scheduled sessions per seven days",
}

DECLINE_FIELDS: Final = {
    "avg_rating_stars": "stars lost; null if either window has no rating",
    "engagement_score_pct": "percentage points lost; null if either window has no sessions",
    "sessions_per_week": "sessions a week lost",
    "sessions_per_week_frac": "the same as a share of the 30-day figure, 1 at most, negative after a busier week; null where that is 0",
}

TIMES: Final = frozenset(
    {
        *("onboarding_date", "created_at", "updated_at", "scheduled_start", "actual_start", "submitted_at"),
        "event_timestamp",
    }
)

REMARKS: Final = {
    ("tutor", "name"): "longer than 200 characters is cut",
    ("tutor", "location"): "longer than 200 characters is cut",
    ("tutor", "email"): "an @, and a dot after the last @; each address once",
    ("tutor", "status"): "`active` if absent",
    ("tutor", "tenure_days"): "not used: computed from `onboarding_date`",
    ("tutor", "updated_at"): "the version",
    ("session", "session_type"): "`1-on-1` if absent",
    ("session", "session_number"): "1 makes it a first session",
    ("session", "is_first_session"): "not used: `session_number` counts",
    ("session", "late_start_minutes"): "at most `duration_minutes`, unless a no-show",
    ("session", "engagement_score"): "above 1 it is read as a percentage",
    ("session", "actual_start"): "dropped from a no-show",
    ("session", "updated_at"): "the version",
    ("feedback", "free_text_feedback"): "null means empty",
    ("feedback", "submitted_at"): "the version",
    ("tutor_event", "event_type"): "`login` and `message_response` count",
    ("tutor_event", "event_timestamp"): "the version",
    ("tutor_event", "metadata"): "`response_time_minutes` in it counts where it is a number, up to 1e100",
}
