"""How far one partition has been delivered during one assignment: pure bookkeeping, without Kafka."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tutormax_streams.batches.records import Record, RecordBatch


class Position(NamedTuple):
    """Where a partition stands, for telemetry and the watchdog."""

    committed: int | None
    expected: int | None
    end: int | None
    in_flight: int
    oldest_ms: int | None  # Kafka time of the oldest record that was delivered and is not done
    committable: int | None = None  # behind the last batch of the run that is done; None before the first
    under_way: int | None = None  # first offset of the oldest unfinished batch, where an agent has begun with it

    @property
    def behind(self) -> int:
        """Records in the log that are not committed as done, as far as is known."""
        return 0 if self.end is None else max(0, self.end - (self.committed or 0))


class Taken(NamedTuple):
    """What becomes of fetched records."""

    runs: list[list[Record]]
    again: int | None = None  # seek here and fetch again: something is missing before the records
    gap: tuple[int, int] | None = None  # offsets from the first to before the second are not in the log any more


class Delivery:
    """`expected` is the offset that comes next."""

    __slots__ = ("committable", "empty_fetches", "expected", "hole", "idle_since", "in_flight", "short_since")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.in_flight: deque[RecordBatch] = deque()
        self.hole: tuple[int, int] | None = None  # seen once
        self.committable: int | None = None
        self.idle_since = time.monotonic()
        self.empty_fetches = 0  # fetches that found nothing anywhere, since something was in flight here
        self.short_since: float | None = None  # since when the log has ended before `expected`

    def settle(self) -> int | None:
        """Drop finished batches from the front; the offset that may be committed."""
        while self.in_flight and self.in_flight[0].is_done:
            self.committable = self.in_flight.popleft().last + 1
        return self.committable

    def take(self, records: Sequence[Record], most_records: int, most_bytes: int) -> Taken:
        """Of the records fetched, those that follow what was delivered, cut into runs bounded in number and bytes.

        A single record may be larger than `most_bytes`. What was delivered before is dropped.
        """
        expected = self.expected
        if records[0].offset < expected:
            records = [r for r in records if r.offset >= expected]
        if not records:
            return Taken([])
        gap = None
        if records[0].offset > expected:
            gap = (expected, records[0].offset)
            if self.hole != gap:
                self.hole = gap
                return Taken([], again=expected)
        self.hole = None
        runs: list[list[Record]] = []
        run: list[Record] = []
        size = 0
        for record in records:
            weight = len(record.value) if record.value is not None else 0
            if run and (len(run) >= most_records or size + weight > most_bytes):
                runs.append(run)
                run, size = [], 0
            run.append(record)
            size += weight
        runs.append(run)
        return Taken(runs, gap=gap)
