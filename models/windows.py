"""The 7/30/90-day windows over everything remembered of one tutor, exact for any instant.

1. As of `t` a window of N days holds what stands in ``[t - N days, t)``: start included, end excluded, in µs:

           t-90d            t-30d       t-7d     t
             [================[===========[=======)        a start at t-7d is in all three, one at t in none
               90day            30day       7day

2. What counts (contract §4.1): S, the sessions that are the tutor's; F, the ratings that are the tutor's, placed at
   their *session's* start, whoever gave that session; E, tutor events. A rating without a known session is not in F.
3. Facts stand sorted by their place in time, in parallel columns. A window is a slice between two bisections, so
   nothing is ever added up incrementally and no error can drift: integers are counted, floats go to `math.fsum`.
4. The caller merges versions before `put`: here the last one put under an id is what there is.

Known weakness: a `put` moves the tails of the columns, O(n) in bytes moved. At the few thousand facts a tutor can
gather in 121 days that is far below the cost of decoding the fact.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Final

from models.facts import DAY_US, EventFact, EventPart, Fact, SessionFact, StandingPart
from models.metrics import WINDOW_DAYS, EngagementMode, WindowInputs, WindowMetrics, window_metrics
from models.rows import metric_id

LOGIN: Final = "login"
RESPONSE: Final = "message_response"

_SPANS_US: Final = {window: days * DAY_US for window, days in WINDOW_DAYS.items()}
_LONGEST_US: Final = max(_SPANS_US.values())

# What a session fact counts for, one bit each; a fact takes a byte in each of two columns.
_SCHEDULED, _COMPLETED, _NO_SHOW, _RESCHEDULED, _ON_TIME, _KNOWN, _MET, _FIRST = (1 << bit for bit in range(8))
_RATED, _FIRST_RATED, _FIRST_SUCCEEDED = (1 << bit for bit in range(3))


def _selector(bit: int) -> bytes:
    """Translation table that leaves 1 where `bit` is set: ``column.translate(table).count(1)`` counts it in C."""
    return bytes(1 if byte & bit else 0 for byte in range(256))


_SESSION_SELECTORS: Final = {
    "scheduled": _selector(_SCHEDULED),
    "completed": _selector(_COMPLETED),
    "no_shows": _selector(_NO_SHOW),
    "rescheduled": _selector(_RESCHEDULED),
    "on_time": _selector(_ON_TIME),
    "objectives_known": _selector(_KNOWN),
    "objectives_met": _selector(_MET),
    "first_sessions": _selector(_FIRST),
}
_RATING_SELECTORS: Final = {
    "ratings": _selector(_RATED),
    "first_rated": _selector(_FIRST_RATED),
    "first_succeeded": _selector(_FIRST_SUCCEEDED),
}


class TutorFacts:
    """What is remembered of one tutor, laid out for computing windows; `standing` is who the tutor is, if known."""

    __slots__ = ("_events", "_sessions", "standing", "tutor_id")

    def __init__(self, tutor_id: str, facts: Iterable[Fact] = ()) -> None:
        """Lays out `facts`, the last one under an id counting. Much quicker than as many `put`s."""
        self.tutor_id = tutor_id
        self.standing: StandingPart | None = None
        sessions: dict[str, SessionFact] = {}
        self._events = _Events(tutor_id)
        for fact in facts:
            if isinstance(fact, SessionFact):
                self._own(fact)
                sessions[fact.session_id] = fact
            else:
                self.put(fact)
        self._sessions = _Sessions(tutor_id, sessions.values())

    def put(self, fact: Fact) -> None:
        """Remember `fact` in place of what stood under its id. Raises ValueError if it is addressed to another tutor."""
        self._own(fact)
        if isinstance(fact, SessionFact):
            self._sessions.put(fact)
        elif isinstance(fact, EventFact):
            self._events.put(fact.event_id, fact.event)
        else:
            self.standing = fact.standing

    def forget(self, fact: Fact) -> None:
        """Drop what stands under the id of `fact`, whatever its content; nothing happens where nothing stands."""
        if isinstance(fact, SessionFact):
            self.forget_session(fact.session_id)
        elif isinstance(fact, EventFact):
            self.forget_event(fact.event_id)
        else:
            self.standing = None

    def forget_session(self, session_id: str) -> None:
        self._sessions.remove(session_id)

    def forget_event(self, event_id: str) -> None:
        self._events.remove(event_id)

    def windows(self, t_us: int, mode: EngagementMode) -> dict[str, WindowMetrics]:
        """The three windows as of `t_us`, by name. Never raises for facts of the declared types."""
        login_known = self._events.login_count(t_us - _LONGEST_US, t_us) > 0
        return {
            window: window_metrics(
                window,
                metric_id(self.tutor_id, window),
                self._inputs(t_us - span_us, t_us),
                mode,
                login_known=login_known,
            )
            for window, span_us in _SPANS_US.items()
        }

    def next_change(self, t_us: int) -> int | None:
        """The smallest instant after `t_us` at which time alone moves a fact into or out of a window; None if never.

        What stands at `s` is in a window of N days for s < t <= s + N days: it enters at s + 1 µs and leaves at
        s + N days + 1 µs.
        """
        instants = [
            column[index] + span_us + 1
            for column in (self._sessions.starts, *self._events.times())
            for span_us in (0, *_SPANS_US.values())
            if (index := bisect_left(column, t_us - span_us)) < len(column)
        ]
        return min(instants, default=None)

    def _inputs(self, from_us: int, to_us: int) -> WindowInputs:
        counts, rating_sum, scores = self._sessions.window(from_us, to_us)
        return WindowInputs(
            **counts,
            rating_sum=rating_sum,
            logins=self._events.login_count(from_us, to_us),
            engagement_scores=scores,
            response_minutes=self._events.response_minutes(from_us, to_us),
        )

    def _own(self, fact: Fact) -> None:
        if fact.tutor_id != self.tutor_id:
            raise ValueError(f"a fact addressed to {fact.tutor_id} among those of {self.tutor_id}")


class _Sessions:
    """The session facts that count, in parallel columns sorted by the session's start."""

    __slots__ = ("_ids", "_rating_marks", "_ratings", "_scores", "_session_marks", "_start_of", "_tutor_id", "starts")

    def __init__(self, tutor_id: str, facts: Iterable[SessionFact]) -> None:
        self._tutor_id = tutor_id
        lines = [(line, fact.session_id) for fact in facts if (line := _line(fact, tutor_id)) is not None]
        lines.sort(key=_start)
        self.starts = [line[0] for line, _ in lines]
        self._session_marks = bytearray(line[1] for line, _ in lines)
        self._rating_marks = bytearray(line[2] for line, _ in lines)
        self._ratings = [line[3] for line, _ in lines]
        self._scores = [line[4] for line, _ in lines]
        self._ids = [session_id for _, session_id in lines]
        self._start_of = dict(zip(self._ids, self.starts, strict=True))

    def put(self, fact: SessionFact) -> None:
        self.remove(fact.session_id)
        line = _line(fact, self._tutor_id)
        if line is None:
            return
        start_us, session_marks, rating_marks, rating, score = line
        index = bisect_left(self.starts, start_us)
        self.starts.insert(index, start_us)
        self._session_marks.insert(index, session_marks)
        self._rating_marks.insert(index, rating_marks)
        self._ratings.insert(index, rating)
        self._scores.insert(index, score)
        self._ids.insert(index, fact.session_id)
        self._start_of[fact.session_id] = start_us

    def remove(self, session_id: str) -> None:
        start_us = self._start_of.pop(session_id, None)
        if start_us is None:
            return
        index = self._ids.index(session_id, bisect_left(self.starts, start_us))
        columns = (self.starts, self._session_marks, self._rating_marks, self._ratings, self._scores, self._ids)
        for column in columns:
            del column[index]

    def window(self, from_us: int, to_us: int) -> tuple[dict[str, int], int, list[float]]:
        """Counts by name, sum of ratings, and known engagement scores of what starts in [from, to)."""
        low, high = bisect_left(self.starts, from_us), bisect_left(self.starts, to_us)
        marks = self._session_marks[low:high]
        counts = {name: marks.translate(selector).count(1) for name, selector in _SESSION_SELECTORS.items()}
        marks = self._rating_marks[low:high]
        for name, selector in _RATING_SELECTORS.items():
            counts[name] = marks.translate(selector).count(1)
        scores = [score for score in self._scores[low:high] if score is not None]
        return counts, sum(self._ratings[low:high]), scores


