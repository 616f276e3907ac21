"""A circuit breaker for a topic that turns bad: when most of what comes is rubbish, stop reading and say so.

1. Closed: records pass. When among the last `window` records more than `bad_pct` per cent were rejected, and at least
   `window` were seen, it opens.
2. Open: nothing is read for `cooldown_seconds`. Then it is half-open.
3. Half-open: records pass until `PROBE` of them (or `window`, if that is less) were seen, or until the first that come
   after `cooldown_seconds`, for a topic may be slow. Too bad, which shows as soon as too many are, it opens again, for
   twice as long, up to an hour; else it closes. A few good records among rubbish do not close it.

It exists because dead-lettering a whole topic helps nobody: the producer must be mended, and the records wait in Kafka.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

LONGEST_SECONDS: Final = 3600.0
PROBE: Final = 50  # records


@dataclass(slots=True)
class Breaker:
    """State of one topic. Times are seconds of any clock that does not go back."""

    bad_pct: float = 50.0
    window: int = 1000
    cooldown_seconds: float = 30.0
    state: Literal["closed", "open", "half-open"] = "closed"
    _recent: deque[tuple[int, int]] = field(default_factory=deque)  # (records, bad) of each batch
    _seen: int = 0
    _bad: int = 0
    _until: float = 0.0  # open: when it is half-open; half-open: when few records must do
    _cooldown: float = 0.0

    def wait_seconds(self, now: float) -> float:
        """How long to leave the topic alone; 0 lets the next batch pass."""
        if self.state != "open":
            return 0.0
        if now < self._until:
            return self._until - now
        self.state = "half-open"
        self._until = now + self.cooldown_seconds
        return 0.0

    def passed(self, records: int, bad: int, now: float) -> bool:
        """Of a batch so many records were judged, and so many of them rejected. True when this opens the breaker."""
        if not records:
            return False
        self._recent.append((records, bad))
        self._seen += records
        self._bad += bad
        if self.state == "half-open":
            return self._probed(now)
        while self._seen - self._recent[0][0] >= self.window:
            old_records, old_bad = self._recent.popleft()
            self._seen -= old_records
            self._bad -= old_bad
        if self._seen >= self.window and self._bad * 100 > self._seen * self.bad_pct:
            return self._open(self.cooldown_seconds, now)
        return False

    def _probed(self, now: float) -> bool:
        enough = 0 if now >= self._until else min(PROBE, self.window)
        if self._bad * 100 > max(self._seen, enough) * self.bad_pct:
            return self._open(min(self._cooldown * 2, LONGEST_SECONDS), now)
        if self._seen >= enough:
            self.state = "closed"
        return False

    def _open(self, cooldown: float, now: float) -> bool:
        self.state = "open"
        self._cooldown = cooldown
        self._until = now + cooldown
        self._recent.clear()
        self._seen = self._bad = 0
        return True
