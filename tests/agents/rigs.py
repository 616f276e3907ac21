"""Every agent on the same bench: fed with logs, crashed, and asked what came out of it.

A rig's `outcome` is what must not depend on order, number or timing: the winning event per entity, the merged facts,
the windows, the rows. Inputs of an agent are what the agents before it made of the same raw records.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, ClassVar

from agents.aggregate import Aggregate, Assignment
from agents.early import MOST_SECONDS
from agents.enrich import Enrich
from agents.flush import Flush
from agents.persist import Persist
from agents.validate import KINDS, Validate
from models import facts, metrics, wire
from models.breaker import Breaker
from models.events import Enriched
from models.parsing import Parser
from tables import entities, tutor_windows
from tests.agents import fakes
from tests.agents.fakes import Broker, BrokerAway, Clock, Counts, Letters, Record, Tables
from tests.corpus import Corpus, corpus
from tests.samples import NOW_US
from tutormax_streams.batches import MergedTable, Partitioner
from tutormax_streams.batches.shelves import SharedMemory

PARTITIONS = 2
EVENTS = 600


@cache
def history() -> Corpus:
    return corpus(5, EVENTS, now_us=NOW_US)


class Rig:
    """One agent, its inputs as logs by (topic, partition), and the durable things around it."""

    consumes: ClassVar[tuple[str, ...]]

    def __init__(self, logs: Sequence[Record], clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.broker, self.letters, self.counts, self.postgres = Broker(), Letters(), Counts(), Tables()
        self.logs = {place: list(run) for place, run in groupby(sorted(logs, key=_place), key=_place_of_log)}
        self.committed = dict.fromkeys(self.logs, 0)

    async def begin(self) -> None:
        """A new process, with what is durable."""
        raise NotImplementedError

    async def step(self, batch: Any) -> Any:
        raise NotImplementedError

    def outcome(self) -> Any:
        raise NotImplementedError

    async def settle(self) -> None:
        """What the agent does beside its batches, such as its one transaction at a time."""

    async def crash(self) -> None:
        """The process is gone; a new one begins."""
        await self.begin()

    async def feed(self, batch: Any) -> None:
        """One batch as `drive` and the consumer would handle it; raises what the step raises."""
        confirmations = await self.step(batch)
        if confirmations is None:
            await self.settle()
        else:
            await asyncio.gather(*confirmations)
            batch.done()
        assert batch.is_done

    async def run(self, rng: random.Random, *, crashes: int = 0) -> None:
        """Read all logs to their ends in batches of any size; `crashes` times the broker goes in the middle of one,
        and the batch, or some more of what was committed, is read again."""
        while behind := [place for place, log in self.logs.items() if self.committed[place] < len(log)]:
            place = rng.choice(behind)
            start = self.committed[place]
            records = self.logs[place][start : start + rng.randint(1, 40)]
            batch = fakes.batch(records)
            if crashes and rng.random() < 0.5:
                crashes -= 1
                self.broker.patience = rng.randrange(4)
            try:
                await self.feed(batch)
            except BrokerAway:
                assert not batch.is_done
                self.committed[place] = rng.randrange(start + 1) if rng.random() < 0.3 else start
                self.broker.patience = None
                await self.crash()
                continue
            self.broker.patience = None
            self.committed[place] += len(records)
        await self.settle()

    def read_again(self) -> None:
        self.committed = dict.fromkeys(self.logs, 0)


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _place_of_log(record: Record) -> tuple[str, int]:
    return record.topic, record.partition


class ValidateRig(Rig):
    async def begin(self) -> None:
        self.steps = {
            topic: Validate(
                topic=topic,
                validated_topic="validated",
                parser=Parser(),
                breaker=Breaker(100),
                home_partition=Partitioner(PARTITIONS),
                send=self.broker,
                dead_letters=self.letters,
                clock=self.clock,
                telemetry=self.counts,
            )
            for topic in KINDS
        }

    async def step(self, batch: Any) -> Any:
        return await self.steps[batch.tp.topic](batch)

    def outcome(self) -> Any:
        """The events by version with the partition they went to, and the dead letters' bytes."""
        sent = set()
        for record in self.broker.records("validated"):
            entry = wire.unpack_validated(record.value or b"")
            assert isinstance(entry, wire.Events)
            sent |= {(record.partition, v.event.home_id, v.event.version_us, v.digest) for v in entry.events}
        return sent, sorted(value or b"" for _, value in self.letters.by_place.values())


