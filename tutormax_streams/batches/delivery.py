"""How far one partition has been delivered during one assignment: pure bookkeeping, without Kafka."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from tutormax_streams.batches.records import Record, RecordBatch

LEAST_AGE_SECONDS: Final = 0.001  # of a record that is known of: an answer of the broker has brought the news


class Position(NamedTuple):
    """Where a partition stands, for telemetry and the watchdog."""

    committed: int | None
    expected: int | None
    end: int | None
    in_flight: int
    oldest_ms: int | None  # Kafka time of the oldest record that was delivered and is not done
    committable: int | None = None  # behind the last batch of the run that is done; None before the first
    under_way: int | None = None  # first offset of the oldest unfinished batch, where an agent has begun with it
    begun: int = 0  # where delivery began: nothing before it counts as behind while nothing was committed
    behind_seconds: float = 0.0  # the oldest record that is `behind` is at least so old; 0 where nothing is

    @property
    def behind(self) -> int:
        """Records in the log that are not committed as done, as far as is known."""
        return 0 if self.end is None else max(0, self.end - (self.begun if self.committed is None else self.committed))


class Arrears:
    """Since when records have been in the log of a partition without being committed as done.

    A lower bound that needs no record to be delivered: what lies below an end that was seen is at least as old as the
    sight of it. It outlives assignments; whoever committed, what was seen is then done.
    """

    __slots__ = ("_end", "_since")

    def __init__(self) -> None:
        self._end: int | None = None  # the log's end when it was seen first that something is behind
        self._since = 0.0

    def seconds(self, done: int, end: int | None, now: float) -> float:
        """Least age of the oldest record from `done` to before `end`; 0 where there is none, else never 0. `now` in
        seconds of a clock that does not go back."""
        if end is None or end <= done:
            self._end = None
            return 0.0
        if self._end is None or done >= self._end:
            self._end, self._since = end, now
        return max(LEAST_AGE_SECONDS, now - self._since)


class Taken(NamedTuple):
    """What becomes of fetched records."""

    runs: list[list[Record]]
    again: int | None = None  # seek here and fetch again: something is missing before the records
    gap: tuple[int, int] | None = None  # offsets from the first to before the second are not in the log any more


class Delivery:
    """`expected` is the offset that comes next, `begun` the one that came first."""

    __slots__ = (
        "barren_end", "begun", "committable", "empty_fetches", "expected", "hole", "idle_since", "in_flight",
        "short_since", "tail",
    )  # fmt: skip

    def __init__(self, expected: int) -> None:
        self.begun = self.expected = expected
        self.in_flight: deque[RecordBatch] = deque()
        self.hole: tuple[int, int] | None = None  # seen once
        self.tail: int | None = None  # the log's end up to which the client has found nothing, seen once
        self.barren_end: int | None = None  # ... and seen twice: what is left of the log cannot be delivered
        self.committable: int | None = None
        self.idle_since = time.monotonic()
        self.empty_fetches = 0  # fetches that found nothing anywhere, since something was in flight here
        self.short_since: float | None = None  # since when the log has ended before `expected`

    def deliverable_end(self, end: int | None) -> int | None:
        """The log's end without what is known never to be delivered: the marker of the last transaction, say."""
        return self.expected if end is not None and end == self.barren_end else end

    def found_nothing_before(self, end: int) -> bool:
        """The client came to the log's end and had nothing for us. Whether that is now believed."""
        if self.tail == end:
            self.barren_end = end
        self.tail = end
        return self.barren_end == end

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
