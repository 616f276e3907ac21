"""The present: a few events a second with everything real producers do to a stream, and a tutor who falls a tier."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from tutormax_streams.simulation.payloads import (
    Record,
    feedback_record,
    session_record,
    text,
    tutor_event_record,
    tutor_record,
)
from tutormax_streams.simulation.profiles import Manner, SimulatedTutor, population

DAY = 86_400
LONGEST_SECONDS = 2 * 3_600  # of a session: one that began that long ago is over
REMEMBERED = 500  # records that corrections, moves and duplicates may come back to
FALL_EVERY_SECONDS = 4  # one bad session of the falling tutor
FALL_SESSIONS = 40
NOBODY_CAME = Manner(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 120.0, (0.0, 0.0, 0.0, 1.0))
BADLY_DONE = Manner(0.0, 1.0, 1.0, 0.0, 0.2, 0.0, 120.0, (0.0, 0.0, 0.0, 1.0))


class Trickle:
    """Live events of the population of `seed`, `events_per_second` from `start` (aware) on, without end.

    Event times depend on the arguments alone, not on when `due` is called. Half of the events are sessions that are
    just over, most others feedback for them; the rest are tutor events, corrections, sessions that move to another
    tutor, profiles and plain duplicates. Besides, the population's first tutor (`FALLING_TUTOR_ID`) has a bad session every four seconds for the first
    minutes: from the best tier down to Needs Attention within one.
    """

    def __init__(self, seed: int, tutors: int, start: datetime, events_per_second: float = 20.0) -> None:
        self._chance = random.Random(f"trickle {seed}")
        self._falling, *self._others = population(seed, tutors)
        if not self._others:
            raise ValueError("a trickle needs at least two tutors, since sessions move between them")
        self._start = start.timestamp()
        self._interval = 1.0 / events_per_second
        self._told = 0
        self._fallen = 0
        self._sessions: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self._unrated: deque[tuple[SimulatedTutor, dict[str, Any]]] = deque(maxlen=REMEMBERED)
        self._recent: deque[Record] = deque(maxlen=REMEMBERED)
        self._kinds: dict[Callable[[int], Record], float] = {
            self._session: 0.50,
            self._feedback: 0.30,
            self._tutor_event: 0.10,
            self._correction: 0.04,
            self._move: 0.02,
            self._duplicate: 0.03,
            self._profile: 0.01,
        }

    def due(self, now: datetime) -> list[Record]:
        """The events since the last call, up to `now`."""
        records: list[Record] = []
        until = now.timestamp()
        while (at := self._start + (self._told + 1) * self._interval) <= until:
            records += self._fall(at)
            (kind,) = self._chance.choices(tuple(self._kinds), tuple(self._kinds.values()))
            record = kind(int(at))
            records.append(record)
            self._recent.append(record)
            self._told += 1
        return records

    def _fall(self, at: float) -> Iterator[Record]:
        """The falling tutor's bad sessions up to `at`, every second one with a bad word for it."""
        while self._fallen < FALL_SESSIONS and self._start + (self._fallen + 1) * FALL_EVERY_SECONDS <= at:
            self._fallen += 1
            second = int(at)
            self._falling.manner = NOBODY_CAME if self._fallen % 2 else BADLY_DONE
            session = session_record(self._chance, self._falling, second - LONGEST_SECONDS, booked=second - DAY)
            yield session
            if not session.payload["no_show"]:
                yield feedback_record(self._chance, self._falling, session.payload, second)

    def _session(self, now: int) -> Record:
        tutor = self._chance.choice(self._others)
        record = session_record(self._chance, tutor, now - LONGEST_SECONDS, booked=now - DAY)
        self._sessions.append(dict(record.payload))
        if not record.payload["no_show"]:
            self._unrated.append((tutor, record.payload))
        return record

    def _feedback(self, now: int) -> Record:
        if not self._unrated:
            return self._session(now)
        tutor, session = self._unrated.popleft()
        return feedback_record(self._chance, tutor, session, now)

    def _tutor_event(self, now: int) -> Record:
        event_type = self._chance.choice(("login", "message_response"))
        return tutor_event_record(self._chance, self._chance.choice(self._others), event_type, now)

    def _correction(self, now: int) -> Record:
        def corrected(session: dict[str, Any]) -> dict[str, Any]:
            return {"learning_objectives_met": not session["learning_objectives_met"]}

        return self._revision(now, corrected)

    def _move(self, now: int) -> Record:
        return self._revision(now, lambda _: {"tutor_id": self._chance.choice(self._others).tutor_id})

    def _revision(self, now: int, changes: Callable[[dict[str, Any]], dict[str, Any]]) -> Record:
        if not self._sessions:
            return self._session(now)
        session = self._chance.choice(self._sessions)
        if session["updated_at"] >= text(now):  # two versions of one second would leave the choice to their digests
            return self._session(now)
        session.update(changes(session), updated_at=text(now))
        return Record("sessions", session["session_id"], dict(session))

    def _duplicate(self, now: int) -> Record:
        return self._chance.choice(self._recent) if self._recent else self._session(now)

    def _profile(self, now: int) -> Record:
        return tutor_record(self._chance.choice(self._others), now)
