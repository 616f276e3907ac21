"""Flush: a tutor's newest windows become three rows of tutor_performance_metrics.

Of several records of a tutor only the one with the greatest fence is written; the database refuses an older one in
the same transaction. It must never move an offset before the rows are committed. Alerts that the rows gave rise to are
sent afterwards, and stay owed in PostgreSQL until the broker has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import faust
import msgspec

from agents import reading
from agents.holding import Holder
from agents.parked import count_unparked
from agents.ports import Clock, DeadLetters, MetricRows, MetricsFlushed, Sender, Telemetry
from agents.telling import tell
from models import alerts, metrics
from models.alerts import Alert
from models.events import Origin
from models.metrics import Head, MetricsUpdated
from tutormax_streams.batches import Gathering, Partitioner, RecordBatch, drive, reached

logger = logging.getLogger(__name__)

MOST_RECORDS = 4_000  # per transaction, before coalescing by tutor
RETRY_PARKED_SECONDS = 5.0
TELL_AGAIN_SECONDS = 10.0


class Newest(NamedTuple):
    """The record with the greatest fence of a tutor in a batch."""

    partition: int
    update: MetricsUpdated
    times: list[int]  # `oldest_event_time_ms` of this record and of those that it supersedes


@dataclass(slots=True)
class Flush:
    """The step for topic `metrics`, and the writer beside it."""

    alerts_topic: str
    tutor_partition: Partitioner
    rows: MetricRows
    send: Sender
    dead_letters: DeadLetters
    clock: Clock
    telemetry: Telemetry
    hold: Holder
    interval_seconds: float
    gathering: Gathering[Newest] = field(init=False)

    def __post_init__(self) -> None:
        self.gathering = Gathering(self._write, MOST_RECORDS)

    async def __call__(self, batch: RecordBatch) -> None:
        try:
            entries = _newest(batch)
        except msgspec.DecodeError:
            # One of them is none of ours: each by itself, and that one is refused.
            found, refusals = await reading.entries(batch, metrics.decode, self.dead_letters, self.telemetry, "metrics")
            await asyncio.gather(*refusals)
            entries = [Newest(batch.partition, update, _times(update)) for update in found]
        batch.records = ()
        self.gathering.add(batch, entries)

    async def _write(self, entries: list[Newest]) -> None:
        newest: dict[str, tuple[int, MetricsUpdated]] = {}
        for partition, update, _ in entries:
            known = newest.get(update.tutor_id)
            if known is None or update.fence > known[1].fence:
                newest[update.tutor_id] = (partition, update)
        started = self.clock()
        outcome = await self.hold.until_available(lambda: self.rows.write(list(newest.values())))
        committed = self.clock()
        self.telemetry.observe("sink_seconds", (committed - started) / 1e6, sink="flush")
        await self._settle(outcome)
        written = set(outcome.written)  # what is parked or refused is not fresh
        for _, update, times in entries:
            if update.tutor_id in written:
                for time_ms in times:
                    self.telemetry.observe("freshness", committed / 1e6 - time_ms / 1e3)

    async def _settle(self, outcome: MetricsFlushed) -> None:
        self.telemetry.count("flushed_tutors", len(outcome.written))
        self.telemetry.count("fenced", outcome.fenced)
        self.telemetry.count("parked", outcome.parked, what="metrics")
        count_unparked(self.telemetry, outcome.unparked_metrics, self.clock())
        for update, reason, detail in outcome.refused:
            self.telemetry.count("dead_letters", topic="metrics", reason=reason)
            origin = Origin("metrics", -1, update.position, update.as_of_us // 1000)
            await (await self.dead_letters.refuse_event(origin, metrics.encode(update), reason, detail))
        if outcome.fenced:
            logger.warning("%s records of metrics refused: a newer one is stored", outcome.fenced)
        if outcome.alerts:
            await reached("alerts not told")
            await self._tell(outcome.alerts)

    async def _tell(self, told: Sequence[Alert]) -> None:
        for kind, number in Counter(alert.kind for alert in told).items():
            self.telemetry.count("alerts", number, kind=kind)
        records = ((alert.tutor_id, alerts.encode(alert)) for alert in told)
        await asyncio.gather(*await tell(self.send, self.alerts_topic, self.tutor_partition, records))
        await self.hold.until_available(lambda: self.rows.told_alerts(told))

    async def retry_parked(self) -> None:
        """Rows of tutors who were unknown are tried again; and what a worker was to tell, and died before, is told."""
        await self._settle(
            await self.hold.until_available(lambda: self.rows.untold_alerts(TELL_AGAIN_SECONDS, MOST_RECORDS))
        )
        await self._settle(await self.hold.until_available(lambda: self.rows.retry_parked(MOST_RECORDS)))


def _newest(batch: RecordBatch) -> list[Newest]:
    """One entry for each tutor of the batch; the others' windows are never unpacked."""
    newest: dict[str, tuple[Head, bytes]] = {}
    times: dict[str, list[int]] = {}
    for record in batch.records:
        if record.value is None:
            continue
        head = metrics.head(record.value)
        known = newest.get(head.tutor_id)
        if known is None or known[0].fence < head.fence:
            newest[head.tutor_id] = (head, record.value)
        times.setdefault(head.tutor_id, []).extend(_times(head))
    return [Newest(batch.partition, metrics.decode(value), times[id_]) for id_, (_, value) in newest.items()]


def _times(update: Head | MetricsUpdated) -> list[int]:
    return [] if update.oldest_event_time_ms is None else [update.oldest_event_time_ms]


def attach(app: faust.App, metrics_topic: str, step: Flush) -> None:
    """The agent, its writer (at most one flush per interval) and the retrier."""
    drive(app, metrics_topic, step, "flush")

    @app.task
    async def flush_rows() -> None:
        while not app.should_stop:
            await step.gathering.arrived()
            started = step.clock()
            await step.gathering.run_once()
            if step.gathering.waiting_entries < MOST_RECORDS:
                elapsed = (step.clock() - started) / 1e6
                await asyncio.sleep(max(0.0, step.interval_seconds - elapsed))

    @app.timer(RETRY_PARKED_SECONDS)
    async def retry_parked_metrics() -> None:
        await step.retry_parked()
