"""The referee: what the platform's tables and every tutor's metrics must be, worked out the slow and obvious way.

It is written from the contract alone and imports nothing of the product, so that a misreading in `models/` shows as a
difference. Lists are filtered anew for every figure; nothing is remembered between two questions. Read it beside
contract §2.5 (versions), §4 (metrics), §5 (stored columns) and §11 (resolutions); each function names its paragraph.

It judges payloads only by their instants (too far ahead of now: refused). All other refusals belong to the parser's
own tests: whoever feeds the oracle leaves invalid payloads out.

Units: instants are int microseconds since 1970-01-01T00:00:00Z. Rates and percentages are 0-100.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

Payload = dict[str, Any]  # one event as its producer wrote it, contract §2
Row = dict[str, Any]  # one row as PostgreSQL holds it: instants as int µs, enums as their NAMES
TieBreak = Callable[[str, Payload], Any]  # (topic, payload) -> something ordered; stands for the digest of §2.5

MINUTE_US = 60 * 1_000_000
DAY_US = 24 * 60 * MINUTE_US

WINDOW_DAYS = {"7day": 7, "30day": 30, "90day": 90}
WINDOW_NAME = {"7day": "SEVEN_DAY", "30day": "THIRTY_DAY", "90day": "NINETY_DAY"}
TIER_NAME = {
    "Exemplary": "EXEMPLARY",
    "Strong": "STRONG",
    "Developing": "DEVELOPING",
    "Needs Attention": "NEEDS_ATTENTION",
    "At Risk": "AT_RISK",
}

# §2.5: what a payload is a version of, and the time that decides between versions.
ENTITY_KEY = {"tutors": "tutor_id", "sessions": "session_id", "feedback": "session_id", "tutor-events": "event_id"}
VERSION_KEY = {
    "tutors": "updated_at",
    "sessions": "updated_at",
    "feedback": "submitted_at",
    "tutor-events": "event_timestamp",
}

# §2.5, C1, C2: how far ahead of now an instant may lie before its event is refused.
MAY_LIE_AHEAD_US = {
    "tutors": {"onboarding_date": 5 * MINUTE_US, "created_at": 5 * MINUTE_US, "updated_at": 5 * MINUTE_US},
    "sessions": {
        "scheduled_start": 31 * DAY_US,
        "actual_start": 31 * DAY_US,
        "created_at": 5 * MINUTE_US,
        "updated_at": 5 * MINUTE_US,
    },
    "feedback": {"submitted_at": 32 * DAY_US, "created_at": 5 * MINUTE_US},
    # The contract is silent on event_timestamp; it is an event time like scheduled_start (C16).
    "tutor-events": {"event_timestamp": 31 * DAY_US, "created_at": 5 * MINUTE_US},
}


def instant_us(text: str, naive_zone: tzinfo = UTC) -> int:
    """The instant an ISO 8601 text names; without an offset it is local to `naive_zone` (§2.5, C15)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=naive_zone)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def payload_of(raw: bytes) -> Payload:
    """The payload in a valid raw record: bare, or in the envelope of §1.2."""
    document: Payload = json.loads(raw)
    is_envelope = {"id", "timestamp", "channel", "data", "checksum"} <= document.keys()
    payload: Payload = document["data"] if is_envelope else document
    return payload


# --- Stored columns, §5.1 and §5.2 -----------------------------------------------------------------------------------

STATUS_NAME = {"active": "ACTIVE", "inactive": "INACTIVE", "suspended": "INACTIVE", "churned": "CHURNED"}  # C5
SESSION_TYPE_NAME = {"1-on-1": "ONE_ON_ONE", "group": "GROUP", "workshop": "GROUP"}  # C6


def tutor_row(payload: Payload, naive_zone: tzinfo = UTC) -> Row:
    return {
        "tutor_id": payload["tutor_id"],
        "name": payload["name"][:200],  # C12
        "email": payload["email"],
        "onboarding_date": instant_us(payload["onboarding_date"], naive_zone),
        "status": STATUS_NAME[payload.get("status") or "active"],
        "subjects": list(payload["subjects"]),
        "education_level": payload["education_level"],
        "location": payload["location"][:200],  # C12
        "baseline_sessions_per_week": float(payload["baseline_sessions_per_week"]),
        "behavioral_archetype": payload["behavioral_archetype"].upper(),
        "created_at": instant_us(payload["created_at"], naive_zone),
        "updated_at": instant_us(payload["updated_at"], naive_zone),
    }


