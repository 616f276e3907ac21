"""Facts of one tutor that count, in parallel columns sorted by their place in time, for `models.windows`.

1. A window is a slice of each column between two bisections; counting and adding up happens at the speed of C.
2. Ids are held as digests of 16 bytes, side by side like everything else: a fact takes some 50 bytes, not the 200 of
   strings and a dict. Only of first sessions that an alert may name is the id itself kept.

Known weakness: a `put` looks through the ids and moves the tails of the columns, O(n) in bytes touched. At the few
thousand facts a tutor can gather in 121 days that is far below the cost of decoding the fact.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import isfinite, isnan, nan
from typing import Final, TypeAlias

from models.facts import DAY_US, EventPart, FeedbackPart, SessionPart
from models.metrics import (
    ENGAGEMENT_MODES,
    MOST_POOR_FIRST_SESSIONS,
    EngagementMode,
    PoorFirstSession,
    Recent,
    engagement_readings,
)

LOGIN: Final = "login"
RESPONSE: Final = "message_response"

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


# start, key of the id, session marks, rating marks, rating (0 for none), engagement score as stored (NaN for none), id if
# an alert may name it
Line: TypeAlias = tuple[int, bytes, int, int, int, float, str | None]


def line_of(session_id: str, session: SessionPart | None, feedback: FeedbackPart | None, tutor_id: str) -> Line | None:
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
    can_be_named = _LATE_FIRST[session_marks] or rating_marks & _FIRST_POOR
    named = session_id if can_be_named else None
    return (session.start_us, _key(session_id), session_marks, rating_marks, rating, score, named)


_KEY_BYTES: Final = 16


def _key(id_: str) -> bytes:
    return blake2b(id_.encode(), digest_size=_KEY_BYTES).digest()


class _Keys(bytearray):
    """Keys side by side, in the order of the columns that they belong to."""

    def find_key(self, key: bytes) -> int | None:
        """Where `key` stands, or None."""
        at = self.find(key)
        while at >= 0 and at % _KEY_BYTES:  # the end of one key and the beginning of the next
            at = self.find(key, at + 1)
        return at // _KEY_BYTES if at >= 0 else None

    def insert_key(self, index: int, key: bytes) -> None:
        self[index * _KEY_BYTES : index * _KEY_BYTES] = key

    def remove_key(self, index: int) -> bytes:
        place = slice(index * _KEY_BYTES, (index + 1) * _KEY_BYTES)
        key = bytes(self[place])
        del self[place]
        return key

    def key(self, index: int) -> bytes:
        return bytes(self[index * _KEY_BYTES : (index + 1) * _KEY_BYTES])


class Sessions:
    """The session facts that count, in parallel columns sorted by the session's start."""

    __slots__ = (
        "_engagement",
        "_keys",
        "_named",
        "_rating_marks",
        "_ratings",
        "_session_marks",
        "_unscored",
        "starts",
    )

    def __init__(self, lines: list[Line]) -> None:
        """Lays out lines of different ids."""
        lines.sort()
        self.starts = array("q", [line[0] for line in lines])
        self._keys = _Keys(b"".join([line[1] for line in lines]))
        self._session_marks = bytearray([line[2] for line in lines])
        self._rating_marks = bytearray([line[3] for line in lines])
        self._ratings = array("i", [line[4] for line in lines])
        scores = [line[5] for line in lines]
        self._engagement = {mode: array("d", engagement_readings(scores, mode)) for mode in ENGAGEMENT_MODES}
        self._unscored = sum(map(isnan, scores))
        self._named = {line[1]: line[6] for line in lines if line[6] is not None}

    def put(self, line: Line) -> None:
        """Add a line under an id that is not here."""
        start_us, key, session_marks, rating_marks, rating, score, named = line
        index = bisect_left(self.starts, start_us)
        self.starts.insert(index, start_us)
        self._keys.insert_key(index, key)
        self._session_marks.insert(index, session_marks)
        self._rating_marks.insert(index, rating_marks)
        self._ratings.insert(index, rating)
        for mode, scores in self._engagement.items():
            scores.insert(index, engagement_readings((score,), mode)[0])
        self._unscored += isnan(score)
        if named is not None:
            self._named[key] = named

    def remove(self, session_id: str) -> None:
        index = self._keys.find_key(_key(session_id))
        if index is None:
            return
        self._unscored -= isnan(self._engagement["upstream"][index])
        self._named.pop(self._keys.remove_key(index), None)
        del self.starts[index], self._session_marks[index], self._rating_marks[index], self._ratings[index]
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
            (self.starts[index], self._named[self._keys.key(index)], index)
            for index, (is_late, is_poor) in enumerate(zip(late, poor, strict=True), start=week)
            if is_late or is_poor
        ]
        found.sort()  # starts may be equal, and which of them stand here must not depend on their arrival
        newest = [
            PoorFirstSession(id_, self._ratings[index] or None, bool(late[index - week]))
            for _, id_, index in found[-MOST_POOR_FIRST_SESSIONS:]
        ]
        return Recent(tuple(newest), reschedules)


class Events:
    """The tutor events that count: when logins were, and when responses were and how long they took."""

    __slots__ = ("_login_keys", "_login_times", "_response_keys", "_response_minutes", "_response_times")

    def __init__(self, events: Mapping[str, EventPart]) -> None:
        """Lays out the tutor's events by their ids."""
        logins, responses = [], []
        for event_id, event in events.items():
            if event.event_type == LOGIN:
                logins.append((event.version_us, _key(event_id)))
            elif event.event_type == RESPONSE and not isnan(minutes := _finite(event.response_time_minutes)):
                responses.append((event.version_us, _key(event_id), minutes))
        logins.sort()
        responses.sort()
        self._login_times = array("q", [login[0] for login in logins])
        self._login_keys = _Keys(b"".join([login[1] for login in logins]))
        self._response_times = array("q", [response[0] for response in responses])
        self._response_keys = _Keys(b"".join([response[1] for response in responses]))
        self._response_minutes = array("d", [response[2] for response in responses])

    def put(self, event_id: str, event: EventPart) -> None:
        """Add an event under an id that is not here, if it is one that counts."""
        time_us = event.version_us
        if event.event_type == LOGIN:
            index = bisect_left(self._login_times, time_us)
            self._login_times.insert(index, time_us)
            self._login_keys.insert_key(index, _key(event_id))
        elif event.event_type == RESPONSE and not isnan(minutes := _finite(event.response_time_minutes)):
            index = bisect_left(self._response_times, time_us)
            self._response_times.insert(index, time_us)
            self._response_keys.insert_key(index, _key(event_id))
            self._response_minutes.insert(index, minutes)

    @property
    def held(self) -> int:
        return len(self._login_times) + len(self._response_times)

    def remove(self, event_id: str) -> None:
        key = _key(event_id)
        if (index := self._login_keys.find_key(key)) is not None:
            self._login_keys.remove_key(index)
            del self._login_times[index]
        elif (index := self._response_keys.find_key(key)) is not None:
            self._response_keys.remove_key(index)
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
