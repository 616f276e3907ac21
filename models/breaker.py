"""A circuit breaker for a topic that turns bad: when most of what comes is rubbish, stop reading and say so.

1. Closed: records pass. When among the last `window` records more than `bad_pct` per cent were rejected, and at least
   `window` were seen, it opens.
2. Open: nothing is read for `cooldown_seconds`. Then it is half-open.
3. Half-open: one batch passes. Mostly good closes it; else it opens again, for twice as long, up to an hour.

It exists because dead-lettering a whole topic helps nobody: the producer must be mended, and the records wait in Kafka.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

LONGEST_SECONDS = 3600.0


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
    _reopens_at: float = 0.0
    _cooldown: float = 0.0

    def wait_seconds(self, now: float) -> float:
        """How long to leave the topic alone; 0 lets the next batch pass."""
        if self.state != "open":
            return 0.0
        if now < self._reopens_at:
            return self._reopens_at - now
        self.state = "half-open"
        return 0.0

    def passed(self, records: int, bad: int, now: float) -> bool:
        """A batch was judged. True when this opens the breaker."""
        if self.state == "half-open":
            if records and bad * 100 > records * self.bad_pct:
                self._cooldown = min(self._cooldown * 2, LONGEST_SECONDS)
                return self._open(now)
            self.state = "closed"
            return False
        self._recent.append((records, bad))
        self._seen += records
        self._bad += bad
        while self._seen - self._recent[0][0] >= self.window:
            old_records, old_bad = self._recent.popleft()
            self._seen -= old_records
            self._bad -= old_bad
        if self._seen >= self.window and self._bad * 100 > self._seen * self.bad_pct:
            self._cooldown = self.cooldown_seconds
            return self._open(now)
        return False

    def _open(self, now: float) -> bool:
        self.state = "open"
        self._reopens_at = now + self._cooldown
        self._recent.clear()
        self._seen = self._bad = 0
        return True