def session_row(payload: Payload, naive_zone: tzinfo = UTC) -> Row:
    actual_start = None if payload["no_show"] else payload.get("actual_start")  # C9
    engagement = payload["engagement_score"]
    return {
        "session_id": payload["session_id"],
        "tutor_id": payload["tutor_id"],
        "student_id": payload["student_id"],
        "session_number": payload["session_number"],
        "scheduled_start": instant_us(payload["scheduled_start"], naive_zone),
        "actual_start": None if actual_start is None else instant_us(actual_start, naive_zone),
        "duration_minutes": payload["duration_minutes"],
        "subject": payload["subject"],
        "session_type": SESSION_TYPE_NAME[payload.get("session_type") or "1-on-1"],
        "tutor_initiated_reschedule": payload["tutor_initiated_reschedule"],
        "no_show": payload["no_show"],
        "late_start_minutes": payload["late_start_minutes"],
        "engagement_score": float(engagement) if engagement <= 1 else engagement / 100,  # C3
        "learning_objectives_met": payload["learning_objectives_met"],
        "technical_issues": payload["technical_issues"],
        "created_at": instant_us(payload["created_at"], naive_zone),
        "updated_at": instant_us(payload["updated_at"], naive_zone),
    }


def feedback_row(payload: Payload, naive_zone: tzinfo = UTC) -> Row:
    areas = payload.get("improvement_areas")
    return {
        "feedback_id": payload["feedback_id"],
        "session_id": payload["session_id"],
        "student_id": payload["student_id"],
        "tutor_id": payload["tutor_id"],
        "overall_rating": payload["overall_rating"],
        "is_first_session": payload["is_first_session"],
        "subject_knowledge_rating": payload.get("subject_knowledge_rating"),  # C18: categories may be missing
        "communication_rating": payload.get("communication_rating"),
        "patience_rating": payload.get("patience_rating"),
        "engagement_rating": payload.get("engagement_rating"),
        "helpfulness_rating": payload.get("helpfulness_rating"),
        "would_recommend": payload.get("would_recommend"),
        "improvement_areas": None if areas is None else list(areas),
        "free_text_feedback": payload.get("free_text_feedback") or "",  # C18: null text = ""
        "submitted_at": instant_us(payload["submitted_at"], naive_zone),
        "created_at": instant_us(payload["created_at"], naive_zone),
    }


def tutor_event_row(payload: Payload, naive_zone: tzinfo = UTC) -> Row:
    event_timestamp = instant_us(payload["event_timestamp"], naive_zone)
    created_at = payload.get("created_at")
    return {
        "event_id": payload["event_id"],
        "tutor_id": payload["tutor_id"],
        "event_type": payload["event_type"],
        "event_timestamp": event_timestamp,
        "metadata": payload.get("metadata"),  # the object itself; compare as JSON, not as text
        "created_at": event_timestamp if created_at is None else instant_us(created_at, naive_zone),
    }


ROW_OF = {"tutors": tutor_row, "sessions": session_row, "feedback": feedback_row, "tutor-events": tutor_event_row}


def student_row(student_id: str) -> Row:
    """The stub that stands in for a student nobody told us of (§3; the whole id where it has no digits); its two instants are the writer's clock."""
    digits = "".join(character for character in student_id if character in "0123456789")
    return {
        "student_id": student_id,
        "name": f"Student {digits or student_id}",
        "age": None,
        "grade_level": None,
        "subjects_interested": [],
        "is_under_13": False,
        "parent_consent_given": False,
    }


# --- Versions, §2.5 --------------------------------------------------------------------------------------------------


def is_accepted(topic: str, payload: Payload, now_us: int, naive_zone: tzinfo = UTC) -> bool:
    for field, ahead_us in MAY_LIE_AHEAD_US[topic].items():
        text = payload.get(field)
        if text is not None and instant_us(text, naive_zone) > now_us + ahead_us:
            return False
    return True


def no_ties(topic: str, payload: Payload) -> Any:
    raise AssertionError(f"two versions of one time differ and no tie_break was given: {topic} {payload}")


def winners(topic: str, payloads: Iterable[Payload], naive_zone: tzinfo, tie_break: TieBreak) -> dict[str, Row]:
    """The winning stored row per entity: greatest version time, then greatest tie-break."""
    chosen: dict[str, Payload] = {}
    for payload in payloads:
        entity = payload[ENTITY_KEY[topic]]
        if entity not in chosen or is_newer(topic, payload, chosen[entity], naive_zone, tie_break):
            chosen[entity] = payload
    return {entity: ROW_OF[topic](payload, naive_zone) for entity, payload in chosen.items()}