# start, session marks, rating marks, rating (0 where none), engagement score
_Line = tuple[int, int, int, int, float | None]


def _start(line: tuple[_Line, str]) -> int:
    return line[0][0]


def _line(fact: SessionFact, tutor_id: str) -> _Line | None:
    """What a session fact counts for; None if for nothing (start unknown, or both components elsewhere)."""
    session, feedback = fact.session, fact.feedback
    if session is None:
        return None
    session_marks = rating_marks = rating = 0
    score = None
    ours = session.tutor_id == tutor_id
    if ours:
        session_marks = (
            _SCHEDULED
            | (_COMPLETED if session.completed else 0)
            | (_NO_SHOW if session.no_show else 0)
            | (_RESCHEDULED if session.rescheduled else 0)
            | (_ON_TIME if session.on_time else 0)
            | (0 if session.objectives_met is None else _KNOWN | _MET if session.objectives_met else _KNOWN)
            | (_FIRST if session.is_first else 0)
        )
        score = _finite(session.engagement)
    if feedback is not None and feedback.tutor_id == tutor_id:
        rating = feedback.rating
        rating_marks = _RATED
        if ours and session.is_first:
            rating_marks |= _FIRST_RATED | _FIRST_SUCCEEDED if rating >= 4 else _FIRST_RATED
    elif not ours:
        return None
    return (session.start_us, session_marks, rating_marks, rating, score)


