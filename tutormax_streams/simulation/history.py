"""The past: what the platform would have told us over some months, in the order in which it would have said it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from operator import itemgetter

from tutormax_streams.simulation.payloads import (
    FEEDBACK_COVERAGE,
    Record,
    ended,
    feedback_record,
    session_record,
    text,
    tutor_event_record,
    tutor_record,
)
from tutormax_streams.simulation.profiles import SimulatedTutor, population

HOUR = 3_600
DAY = 24 * HOUR
QUARTER = 900
OPENS, CLOSES = 6 * 4, 21 * 4  # quarter hours of the day at which sessions may start


def history(seed: int, tutors: int, days: int, now: datetime, *, corrections: float = 0.02) -> Iterator[Record]:
    """All events of the `days` before `now` (aware), the tutors first and then by the time at which each became known.

    No event is known later than `now`: neither `updated_at` nor `submitted_at` lies ahead. `corrections` is the share
    of sessions that are told twice, the second time with other figures and a later `updated_at`.
    """
    chance = random.Random(f"history {seed}")
    end = int(now.timestamp())
    people = population(seed, tutors)
    for tutor in people:
        yield tutor_record(tutor, end)
    waiting: list[tuple[int, Record]] = []  # with the second at which the record becomes known
    for midnight in range((end // DAY - days) * DAY, end + 1, DAY):
        for tutor in people:
            if midnight >= end - min(days, tutor.tenure_days) * DAY:
                waiting += _day(chance, tutor, midnight, corrections)
        waiting.sort(key=itemgetter(0), reverse=True)
        tomorrow = min(midnight + DAY, end + 1)
        while waiting and waiting[-1][0] < tomorrow:
            yield waiting.pop()[1]


def _day(
    chance: random.Random, tutor: SimulatedTutor, midnight: int, corrections: float
) -> Iterator[tuple[int, Record]]:
    """What the tutor does on one day, some of it told on the next."""
    draw = chance.random
    manner = tutor.manner
    for _ in range(int(tutor.sessions_per_week / 7 + draw())):
        start = midnight + (OPENS + int(draw() * (CLOSES - OPENS + 1))) * QUARTER
        record = session_record(chance, tutor, start, booked=start - DAY - int(draw() * 6 * DAY))
        session = record.payload
        yield ended(start, session), record
        if not session["no_show"]:
            if draw() < corrections:
                told = start + 3 * HOUR
                corrected = {
                    "learning_objectives_met": not session["learning_objectives_met"],
                    "updated_at": text(told),
                }
                yield told, Record("sessions", record.key, {**session, **corrected})
            if draw() < FEEDBACK_COVERAGE:
                submitted = start + 2 * HOUR + int(draw() * 22 * HOUR)
                yield submitted, feedback_record(chance, tutor, session, submitted)
        if tutor.has_tutor_events:
            for _ in range(int(manner.logins_per_session + draw())):
                at = start - 600
                yield at, tutor_event_record(chance, tutor, "login", at)
            if draw() < 0.5:
                at = start + 2 * HOUR
                yield at, tutor_event_record(chance, tutor, "message_response", at)