def is_newer(topic: str, payload: Payload, than: Payload, naive_zone: tzinfo, tie_break: TieBreak) -> bool:
    time = instant_us(payload[VERSION_KEY[topic]], naive_zone)
    other_time = instant_us(than[VERSION_KEY[topic]], naive_zone)
    if time != other_time:
        return time > other_time
    if ROW_OF[topic](payload, naive_zone) == ROW_OF[topic](than, naive_zone):
        return False  # the same version again
    return bool(tie_break(topic, payload) > tie_break(topic, than))


# --- Metrics, §4 -----------------------------------------------------------------------------------------------------


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def percentage(hits: int, of: int) -> float | None:
    return (hits / of) * 100 if of else None


def engagement_score(sessions: list[Row], logins: int, has_login_in_90_days: bool, mode: str) -> float | None:
    """§4.2 row 5 and C3."""
    if not sessions:
        return None
    scores: list[float] = [s["engagement_score"] for s in sessions if s["engagement_score"] is not None]
    if mode == "normalized":
        scores = [score * 100 if score <= 1 else score for score in scores]
    session = math.fsum(scores) / len(scores) if scores else 50.0
    login: float = min((logins / len(sessions)) * 100, 100)
    ontime: float = (sum(s["late_start_minutes"] <= 10 for s in sessions) / len(sessions)) * 100
    if mode == "normalized" and not has_login_in_90_days:
        return (0.4 * session + 0.2 * ontime) / 0.6
    return 0.4 * login + 0.4 * session + 0.2 * ontime


def performance_tier(metrics: Row) -> str:
    """§4.2 flags over the six rounded metrics, §4.3 first match."""
    verdicts = {
        "avg_rating": lambda v: "green" if v >= 4.5 else "red" if v < 3.5 else "",
        "first_session_success_rate": lambda v: "green" if v >= 85 else "red" if v < 70 else "",
        "reschedule_rate": lambda v: "green" if v <= 10 else "red" if v > 15 else "",
        "no_show_count": lambda v: "green" if v == 0 else "red" if v > 3 else "",
        "engagement_score": lambda v: "green" if v >= 80 else "red" if v < 60 else "",
        "learning_objectives_met_pct": lambda v: "green" if v >= 90 else "red" if v < 80 else "",
    }
    flags = [verdict(metrics[name]) for name, verdict in verdicts.items() if metrics[name] is not None]
    green, red = flags.count("green"), flags.count("red")
    if green >= 5 and red == 0:
        return "Exemplary"
    if red >= 3:
        return "At Risk"
    if red >= 1:
        return "Needs Attention"
    return "Strong" if green >= 3 else "Developing"


def response_time(event: Row) -> float | None:
    """`metadata.response_time_minutes` where it is a JSON number; `true` is none (§4.2)."""
    value = (event["metadata"] or {}).get("response_time_minutes")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def window_metrics(
    sessions: list[Row], feedback: list[Row], events: list[Row], *, has_login_in_90_days: bool, mode: str
) -> Row:
    """The figures of one window from its S, F and E (§4.1, §4.2)."""
    first = [s for s in sessions if s["session_number"] == 1]
    rating_of = {f["session_id"]: f["overall_rating"] for f in feedback}
    first_rated = [s for s in first if s["session_id"] in rating_of]
    known_objectives = [s for s in sessions if s["learning_objectives_met"] is not None]
    responses = [response_time(e) for e in events if e["event_type"] == "message_response"]
    logins = sum(e["event_type"] == "login" for e in events)
    n = len(sessions)
    metrics = {
        "sessions_completed": sum(not s["no_show"] and s["actual_start"] is not None for s in sessions),
        "avg_rating": rounded(mean([f["overall_rating"] for f in feedback])),
        "first_session_success_rate": rounded(
            percentage(sum(rating_of[s["session_id"]] >= 4 for s in first_rated), len(first_rated))
        ),
        "reschedule_rate": rounded(percentage(sum(s["tutor_initiated_reschedule"] for s in sessions), n)),
        "no_show_count": sum(s["no_show"] for s in sessions),
        "engagement_score": rounded(engagement_score(sessions, logins, has_login_in_90_days, mode)),
        "learning_objectives_met_pct": rounded(
            percentage(sum(s["learning_objectives_met"] for s in known_objectives), len(known_objectives))
        ),
        "response_time_avg_minutes": rounded(mean([r for r in responses if r is not None])),
    }
    metrics["performance_tier"] = performance_tier(metrics)
    # Computed but not stored (§4.2), published by us (§9):
    metrics["sessions_scheduled"] = n
    metrics["first_sessions_count"] = len(first)
    metrics["reschedule_count"] = sum(s["tutor_initiated_reschedule"] for s in sessions)
    metrics["feedback_count"] = len(feedback)
    metrics["no_show_rate_pct"] = rounded(percentage(metrics["no_show_count"], n))
    return metrics


