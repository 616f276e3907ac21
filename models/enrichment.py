"""What contract §3 derives from a single event (and, for feedback, from its session's start). Never stored.

Values follow the platform's enrichment: a field whose inputs are unknown is left out, calendar fields are taken in
the zone that the producer wrote, ages in whole days of UTC.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Final, TypeAlias

from models.events import Event, Feedback, Session, Tutor

Derived: TypeAlias = dict[str, bool | int | float | str]

_SECOND_US: Final = 1_000_000
_HOUR_US: Final = 3_600 * _SECOND_US
_DAY_US: Final = 24 * _HOUR_US
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

# Hour of the day -> name: 5-11 morning, 12-16 afternoon, 17-21 evening.
_TIME_OF_DAY: Final = ("night",) * 5 + ("morning",) * 7 + ("afternoon",) * 5 + ("evening",) * 5 + ("night",) * 2


DELAY: Final = "feedback_delay_hours"
"""The one field that needs two events: a feedback has it once its session is known."""


def derived(event: Event, now_us: int) -> Derived:
    """The fields that follow from an event alone, as of `now_us`. Tutor events have none."""
    if type(event) is Session:
        return _of_session(event)
    if type(event) is Feedback:
        return _of_feedback(event)
    if type(event) is Tutor:
        return _of_tutor(event, now_us)
    return {}


def _of_tutor(tutor: Tutor, now_us: int) -> Derived:
    tenure_days = max((now_us - tutor.onboarding_us) // _DAY_US, 0)
    updated_local_us = tutor.updated_us + tutor.updated_offset_seconds * _SECOND_US
    return {
        "tenure_days": tenure_days,
        "is_new_tutor": tenure_days < 30,
        "experience_level": "junior" if tenure_days < 90 else "mid" if tenure_days < 365 else "senior",
        "subject_count": len(tutor.subjects),
        "is_active_today": updated_local_us // _DAY_US == now_us // _DAY_US,
    }


def _of_session(session: Session) -> Derived:
    local_us = session.scheduled_start_us + session.start_offset_seconds * _SECOND_US
    day, time_us = divmod(local_us, _DAY_US)
    is_weekend, week, month = _calendar(day)
    fields: Derived = {
        "is_weekend": is_weekend,
        "time_of_day": _TIME_OF_DAY[time_us // _HOUR_US],
        "week_of_year": week,
        "month_of_year": month,
        "is_late_start": session.late_start_minutes > 5,
    }
    if session.actual_start_us is not None:
        # The planned length on purpose: the platform ignores the delay.
        fields["actual_duration_minutes"] = max(0, session.duration_minutes)
    return fields


@lru_cache(maxsize=1024)
def _calendar(day: int) -> tuple[bool, int, int]:
    """Weekend or not, ISO week and month of a day counted from 1970-01-01."""
    on = date.fromordinal(_EPOCH_ORDINAL + day)
    return on.weekday() >= 5, on.isocalendar().week, on.month


def _of_feedback(feedback: Feedback) -> Derived:
    fields: Derived = {
        "is_positive": feedback.overall_rating >= 4,
        "is_poor": feedback.overall_rating < 3,
        "has_text_feedback": bool(feedback.free_text_feedback.strip()),
    }
    mean, variance = _category_figures(
        feedback.subject_knowledge_rating,
        feedback.communication_rating,
        feedback.patience_rating,
        feedback.engagement_rating,
        feedback.helpfulness_rating,
    )
    if mean is not None and variance is not None:
        fields["avg_category_rating"] = mean
        fields["category_variance"] = variance
    return fields


def delay_hours(submitted_us: int, session_start_us: int) -> float:
    """`DELAY`: hours from a session's start to its feedback, negative for one given ahead."""
    return round((submitted_us - session_start_us) / _HOUR_US, 2)


@lru_cache(maxsize=8192)  # five ratings of 1 to 5 or none: 7,776 cases
def _category_figures(*ratings: int | None) -> tuple[float, float] | tuple[None, None]:
    """Mean and population variance of the ratings that are there."""
    known = [rating for rating in ratings if rating is not None]
    if not known:
        return None, None
    count, total = len(known), sum(known)
    # In integers up to the one division, so that no rounding error precedes the rounding.
    squares = sum(rating * rating for rating in known)
    return round(total / count, 2), round((count * squares - total * total) / (count * count), 2)
