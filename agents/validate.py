"""Validate: raw bytes of the four public topics become events on their way home, or dead letters.

It judges each record by itself and remembers nothing but how much of a topic was bad lately. It must never let a
record stop its neighbours.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import faust

from agents.ports import Clock, DeadLetters, Sender, Telemetry
from models import wire
from models.breaker import Breaker
from models.events import Origin, Validated
from models.fates import Rejected
from models.parsing import Parser
from models.versions import digest
from tutormax_streams.batches import Partitioner, RecordBatch, drive, reached

logger = logging.getLogger(__name__)

KINDS = {"tutors": "tutor", "sessions": "session", "feedback": "feedback", "tutor-events": "tutor_event"}
"""Short name of a raw topic -> the kind of event it carries."""


@dataclass(frozen=True, slots=True)
class Validate:
    """The step for one raw topic."""

    topic: str  # short name
    validated_topic: str
    parser: Parser
    breaker: Breaker
    home_partition: Partitioner
    send: Sender
    dead_letters: DeadLetters
    clock: Clock
    telemetry: Telemetry

    async def __call__(self, batch: RecordBatch) -> list[asyncio.Future[Any]]:
        await self._wait_for_breaker(batch)
        homes: dict[int, list[Validated]] = defaultdict(list)
        confirmations: list[asyncio.Future[Any]] = []
        reasons: Counter[str] = Counter()
        warned: Counter[str] = Counter()
        with_warnings = tombstones = 0
        topic, kind, now_us = self.topic, KINDS[self.topic], self.clock()
        judge, home_partition = self._judge, self.home_partition.of_new
        for record in batch.records:
            value, time_ms = record.value, record.timestamp
            if value is None:
                tombstones += 1
                continue
            outcome = judge(kind, value, max(time_ms * 1000, now_us))
            if type(outcome) is Rejected:
                reasons[outcome.reason] += 1
                confirmations.append(
                    await self.dead_letters.refuse_record(record, topic, outcome.reason, outcome.detail)
                )
                continue
            event, warnings = outcome.event, outcome.warnings
            if warnings:
                with_warnings += 1
                warned.update(warnings)
            origin = Origin(topic, record.partition, record.offset, time_ms)
            homes[home_partition(event.home_id)].append(Validated(event, digest(event), origin, warnings))
        for partition, events in homes.items():
            confirmations += [
                await self.send.send(self.validated_topic, pack, partition=partition)
                for pack in wire.packs(events, wire.pack_validated)
            ]
        await reached("hop sent")
        for warning, times in warned.items():
            self.telemetry.count("warnings", times, topic=topic, warning=warning)
        for reason, times in reasons.items():
            self.telemetry.count("dead_letters", times, topic=topic, reason=reason)
        self._count(len(batch.records), reasons.total(), with_warnings, tombstones)
        return confirmations

    def _judge(self, kind: str, value: bytes, now_us: int) -> Any:
        try:
            return self.parser.parse(kind, value, now_us)
        except Exception as exc:
            # A bug of ours must not block the partition: the record is kept with what went wrong.
            logger.exception("a record of %s made the parser raise", self.topic)
            return Rejected("error", f"validation raised {type(exc).__name__}; please report it")

    def _count(self, records: int, rejected: int, warned: int, tombstones: int) -> None:
        count = self.telemetry.count
        for fate, amount in (
            ("accepted", records - rejected - warned - tombstones),
            ("accepted_with_warnings", warned),
            ("dead_letter", rejected),
            ("tombstone", tombstones),
        ):
            if amount:
                count("events", amount, topic=self.topic, fate=fate)
        if self.breaker.passed(records - tombstones, rejected, time.monotonic()):
            self.telemetry.set("breaker_open", 1, topic=self.topic)
            logger.error(
                "breaker open: most of topic %s is being rejected; reading it again in a while. See the dead letters "
                "(tutormax-streams dead-letters list) and mend the producer",
                self.topic,
            )
        elif self.breaker.state == "closed":
            self.telemetry.set("breaker_open", 0, topic=self.topic)

    async def _wait_for_breaker(self, batch: RecordBatch) -> None:
        while (wait := self.breaker.wait_seconds(time.monotonic())) > 0:
            await batch.while_owned(asyncio.sleep(min(wait, 1.0)))


def attach(app: faust.App, topics: Mapping[str, str], steps: Mapping[str, Validate]) -> None:
    """One agent per raw topic, so that a topic whose breaker is open holds up no other."""
    for short_name, step in steps.items():
        drive(app, topics[short_name], step, f"validate-{short_name}")