class _Events:
    """The tutor events that count: when logins were, and when responses were and how long they took."""

    __slots__ = ("_held", "_login_times", "_response_minutes", "_response_times", "_tutor_id")

    def __init__(self, tutor_id: str) -> None:
        self._tutor_id = tutor_id
        self._login_times: array[int] = array("q")
        self._response_times: array[int] = array("q")
        self._response_minutes: array[float] = array("d")
        self._held: dict[str, tuple[int, float | None]] = {}  # by id: time, minutes of a response (None: a login)

    def put(self, event_id: str, event: EventPart) -> None:
        self.remove(event_id)
        if event.tutor_id != self._tutor_id:
            return
        time_us = event.version_us
        if event.event_type == LOGIN:
            self._login_times.insert(bisect_left(self._login_times, time_us), time_us)
            self._held[event_id] = (time_us, None)
        elif event.event_type == RESPONSE and (minutes := _finite(event.response_time_minutes)) is not None:
            index = bisect_left(self._response_times, time_us)
            self._response_times.insert(index, time_us)
            self._response_minutes.insert(index, minutes)
            self._held[event_id] = (time_us, minutes)

    def remove(self, event_id: str) -> None:
        held = self._held.pop(event_id, None)
        if held is None:
            return
        time_us, minutes = held
        # Entries alike in time and figure are interchangeable: any one of them may go.
        if minutes is None:
            del self._login_times[bisect_left(self._login_times, time_us)]
        else:
            index = self._response_minutes.index(minutes, bisect_left(self._response_times, time_us))
            del self._response_times[index], self._response_minutes[index]

    def times(self) -> Iterator[array[int]]:
        yield self._login_times
        yield self._response_times

    def login_count(self, from_us: int, to_us: int) -> int:
        return bisect_left(self._login_times, to_us) - bisect_left(self._login_times, from_us)

    def response_minutes(self, from_us: int, to_us: int) -> array[float]:
        low, high = bisect_left(self._response_times, from_us), bisect_left(self._response_times, to_us)
        return self._response_minutes[low:high]


def _finite(value: float | None) -> float | None:
    # Only a row loaded from the database could hold NaN or Infinity; no mean survives them.
    return value if value is not None and isfinite(value) else None