class TableRig(Rig):
    """With a table whose changelog is the broker's; a crash may take the local copy along."""

    table: MergedTable[Any]
    local: Any = None
    keeps_local_copies = True

    def declare(self) -> MergedTable[Any]:
        raise NotImplementedError

    async def begin(self) -> None:
        self.table = self.declare()
        if self.local is not None:
            self.table.new_shelf = self.local.pop
        await fakes.assign(self.table, self.broker, range(PARTITIONS))

    async def crash(self) -> None:
        self.local = fakes.local_copies(self.table) if self.keeps_local_copies else None
        self.keeps_local_copies = not self.keeps_local_copies
        await self.begin()


class EnrichRig(TableRig):
    def declare(self) -> MergedTable[Any]:
        return entities.declare(fakes.app(), PARTITIONS, None, SharedMemory())

    async def begin(self) -> None:
        await super().begin()
        self.enrich = Enrich(
            enriched_topic="enriched",
            facts_topic="facts",
            entities=self.table,
            tutor_partition=Partitioner(PARTITIONS),
            send=self.broker,
            dead_letters=self.letters,
            clock=self.clock,
            telemetry=self.counts,
        )

    async def step(self, batch: Any) -> Any:
        return await self.enrich(batch)

    def outcome(self) -> Any:
        """What a sink that keeps the greatest version would hold, and what merging all facts gives."""
        winners: dict[Any, Enriched] = {}
        for record in self.broker.records("enriched"):
            for enriched in wire.unpack_enriched(record.value or b"").events:
                held = winners.get(fakes.entity(enriched))
                if held is None or _version(held) < _version(enriched):
                    winners[fakes.entity(enriched)] = enriched
        merged: dict[bytes, Any] = {}
        for record in self.broker.records("facts"):
            for fact in wire.unpack_facts(record.value or b""):
                if isinstance(fact, facts.Barrier):
                    continue
                key, value = facts.stored(fact)
                merged[key] = facts.merge(merged[key], value) if key in merged else value
        return {key: (winner.event, _version(winner)) for key, winner in winners.items()}, merged


class AggregateRig(TableRig):
    needs_barriers = 0

    def declare(self) -> MergedTable[Any]:
        self.windows = tutor_windows.declare(fakes.app(), PARTITIONS, None, SharedMemory())
        return self.windows.table

    async def begin(self) -> None:
        await super().begin()
        self.aggregate = Aggregate(
            metrics_topic="metrics",
            windows=self.windows,
            send=self.broker,
            dead_letters=self.letters,
            clock=self.clock,
            telemetry=self.counts,
            epoch=1,
            needs_barriers=self.needs_barriers,
            mode="normalized",
            note_assignment=self.note_assignment,
        )

    async def note_assignment(self, partition: int) -> Assignment:
        place = ("facts", partition)
        return Assignment(len(self.logs.get(place, [])), self.committed.get(place, 0), 0)

    async def step(self, batch: Any) -> Any:
        return await self.aggregate(batch)

    async def settle(self) -> None:
        """Ticks until every tutor that was due has been published."""
        self.clock.now_us += 60_000_000
        for _ in range(5):
            await self.aggregate.tick()

    def updates(self) -> list[metrics.MetricsUpdated]:
        return [metrics.decode(record.value or b"") for record in self.broker.records("metrics")]

    def outcome(self) -> Any:
        """Each tutor's windows in the record with the greatest fence."""
        newest: dict[str, metrics.MetricsUpdated] = {}
        for update in self.updates():
            if update.tutor_id not in newest or newest[update.tutor_id].fence < update.fence:
                newest[update.tutor_id] = update
        return {tutor_id: (update.tutor_name, update.windows) for tutor_id, update in newest.items()}


