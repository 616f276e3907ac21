"""CPU cost of a tutor's windows at the platform's scale: `python -m benchmarks.windows` prints µs per call."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from models.facts import DAY_US, EventFact, EventPart, Fact, FeedbackPart, SessionFact, SessionPart
from models.windows import TutorFacts

NOW_US = 1_770_000_000_000_000
TUTOR = "tutor_00001"


def facts(sessions: int, feedback: int, logins: int, responses: int, seed: int = 1) -> list[Fact]:
    """Facts of one tutor spread evenly over the 90 days before `NOW_US`."""
    chance = random.Random(seed)

    def instant() -> int:
        return NOW_US - chance.randrange(90 * DAY_US)

    held: list[Fact] = []
    for number in range(sessions):
        no_show = chance.random() < 0.05
        start = instant()
        session = SessionPart(
            start,
            b"12345678",
            TUTOR,
            start,
            is_first=chance.random() < 0.2,
            completed=not no_show,
            no_show=no_show,
            rescheduled=chance.random() < 0.1,
            on_time=chance.random() < 0.9,
            engagement=round(chance.random(), 3),
            objectives_met=chance.random() < 0.8,
        )
        rated = FeedbackPart(start, b"12345678", TUTOR, chance.randint(1, 5)) if number < feedback else None
        held.append(SessionFact(TUTOR, f"{chance.getrandbits(128):032x}", session, rated))
    for number in range(logins + responses):
        kind, minutes = ("login", None) if number < logins else ("message_response", chance.uniform(1, 60))
        held.append(EventFact(TUTOR, f"e{number}", EventPart(instant(), b"12345678", TUTOR, kind, minutes)))
    chance.shuffle(held)
    return held


def microseconds(call: Callable[[], object], rounds: int = 500) -> float:
    """Best of five means of CPU time."""
    means = []
    for _ in range(5):
        began = time.process_time_ns()
        for _ in range(rounds):
            call()
        means.append((time.process_time_ns() - began) / rounds / 1000)
    return min(means)


def main() -> None:
    print(f"CPython {sys.version.split()[0]}, CPU µs per call")
    for sessions, feedback, logins, responses in ((360, 280, 0, 0), (360, 280, 90, 60), (700, 560, 180, 120)):
        held = facts(sessions, feedback, logins, responses)
        tutor = TutorFacts(TUTOR, held)
        print(f"{sessions} sessions, {feedback} rated, {logins} logins, {responses} responses over 90 days:")
        for name, call in (
            ("windows, normalized", lambda tutor=tutor: tutor.windows(NOW_US, "normalized")),
            ("windows, upstream", lambda tutor=tutor: tutor.windows(NOW_US, "upstream")),
            ("next_change", lambda tutor=tutor: tutor.next_change(NOW_US)),
            ("put, replacing", lambda tutor=tutor, fact=held[0]: tutor.put(fact)),
            ("built from facts", lambda held=held: TutorFacts(TUTOR, held)),
        ):
            rounds = 100 if name.startswith("built") else 500
            print(f"  {name:<22}{microseconds(call, rounds):8.1f}")


if __name__ == "__main__":
    main()
