"""How much is still to be done, how fast it shrinks and when it will be done: said now and then while it is much."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection

logger = logging.getLogger(__name__)

LARGE_RECORDS = 50_000  # less is done before anybody looks
SAY_SECONDS = 10.0
LOOKBACK_SECONDS = 30.0


class Backlog:
    """Of one kind of work. Call `look` about once a second; `now` in seconds of any clock that does not go back.

    Fewer records than `least` are none: where records always come, some are always to be done.
    """

    def __init__(self, what: str, least: int = 1) -> None:
        self.what = what
        self.least = least
        self._seen: deque[tuple[float, int]] = deque()
        self._said = float("-inf")
        self._of: Collection[object] = ()
        self.most = 0  # records that remained at once since nothing did

    def look(self, now: float, remaining: int, of: Collection[object] = ()) -> None:
        """So many records remain, of these partitions: when others are counted, pace is measured anew."""
        if of != self._of:
            self._of = of
            self._seen.clear()
            self.most = 0
        if remaining < self.least:
            self._seen.clear()
            self.most = 0
            return
        self.most = max(self.most, remaining)
        self._seen.append((now, remaining))
        while self._seen[0][0] < now - LOOKBACK_SECONDS:
            self._seen.popleft()
        if remaining >= LARGE_RECORDS and now - self._said >= SAY_SECONDS and len(self._seen) > 1:
            self._said = now
            logger.info("%s: %s", self.what, self.progress)

    @property
    def remaining(self) -> int:
        """Records, as of the last look."""
        return self._seen[-1][1] if self._seen else 0

    @property
    def seconds_left(self) -> float | None:
        """Until nothing remains, at the pace of the last half minute; None while it does not shrink."""
        rate = self.records_per_second
        return self.remaining / rate if rate > 0 else None

    @property
    def records_per_second(self) -> float:
        """How fast it shrinks, over the last half minute; negative while it grows."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return 0.0
        (began, before), (now, remaining) = self._seen[0], self._seen[-1]
        return (before - remaining) / (now - began)

    @property
    def progress(self) -> str:
        """As a sentence; "" when nothing remains."""
        if not self._seen:
            return ""
        remaining, rate = self._seen[-1][1], self.records_per_second
        if rate <= 0:
            return f"{remaining:,} records to go"
        return f"{remaining:,} records to go, {rate:,.0f} fewer every second, about {_duration(remaining / rate)} left"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
