"""Persist: winning events become rows of the platform's tables; what was written is announced on `persisted`.

It decides nothing about versions: enrich did, and the database's own guard refuses a late writer. It must never hold
up intake: while PostgreSQL is away it waits, and its offsets with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import faust
import msgspec

from agents import reading
from agents.early import EarlyFeedback
from agents.holding import Holder
from agents.parked import count_unparked
from agents.ports import Clock, DeadLetters, Records, RecordsWritten, Sender, Telemetry
from agents.telling import tell
from models import wire
from models.events import KIND_OF, Enriched
from models.metrics import utc_text
from tutormax_streams.batches import Gathering, Partitioner, RecordBatch, drive, reached

MOST_EVENTS = 2_000  # per transaction
RETRY_PARKED_SECONDS = 5.0
TELL_AGAIN_SECONDS = 30.0  # from commit to confirmation takes less, unless the worker has died in between
EARLY_SECONDS = 1.0


class Announcement(msgspec.Struct, tag_field="type", tag="record.persisted", frozen=True, gc=False):
    """Public record of topic `persisted`: a row was committed."""

    kind: str
    id: str
    tutor_id: str
    version_time: str  # updated_at, submitted_at or event_timestamp of the version that was written
    version: int = 1


_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Persist:
    """The step for topic `enriched`, and the writer beside it."""

    persisted_topic: str
    tutor_partition: Partitioner
    records: Records
    send: Sender
    dead_letters: DeadLetters
    clock: Clock
    telemetry: Telemetry
    hold: Holder
    gathering: Gathering[Enriched] = field(init=False)
    early: EarlyFeedback = field(init=False)
    _taken: asyncio.Event = field(default_factory=asyncio.Event)  # entries have left the queue

    def __post_init__(self) -> None:
        self.gathering = Gathering(self._write, MOST_EVENTS)
        self.early = EarlyFeedback(self.gathering, self.clock)

    async def __call__(self, batch: RecordBatch) -> None:
        if self._is_full():
            await batch.while_owned(self._room())
        packs, refusals = await reading.entries(
            batch, wire.unpack_enriched, self.dead_letters, self.telemetry, "enriched"
        )
        await asyncio.gather(*refusals)
        batch.records = ()
        # What `rebuild` loaded from the database is in the database.
        self.early.add(batch, [e for pack in packs for e in pack.events if e.origin.topic != "database"])

    def _is_full(self) -> bool:
        return self.gathering.waiting_entries >= MOST_EVENTS

    async def _room(self) -> None:
        """Events take four times the memory of their bytes, so no more are unpacked than the next transaction takes."""
        while self._is_full():
            self._taken.clear()
            await self._taken.wait()

    async def write(self) -> None:
        """Wait for something to write and write it, or what of it one transaction takes."""
        await self.gathering.arrived()
        await self.gathering.run_once()
        self._taken.set()

    async def _write(self, events: list[Enriched]) -> None:
        self._taken.set()
        started = self.clock()
        outcome: RecordsWritten = await self.hold.until_available(lambda: self.records.write(events))
        committed = self.clock()
        self.telemetry.observe("sink_seconds", (committed - started) / 1e6, sink="persist")
        await self._settle(outcome)
        oldest_ms = min([event.origin.time_ms for event in events])
        self.telemetry.observe("persist_freshness", committed / 1e6 - oldest_ms / 1e3)

    async def _settle(self, outcome: RecordsWritten) -> None:
        """Announce what was written and refuse what cannot be; both confirmed before the offsets move."""
        count_unparked(self.telemetry, outcome.unparked_metrics, self.clock())
        if outcome.written:
            await reached("rows not announced")
        announcements = (
            (row.tutor_id, _encode(Announcement(row.kind, row.id, row.tutor_id, utc_text(row.version_us))))
            for row in outcome.written
        )
        confirmations = await tell(self.send, self.persisted_topic, self.tutor_partition, announcements)
        for kind, rows in Counter(row.kind for row in outcome.written).items():
            self.telemetry.count("rows", rows, kind=kind)
        for event, reason, detail in outcome.refused:
            self.telemetry.count("dead_letters", topic=event.origin.topic, reason=reason)
            stand_in = msgspec.json.encode({"kind": KIND_OF[type(event.event)], "event": event.event})
            confirmations.append(await self.dead_letters.refuse_event(event.origin, stand_in, reason, detail))
        self.telemetry.count("parked", outcome.parked, what="record")
        self.telemetry.count("unparked", outcome.unparked, what="record")
        if confirmations:
            await asyncio.gather(*confirmations)
        owed = outcome.owed
        if owed.rows or owed.refusals:
            await self.hold.until_available(lambda: self.records.told(owed))

    async def retry_parked(self) -> None:
        """Rows that missed a parent are tried again, whatever comes or does not come; and what a worker wrote or was
        refused, and died before it could say so, is said."""
        more = True
        while more:
            untold = await self.hold.until_available(lambda: self.records.untold(TELL_AGAIN_SECONDS, MOST_EVENTS))
            await self._settle(untold)
            more = len(untold.written) >= MOST_EVENTS or len(untold.refused) >= MOST_EVENTS
        while True:
            outcome = await self.hold.until_available(lambda: self.records.retry_parked(MOST_EVENTS))
            await self._settle(outcome)
            if outcome.unparked < MOST_EVENTS // 2:
                return  # the rest waits for parents that have not come


def attach(app: faust.App, enriched_topic: str, step: Persist) -> None:
    """The agent, its writer and the retrier. Failures other than PostgreSQL's absence stop the worker."""
    drive(app, enriched_topic, step, "persist")

    @app.task
    async def write_records() -> None:
        while not app.should_stop:
            await step.write()

    @app.timer(EARLY_SECONDS)
    async def let_go_of_early_feedback() -> None:
        step.early.let_go_of_overdue()

    @app.timer(RETRY_PARKED_SECONDS)
    async def retry_parked_records() -> None:
        await step.retry_parked()
