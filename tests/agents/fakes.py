"""The world as agents see it, in memory: a broker that keeps logs, tables on it, PostgreSQL as two dictionaries.

Small and honest: a fake does what its port promises and nothing else, and can be told to fail.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.types import TP

from agents.holding import Holding
from agents.ports import Owed, Persisted, SinkUnavailable
from models.alerts import Alert
from models.events import KIND_OF, Enriched, Origin
from models.fates import LATER_REASONS, REASONS
from models.metrics import MetricsUpdated
from tests.samples import NOW_US
from tutormax_streams.batches import MergedTable, RecordBatch
from tutormax_streams.batches.recovery import merge_records
from tutormax_streams.batches.shelves import MemoryShelf


@dataclass(slots=True)
class Record:
    """A raw record as the consumer delivers it."""

    topic: str
    partition: int
    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW_US // 1000
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_type: int = 0


class BrokerAway(Exception):
    """What a producer raises in the middle of a step."""


class Broker:
    """Logs by topic and partition. It confirms at once, or only when told to (`holding`); `patience` records more and
    it is gone."""

    def __init__(self) -> None:
        self.logs: dict[TP, list[Record]] = defaultdict(list)
        self.patience: int | None = None
        self.holding = False
        self.unconfirmed: list[tuple[asyncio.Future[Any], Record]] = []

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Any]:
        return self._append(topic, [(key, value)], partition or 0, headers)

    async def send_run(
        self, topic: str, partition: int, items: Iterable[tuple[bytes | None, bytes | None]]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        items = list(items)
        return [(self._append(topic, items, partition, ()), len(items))] if items else []

    def _append(
        self, topic: str, items: Sequence[tuple[bytes | None, bytes | None]], partition: int, headers: Any
    ) -> asyncio.Future[Any]:
        if self.patience is not None:
            self.patience -= 1
            if self.patience < 0:
                raise BrokerAway
        log = self.logs[TP(topic, partition)]
        first = Record(topic, partition, len(log), None)
        for key, value in items:
            log.append(Record(topic, partition, len(log), value, key, headers=list(headers)))
        confirmation: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.holding:
            self.unconfirmed.append((confirmation, first))
        else:
            confirmation.set_result(first)
        return confirmation

    def confirm(self) -> None:
        """Confirm everything that was held."""
        for confirmation, record in self.unconfirmed:
            if not confirmation.done():
                confirmation.set_result(record)
        self.unconfirmed.clear()

    def records(self, topic: str) -> list[Record]:
        return [record for tp, log in sorted(self.logs.items()) if tp.topic == topic for record in log]


class Letters:
    """Dead letters by source position."""

    def __init__(self) -> None:
        self.by_place: dict[tuple[str, int, int], tuple[str, bytes | None]] = {}

    async def refuse_record(self, record: Any, topic: str, reason: str, detail: str) -> asyncio.Future[Any]:
        return self._keep((topic, record.partition, record.offset), reason, record.value)

    async def refuse_event(self, origin: Origin, stand_in: bytes, reason: str, detail: str) -> asyncio.Future[Any]:
        return self._keep((origin.topic, origin.partition, origin.offset), reason, stand_in)

    def _keep(self, place: tuple[str, int, int], reason: str, value: bytes | None) -> asyncio.Future[Any]:
        assert reason in {**REASONS, **LATER_REASONS}, "documents and the schema of dead letters do not know it"
        assert self.by_place.setdefault(place, (reason, value)) == (reason, value)
        confirmation: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        confirmation.set_result(None)
        return confirmation


class Clock:
    """Stands still until moved."""

    def __init__(self, now_us: int = NOW_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us


class Counts:
    """Telemetry: sums by name, and by name with labels."""

    def __init__(self) -> None:
        self.counted: dict[Any, float] = defaultdict(float)
        self.gauges: dict[Any, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counted[name] += amount
        if labels:
            self.counted[name, *labels.values()] += amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.counted[name] += 1

    def set(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, *labels.values()] = value


# -- tables -----------------------------------------------------------------------------------------------------------

Declare = Callable[[faust.App], MergedTable[Any]]


def app() -> faust.App:
    """A Faust app that is never started."""
    return faust.App("tests", broker="kafka://127.0.0.1:1", store="memory://", autodiscover=False)


async def assign(table: MergedTable[Any], broker: Broker, partitions: Iterable[int]) -> None:
    """Give a table its partitions as a rebalance does, with what their changelogs hold."""
    table.confirmed = broker  # type: ignore[assignment]
    tps = {TP(table.changelog_name, partition) for partition in partitions}
    await table.held.on_rebalance(tps, set(), tps)
    for tp in tps:
        log = broker.logs[tp]
        offset = table.held.shelf(tp.partition).offset
        if fresh := [record for record in log if offset is None or record.offset > offset]:
            merge_records(table, tp.partition, fresh)


def local_copies(table: MergedTable[Any]) -> dict[int, MemoryShelf]:
    """What would lie on the disk after a crash."""
    copies = {}
    for partition, shelf in table.held.shelves.items():
        copy = MemoryShelf()
        copy.write(list(shelf.scan(b"")), shelf.offset)
        copies[partition] = copy
    return copies


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Written:
    """What became of a write."""

    written: list[Any] = field(default_factory=list)
    refused: list[Any] = field(default_factory=list)
    fenced: int = 0
    parked: int = 0
    unparked: int = 0
    unparked_metrics: list[MetricsUpdated] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    owed: Owed = field(default_factory=lambda: Owed((), ()))


@dataclass(slots=True)
class Tables:
    """`Records` and `MetricRows`: the greatest version of each entity, the greatest fence of each tutor."""

    entities: dict[tuple[str, str], Enriched] = field(default_factory=dict)
    metrics: dict[str, tuple[int, MetricsUpdated]] = field(default_factory=dict)
    away: int = 0  # so many writes fail first
    refuses: Callable[[Any], bool] = lambda thing: False
    owes: Callable[[Any], bool] = lambda persisted: False  # as if the row had been parked
    told_rows: list[Any] = field(default_factory=list)
    gives_rise_to: Callable[[MetricsUpdated], Sequence[Alert]] = lambda update: ()
    outbox: list[Alert] = field(default_factory=list)
    writes: int = 0
    waiting: list[MetricsUpdated] = field(default_factory=list)  # parked metrics whose tutors have come meanwhile

    async def write(self, batch: Sequence[Any]) -> Written:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise SinkUnavailable("the server is shutting down")
        self.writes += 1
        outcome = Written()
        if batch and isinstance(batch[0], Enriched):
            outcome.unparked_metrics, self.waiting = self.waiting, []
        for entry in batch:
            if isinstance(entry, Enriched):
                self._store(entry, outcome)
            else:
                self._flush(entry, outcome)
        outcome.owed = Owed([persisted for persisted in outcome.written if self.owes(persisted)], ())
        return outcome

    def _store(self, entry: Enriched, outcome: Written) -> None:
        if self.refuses(entry):
            outcome.refused.append((entry, "duplicate", "another row holds this value"))
            return
        event = entry.event
        key = (KIND_OF[type(event)], event.home_id)
        held = self.entities.get(key)
        if held is None or (held.event.version_us, held.digest) <= (event.version_us, entry.digest):
            self.entities[key] = entry
            outcome.written.append(Persisted(*key, event.tutor_id, event.version_us))

    def _flush(self, entry: tuple[int, MetricsUpdated], outcome: Written) -> None:
        _, update = entry
        if self.refuses(update):
            outcome.refused.append((update, "refused_by_database", "PostgreSQL refuses a value"))
            return
        held = self.metrics.get(update.tutor_id)
        if held is not None and held[1].fence > update.fence:
            outcome.fenced += 1
        else:
            self.metrics[update.tutor_id] = entry
            outcome.written.append(update.tutor_id)
            outcome.alerts += self.gives_rise_to(update)
            self.outbox += self.gives_rise_to(update)

    async def retry_parked(self, limit: int) -> Written:
        unparked, self.waiting = self.waiting, []
        return Written([update.tutor_id for update in unparked], unparked_metrics=unparked)

    async def told(self, owed: Owed) -> None:
        if self.away:
            self.away -= 1
            raise SinkUnavailable("the server is shutting down")
        self.told_rows += owed.rows

    async def untold(self, seconds: float, limit: int) -> Written:
        return Written()

    async def told_alerts(self, told: Sequence[Alert]) -> None:
        self.outbox = [alert for alert in self.outbox if alert not in told]

    async def untold_alerts(self, seconds: float, limit: int) -> Written:
        return Written(alerts=list(self.outbox))


def holder(counts: Counts, sink: str) -> Any:
    return Holding(counts)(sink)


def batch(records: Sequence[Record]) -> RecordBatch:
    return RecordBatch(TP(records[0].topic, records[0].partition), records)


def entity(enriched: Enriched) -> tuple[str, str]:
    """What an enriched event is a version of."""
    event = enriched.event
    return KIND_OF[type(event)], event.home_id
