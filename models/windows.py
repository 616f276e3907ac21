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
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite, isnan, nan
from typing import Final, TypeAlias

from models.facts import (
    DAY_US,
    EventFact,
    EventPart,
    Fact,
    FeedbackPart,
    SessionFact,
    SessionPart,
    SessionParts,
    StandingFact,
    StandingPart,
)
from models.metrics import (
    ENGAGEMENT_MODES,
    WINDOW_DAYS,
    EngagementMode,
    PoorFirstSession,
    Recent,
    WindowInputs,
    WindowMetrics,
    engagement_readings,
    window_metrics,
)
from models.rows import metric_id

LOGIN: Final = "login"
RESPONSE: Final = "message_response"

_SPANS_US: Final = {window: days * DAY_US for window, days in WINDOW_DAYS.items()}
_LONGEST_US: Final = max(_SPANS_US.values())

# What a session fact counts for, one bit each; a fact takes a byte in each of two columns.
_SCHEDULED, _COMPLETED, _NO_SHOW, _RESCHEDULED, _ON_TIME, _KNOWN, _MET, _FIRST = (1 << bit for bit in range(8))
_RATED, _FIRST_RATED, _FIRST_SUCCEEDED, _FIRST_POOR = (1 << bit for bit in range(4))
_POOR_RATING = 3  # below it


def _selector(bit: int) -> bytes:
    """Table that leaves 1 where `bit` is set: ``column.translate(table).count(1)`` counts it at the speed of C."""
    return bytes(1 if marks & bit else 0 for marks in range(256))


# By the count of `WindowInputs` that each makes.
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
_LATE_FIRST: Final = bytes(marks & (_FIRST | _ON_TIME) == _FIRST for marks in range(256))
_POOR_FIRST: Final = _selector(_FIRST_POOR)


class TutorFacts:
    """What is remembered of one tutor, laid out for computing windows; `standing` is who the tutor is, if known."""

    __slots__ = ("_events", "_metric_ids", "_sessions", "standing", "tutor_id")

    def __init__(
        self, tutor_id: str, facts: Iterable[Fact] = (), sessions: Iterable[tuple[str, SessionParts]] = ()
    ) -> None:
        """Lays out `facts`, the last one under an id counting, and `sessions` by other ids; quicker than many `put`s."""
        self.tutor_id = tutor_id
        self.standing: StandingPart | None = None
        self._metric_ids = {window: metric_id(tutor_id, window) for window in _SPANS_US}
        self._events = _Events()
        lines = {id_: _line(id_, parts.session, parts.feedback, tutor_id) for id_, parts in sessions}
        for fact in facts:
            if fact.tutor_id != tutor_id:
                raise _stray(fact, tutor_id)
            if isinstance(fact, SessionFact):
                lines[fact.session_id] = _line(fact.session_id, fact.session, fact.feedback, tutor_id)
            else:
                self._put_other(fact)
        self._sessions = _Sessions([line for line in lines.values() if line is not None])

    @property
    def held(self) -> int:
        """How many facts count and take memory."""
        return len(self._sessions.starts) + self._events.held

    def put(self, fact: Fact) -> None:
        """Remember `fact` in place of what stood under its id. Raises ValueError if it is addressed to another tutor."""
        if fact.tutor_id != self.tutor_id:
            raise _stray(fact, self.tutor_id)
        if isinstance(fact, SessionFact):
            self._sessions.remove(fact.session_id)
            line = _line(fact.session_id, fact.session, fact.feedback, self.tutor_id)
            if line is not None:
                self._sessions.put(line)
        else:
            self._put_other(fact)

    def _put_other(self, fact: EventFact | StandingFact) -> None:
        if isinstance(fact, StandingFact):
            self.standing = fact.standing
        else:
            self._events.remove(fact.event_id)
            if fact.event.tutor_id == self.tutor_id:
                self._events.put(fact.event_id, fact.event)

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
        events = self._events
        login_known = events.logins(t_us - _LONGEST_US, t_us) > 0
        starts = [t_us - span_us for span_us in _SPANS_US.values()]
        windows = {}
        for window, from_us, (counts, rating_sum, engagement) in zip(
            _SPANS_US, starts, self._sessions.windows(starts, t_us, mode), strict=True
        ):
            inputs = WindowInputs(
                **counts,
                rating_sum=rating_sum,
                logins=events.logins(from_us, t_us),
                engagement=engagement,
                response_minutes=events.response_minutes(from_us, t_us),
            )
            windows[window] = window_metrics(window, self._metric_ids[window], inputs, mode, login_known=login_known)
        return windows

    def recent(self, t_us: int) -> Recent:
        """Poor first sessions of the 7 days before `t_us`, in the order of their starts, and reschedules of 14."""
        return self._sessions.recent(t_us)

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


def _stray(fact: Fact, tutor_id: str) -> ValueError:
    return ValueError(f"a fact addressed to {fact.tutor_id} among those of {tutor_id}")


# start, id, session marks, rating marks, rating (0 for none), engagement score as stored (NaN for none)
_Line: TypeAlias = tuple[int, str, int, int, int, float]


def _line(session_id: str, session: SessionPart | None, feedback: FeedbackPart | None, tutor_id: str) -> _Line | None:
    """What a session counts for; None if for nothing (start unknown, or both components elsewhere)."""
    if session is None:
        return None
    ours = session.tutor_id == tutor_id
    rated = feedback is not None and feedback.tutor_id == tutor_id
    session_marks = rating_marks = rating = 0
    score = nan
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
    elif not rated:
        return None
    if feedback is not None and rated:
        rating = feedback.rating
        rating_marks = _RATED
        if ours and session.is_first:
            rating_marks |= _FIRST_RATED | _FIRST_SUCCEEDED if rating >= 4 else _FIRST_RATED
            if rating < _POOR_RATING:
                rating_marks |= _FIRST_POOR
    return (session.start_us, session_id, session_marks, rating_marks, rating, score)


