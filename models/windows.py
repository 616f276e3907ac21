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
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from models.columns import Events, Sessions, line_of
from models.facts import (
    DAY_US,
    EventFact,
    EventPart,
    Fact,
    SessionFact,
    SessionParts,
    StandingFact,
    StandingPart,
)
from models.metrics import (
    WINDOW_DAYS,
    EngagementMode,
    Recent,
    WindowInputs,
    WindowMetrics,
    window_metrics,
)
from models.rows import metric_id

_SPANS_US: Final = {window: days * DAY_US for window, days in WINDOW_DAYS.items()}
_LONGEST_US: Final = max(_SPANS_US.values())


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
        events: dict[str, EventPart] = {}
        lines = {id_: line_of(id_, parts.session, parts.feedback, tutor_id) for id_, parts in sessions}
        for fact in facts:
            if fact.tutor_id != tutor_id:
                raise _stray(fact, tutor_id)
            if isinstance(fact, SessionFact):
                lines[fact.session_id] = line_of(fact.session_id, fact.session, fact.feedback, tutor_id)
            elif isinstance(fact, EventFact):
                events[fact.event_id] = fact.event
            else:
                self.standing = fact.standing
        self._sessions = Sessions([line for line in lines.values() if line is not None])
        self._events = Events({id_: event for id_, event in events.items() if event.tutor_id == tutor_id})

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
            line = line_of(fact.session_id, fact.session, fact.feedback, self.tutor_id)
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