class PersistRig(Rig):
    async def begin(self) -> None:
        self.persist = Persist(
            persisted_topic="persisted",
            tutor_partition=Partitioner(PARTITIONS),
            records=self.postgres,
            send=self.broker,
            dead_letters=self.letters,
            clock=self.clock,
            telemetry=self.counts,
            hold=fakes.holder(self.counts, "persist"),
        )

    async def step(self, batch: Any) -> Any:
        return await self.persist(batch)

    async def settle(self) -> None:
        self.clock.now_us += int(MOST_SECONDS * 1e6)
        self.persist.early.let_go_of_overdue()
        while self.persist.gathering.waiting_entries:
            await self.persist.gathering.run_once()
        await self.persist.gathering.run_once()

    def outcome(self) -> Any:
        """The rows, and for which of them `persisted` holds an announcement of the version that stands."""
        announced = {record.value for record in self.broker.records("persisted")}
        rows = {key: (entry.event, _version(entry)) for key, entry in self.postgres.entities.items()}
        return rows, len(announced) >= len(rows)


class FlushRig(Rig):
    async def begin(self) -> None:
        self.flush = Flush(
            alerts_topic="alerts",
            tutor_partition=Partitioner(PARTITIONS),
            send=self.broker,
            rows=self.postgres,
            dead_letters=self.letters,
            clock=self.clock,
            telemetry=self.counts,
            hold=fakes.holder(self.counts, "flush"),
            interval_seconds=1.0,
        )

    async def step(self, batch: Any) -> Any:
        return await self.flush(batch)

    async def settle(self) -> None:
        await self.flush.gathering.run_once()

    def outcome(self) -> Any:
        return self.postgres.metrics


def _version(enriched: Enriched) -> tuple[int, bytes]:
    return enriched.event.version_us, enriched.digest


# -- inputs: what each agent makes of the same raw records, one event to a record --------------------------------------


def numbered(topic: str, entries: Sequence[tuple[int, bytes | None]]) -> list[Record]:
    """Records of one topic from (partition, value), offsets as they come."""
    ends: dict[int, int] = {}
    records = []
    for partition, value in entries:
        records.append(Record(topic, partition, ends.get(partition, 0), value))
        ends[partition] = ends.get(partition, 0) + 1
    return records


def raw_inputs() -> list[Record]:
    rng = random.Random(1)
    return [
        record
        for topic in KINDS
        for record in numbered(
            topic, [(rng.randrange(PARTITIONS), r.value) for r in history().records if r.topic == topic]
        )
    ]


def outputs(rig: Rig, topic: str, apart: Callable[[bytes], list[bytes]] = lambda value: [value]) -> list[Record]:
    """What a rig's agent sends to `topic`, taken apart into records of one entry."""

    async def work() -> list[tuple[int, bytes | None]]:
        await rig.begin()
        await rig.run(random.Random(2))
        return [(r.partition, part) for r in rig.broker.records(topic) for part in apart(r.value or b"")]

    return numbered(topic, asyncio.run(work()))


@cache
def inputs() -> dict[type[Rig], list[Record]]:
    raw = raw_inputs()
    validated = outputs(ValidateRig(raw), "validated", _validated_apart)
    enriched = outputs(EnrichRig(validated), "enriched", _enriched_apart)
    facts_ = outputs(EnrichRig(validated), "facts", lambda v: [wire.pack_facts([f]) for f in wire.unpack_facts(v)])
    updates = outputs(AggregateRig(facts_), "metrics")
    return {ValidateRig: raw, EnrichRig: validated, AggregateRig: facts_, PersistRig: enriched, FlushRig: updates}


def _validated_apart(value: bytes) -> list[bytes]:
    entry = wire.unpack_validated(value)
    assert isinstance(entry, wire.Events)
    return [wire.pack_validated([validated]) for validated in entry.events]


def _enriched_apart(value: bytes) -> list[bytes]:
    return [wire.pack_enriched([enriched]) for enriched in wire.unpack_enriched(value).events]