NOT_STORED = ("sessions_scheduled", "first_sessions_count", "reschedule_count", "feedback_count", "no_show_rate_pct")


class Oracle:
    """What a set of payloads amounts to, whatever their order and however often each of them came.

    `payloads`: topic ("tutors", "sessions", "feedback", "tutor-events") -> payloads. `now_us`: when they arrived.
    `tie_break` orders versions of one entity that share a version time and differ; without it such a pair is an error.
    """

    def __init__(
        self,
        payloads: Mapping[str, Iterable[Payload]],
        now_us: int,
        *,
        naive_zone: tzinfo = UTC,
        tie_break: TieBreak = no_ties,
    ) -> None:
        def won(topic: str) -> dict[str, Row]:
            accepted = [p for p in payloads.get(topic, ()) if is_accepted(topic, p, now_us, naive_zone)]
            return winners(topic, accepted, naive_zone, tie_break)

        self.tutors, self.sessions, self.feedback = won("tutors"), won("sessions"), won("feedback")
        self.events = won("tutor-events")

    def tables(self) -> dict[str, dict[str, Row]]:
        """Table -> primary key -> stored row. What misses its parent is parked, so it is absent (law 11).

        `students` holds the stubs that the stored rows need; a writer may have made more of them.
        """
        tutors = self.tutors
        sessions = {key: row for key, row in self.sessions.items() if row["tutor_id"] in tutors}
        feedback = {
            row["feedback_id"]: row
            for row in self.feedback.values()
            if row["session_id"] in sessions and row["tutor_id"] in tutors
        }
        assert len(feedback) == len({row["session_id"] for row in feedback.values()}), "a feedback_id on two sessions"
        named_students = {row["student_id"] for row in [*sessions.values(), *feedback.values()]}
        return {
            "tutors": tutors,
            "students": {student_id: student_row(student_id) for student_id in named_students},
            "sessions": sessions,
            "student_feedback": feedback,
            "tutor_events": {key: row for key, row in self.events.items() if row["tutor_id"] in tutors},
        }

    def named_tutors(self) -> set[str]:
        """Every tutor with a row or in a winning row."""
        rows = [*self.tutors.values(), *self.sessions.values(), *self.feedback.values(), *self.events.values()]
        return {row["tutor_id"] for row in rows}

    def metrics(self, tutor_id: str, t_us: int, mode: str = "normalized") -> dict[str, Row]:
        """Window ("7day"...) -> its figures at instant `t_us`, tier as display name.

        Computed from the winning versions, the parked ones included: whether a parent has been written yet is a
        matter of the sink, not of the windows.
        """

        my_sessions = [s for s in self.sessions.values() if s["tutor_id"] == tutor_id]
        my_events = [e for e in self.events.values() if e["tutor_id"] == tutor_id]
        my_feedback = [
            (f, self.sessions[f["session_id"]]["scheduled_start"])  # the session may be another tutor's
            for f in self.feedback.values()
            if f["tutor_id"] == tutor_id and f["session_id"] in self.sessions
        ]

        def inside(moment_us: int, days: int) -> bool:
            return t_us - days * DAY_US <= moment_us < t_us

        has_login = any(e["event_type"] == "login" and inside(e["event_timestamp"], 90) for e in my_events)
        return {
            window: window_metrics(
                [s for s in my_sessions if inside(s["scheduled_start"], days)],
                [f for f, start_us in my_feedback if inside(start_us, days)],
                [e for e in my_events if inside(e["event_timestamp"], days)],
                has_login_in_90_days=has_login,
                mode=mode,
            )
            for window, days in WINDOW_DAYS.items()
        }

    def stored_metrics(self, tutor_id: str, t_us: int, mode: str = "normalized") -> dict[str, Row]:
        """The same as rows of `tutor_performance_metrics`: "SEVEN_DAY"... -> columns, tier as its NAME (§5.2)."""
        stored = {}
        for window, figures in self.metrics(tutor_id, t_us, mode).items():
            row = {column: value for column, value in figures.items() if column not in NOT_STORED}
            stored[WINDOW_NAME[window]] = row | {"performance_tier": TIER_NAME[row["performance_tier"]]}
        return stored
