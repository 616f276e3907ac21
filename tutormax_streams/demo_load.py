"""Knowing when rows are right: what was published against what the tables hold and what the worker has left to do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from models.rows import WINDOW_NAMES
from tutormax_streams.audit import audit
from tutormax_streams.demo_figures import TABLES, Scrape, Tables, scrape
from tutormax_streams.embedded import EmbeddedWorker
from tutormax_streams.postgres.database import Database
from tutormax_streams.producer import Publisher
from tutormax_streams.simulation import Record

LOOK_SECONDS: Final = 0.5
STUCK_SECONDS: Final = 90.0
DAY_SECONDS: Final = 86_400
_KNOWN_AT: Final = {"sessions": "updated_at", "feedback": "submitted_at", "tutor-events": "event_timestamp"}


class Stuck(Exception):
    """Rows do not become right. The message is a sentence."""


class Show(Protocol):
    """Told how far a load is: the share of the history published, in so many events; the rows there and expected."""

    def __call__(self, *, share: float, published: int, rows: int, expected: int) -> None: ...


@dataclass(slots=True)
class Load:
    """What is published, to be found again as rows."""

    publisher: Publisher
    start: datetime
    days: int
    complete: bool = False  # nothing more is coming
    _ids: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _reached: str | None = None

    def see(self, record: Record) -> None:
        """Told each record before it is published."""
        self._ids[record.topic].add(record.key)
        if record.topic in _KNOWN_AT:
            self._reached = record.payload[_KNOWN_AT[record.topic]]

    @property
    def published(self) -> int:
        return sum(self.publisher.published.values())

    @property
    def share(self) -> float:
        """How much of the history is published; it comes in the order of its own time."""
        if self.complete or self._reached is None:
            return float(self.complete)
        left = (self.start - datetime.fromisoformat(self._reached)).total_seconds()
        return min(max(1 - left / (self.days * DAY_SECONDS), 0.0), 1.0)

    @property
    def expected(self) -> Counter[str]:
        """Rows by the short name of the raw topic, and those of metrics."""
        rows = {topic: len(self._ids[topic]) for topic in TABLES}
        return Counter({**rows, "metrics": len(WINDOW_NAMES) * rows["tutors"]})


async def settle(
    database: Database,
    worker: EmbeddedWorker,
    load: Load,
    show: Show = lambda **_: None,
    raise_failure: Callable[[], None] = lambda: None,
) -> None:
    """Wait until every row that `load` leads to is there, and every figure is what the raw tables say (`audit`).

    Raises `Stuck`, and whatever `raise_failure` raises.
    """
    tables = Tables(database)
    moved, moved_at = (-1, -1), time.monotonic()
    while True:
        raise_failure()
        rows, looked = await tables.counts(), await scrape(worker)
        expected, now = load.expected, time.monotonic()
        show(share=load.share, published=load.published, rows=rows.total(), expected=expected.total())
        if load.complete and rows == expected and _idle(looked, load.published):
            # Nothing is known to be under way; whether figures have followed the rows, the referee says.
            result = await audit(database, "normalized", looks=1)
            if result.ok and not result.unjudged:
                return
        if (progress := (load.published, rows.total())) != moved:
            moved, moved_at = progress, now
        elif now - moved_at > STUCK_SECONDS:
            raise Stuck(_what_is_missing(rows, expected, looked))
        await asyncio.sleep(LOOK_SECONDS)


def _idle(looked: Scrape | None, published: int) -> bool:
    return looked is not None and looked.events >= published and not looked.lag


def _what_is_missing(rows: Counter[str], expected: Counter[str], looked: Scrape | None) -> str:
    short = [f"{rows[name]:,} of {count:,} {name}" for name, count in expected.items() if rows[name] != count]
    parts = [
        f"rows have not moved for {STUCK_SECONDS:.0f} s: {', '.join(short) or 'all are there, but figures do not follow'}"
    ]
    if looked is None:
        parts.append("the worker does not answer")
    else:
        parts.append(f"{looked.lag:,} records left to do, {looked.dead_letters:,} dead letters")
    return "; ".join(parts)