class _Sessions:
    """The session facts that count, in parallel columns sorted by the session's start."""

    __slots__ = (
        "_engagement",
        "_ids",
        "_rating_marks",
        "_ratings",
        "_session_marks",
        "_start_of",
        "_unscored",
        "starts",
    )

    def __init__(self, lines: list[_Line]) -> None:
        """Lays out lines of different ids."""
        lines.sort()
        self.starts = [line[0] for line in lines]
        self._ids = [line[1] for line in lines]
        self._session_marks = bytearray([line[2] for line in lines])
        self._rating_marks = bytearray([line[3] for line in lines])
        self._ratings = array("i", [line[4] for line in lines])
        scores = [line[5] for line in lines]
        self._engagement = {mode: array("d", engagement_readings(scores, mode)) for mode in ENGAGEMENT_MODES}
        self._unscored = sum(map(isnan, scores))
        self._start_of = dict(zip(self._ids, self.starts, strict=True))

    def put(self, line: _Line) -> None:
        """Add a line under an id that is not here."""
        start_us, session_id, session_marks, rating_marks, rating, score = line
        index = bisect_left(self.starts, start_us)
        self.starts.insert(index, start_us)
        self._ids.insert(index, session_id)
        self._session_marks.insert(index, session_marks)
        self._rating_marks.insert(index, rating_marks)
        self._ratings.insert(index, rating)
        for mode, scores in self._engagement.items():
            scores.insert(index, engagement_readings((score,), mode)[0])
        self._unscored += isnan(score)
        self._start_of[session_id] = start_us

    def remove(self, session_id: str) -> None:
        start_us = self._start_of.pop(session_id, None)
        if start_us is None:
            return
        index = self._ids.index(session_id, bisect_left(self.starts, start_us))
        self._unscored -= isnan(self._engagement["upstream"][index])
        del self.starts[index], self._ids[index], self._session_marks[index], self._rating_marks[index]
        del self._ratings[index]
        for scores in self._engagement.values():
            del scores[index]

    def windows(
        self, starts: Sequence[int], to_us: int, mode: EngagementMode
    ) -> Iterator[tuple[dict[str, int], int, Sequence[float]]]:
        """Of each window [start, to): counts by their name in `WindowInputs`, sum of ratings, engagement scores."""
        lows = [bisect_left(self.starts, from_us) for from_us in starts]
        high = bisect_left(self.starts, to_us)
        lowest = min(lows)
        marks = self._session_marks[lowest:high]
        columns = {name: marks.translate(selector) for name, selector in _SESSION_SELECTORS.items()}
        marks = self._rating_marks[lowest:high]
        columns |= {name: marks.translate(selector) for name, selector in _RATING_SELECTORS.items()}
        for low in lows:
            within = low - lowest
            scores: Sequence[float] = self._engagement[mode][low:high]
            if self._unscored:
                scores = [score for score in scores if not isnan(score)]
            counts = {name: column.count(1, within) for name, column in columns.items()}
            yield counts, sum(self._ratings[low:high]), scores

    def recent(self, t_us: int) -> Recent:
        fortnight, week, high = (bisect_left(self.starts, t_us - days * DAY_US) for days in (14, 7, 0))
        reschedules = self._session_marks[fortnight:high].translate(_SESSION_SELECTORS["rescheduled"]).count(1)
        late = self._session_marks[week:high].translate(_LATE_FIRST)
        poor = self._rating_marks[week:high].translate(_POOR_FIRST)
        if 1 not in late and 1 not in poor:
            return Recent((), reschedules)
        found = [
            PoorFirstSession(self._ids[week + index], self._ratings[week + index] or None, bool(is_late))
            for index, (is_late, is_poor) in enumerate(zip(late, poor, strict=True))
            if is_late or is_poor
        ]
        return Recent(tuple(found), reschedules)


class _Events:
    """The tutor events that count: when logins were, and when responses were and how long they took."""

    __slots__ = ("_held", "_login_times", "_response_minutes", "_response_times")

    def __init__(self) -> None:
        self._login_times: array[int] = array("q")
        self._response_times: array[int] = array("q")
        self._response_minutes: array[float] = array("d")
        self._held: dict[str, tuple[int, float | None]] = {}  # by id: time, minutes of a response (None: a login)

    def put(self, event_id: str, event: EventPart) -> None:
        """Add an event under an id that is not here, if it is one that counts."""
        time_us = event.version_us
        if event.event_type == LOGIN:
            self._login_times.insert(bisect_left(self._login_times, time_us), time_us)
            self._held[event_id] = (time_us, None)
        elif event.event_type == RESPONSE and not isnan(minutes := _finite(event.response_time_minutes)):
            index = bisect_left(self._response_times, time_us)
            self._response_times.insert(index, time_us)
            self._response_minutes.insert(index, minutes)
            self._held[event_id] = (time_us, minutes)

    @property
    def held(self) -> int:
        return len(self._held)

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

    def logins(self, from_us: int, to_us: int) -> int:
        return bisect_left(self._login_times, to_us) - bisect_left(self._login_times, from_us)

    def response_minutes(self, from_us: int, to_us: int) -> array[float]:
        low, high = bisect_left(self._response_times, from_us), bisect_left(self._response_times, to_us)
        return self._response_minutes[low:high]


def _finite(value: float | None) -> float:
    """`value`, or NaN for none. Only a row loaded from the database could hold an infinity; no mean survives it."""
    return value if value is not None and isfinite(value) else nan
