"""What is told after the state was read back: events whose outcome hangs on what was known of their entities before.

A verdict on rows alone would not notice that the memory of homes came back wrong: nobody asks it until something comes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from tests.oracle import DAY_US, MINUTE_US, Oracle, Payload, Row
from tests.samples import feedback_payload, session_payload, tutor_event_payload, tutor_payload

MOST_OF_A_KIND = 40
HOUR_US = 60 * MINUTE_US
RECENT_US = 80 * DAY_US  # sessions in some window


def sequel(oracle: Oracle, seed: int) -> list[tuple[str, Payload]]:
    """(topic, payload) of valid events, each about something that the oracle knows."""
    rng, now_us = random.Random(seed), time.time_ns() // 1000
    tutors = sorted(oracle.tutors)
    recent = [
        row
        for row in oracle.sessions.values()
        if now_us - RECENT_US < row["scheduled_start"] < now_us and row["tutor_id"] in oracle.tutors
    ]
    unrated = [row for row in recent if row["session_id"] not in oracle.feedback]
    rated = [oracle.feedback[row["session_id"]] for row in recent if row["session_id"] in oracle.feedback]

    def some(rows: list[Row]) -> list[Row]:
        return rng.sample(rows, min(MOST_OF_A_KIND, len(rows)))

    def another(tutor_id: str) -> str:
        return rng.choice([other for other in tutors if other != tutor_id])

    def moved(row: Row, at_us: int) -> tuple[str, Payload]:
        return "sessions", session_payload(
            row["session_id"], another(row["tutor_id"]), row["scheduled_start"], at_us, no_show=True
        )

    def told() -> Iterator[tuple[str, Payload]]:
        for number, row in enumerate(some(recent)):  # half leave their tutor, half are too old to do so
            yield moved(row, now_us if number % 2 else row["updated_at"] - HOUR_US)
        for row in some(unrated):
            rating = rng.randrange(1, 6)
            yield (
                "feedback",
                feedback_payload(f"sequel-{row['session_id']}", row["session_id"], row["tutor_id"], rating, now_us),
            )
        for row in some(rated):  # too old
            yield (
                "feedback",
                feedback_payload(
                    row["feedback_id"], row["session_id"], row["tutor_id"], 1, row["submitted_at"] - HOUR_US
                ),
            )
        for number, tutor_id in enumerate(rng.sample(tutors, min(MOST_OF_A_KIND, len(tutors)))):
            yield "sessions", session_payload(f"sequel-{tutor_id}", tutor_id, now_us - HOUR_US, now_us)
            yield "tutor-events", tutor_event_payload(f"sequel-{tutor_id}", tutor_id, "login", now_us)
            at_us = now_us if number % 2 else oracle.tutors[tutor_id]["updated_at"] - HOUR_US
            yield "tutors", tutor_payload(tutor_id, at_us, location=f"Porto {number}")

    return list(told())
