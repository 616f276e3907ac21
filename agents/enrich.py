"""Enrich: the join by home. Decides which version of an entity counts, and tells everyone whom it concerns.

Winning events go to `enriched` with what follows from them; the components of a session, a tutor event or a tutor's
standing go to `facts`, to each tutor ever named, on every event. It must not look at the clock for deciding versions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import faust
import msgspec

from agents import culprits, reading
from agents.ports import Clock, DeadLetters, Sender, Telemetry
from models import homes, wire
from models.enrichment import DELAY, Derived, delay_hours, derived
from models.events import Enriched, Feedback, Session, Validated
from models.facts import Barrier, Fact
from models.homes import Home, SessionHome
from tables import entities
from tutormax_streams.batches import MergedTable, Partitioner, RecordBatch, Revoked, drive, reached

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0


class _Arrival(NamedTuple):
    """An event with its key, what its home would be if it were alone (None: too old to be remembered), and what
    contract §3 derives from it alone."""

    validated: Validated
    key: bytes
    home: Home | None
    fields: Derived


@dataclass(slots=True)
class Enrich:
    """The step for topic `validated`."""

    enriched_topic: str
    facts_topic: str
    entities: MergedTable[Home]
    tutor_partition: Partitioner
    send: Sender
    dead_letters: DeadLetters
    clock: Clock
    telemetry: Telemetry
    _under_way: dict[int, set[asyncio.Future[Any]]] = field(default_factory=lambda: defaultdict(set))

    async def __call__(self, batch: RecordBatch) -> list[asyncio.Future[Any]]:
        entries, confirmations = await reading.entries(
            batch, wire.unpack_validated, self.dead_letters, self.telemetry, "validated"
        )
        events: list[Validated] = []
        for entry in entries:
            if isinstance(entry, wire.HistoryEnd):
                confirmations += self._watched(batch.partition, await self._join(batch.partition, events))
                events = []
                confirmations += await self._announce_end(batch, entry.epoch)
            else:
                events += entry.events
        return confirmations + self._watched(batch.partition, await self._join(batch.partition, events))

    def _watched(self, partition: int, confirmations: list[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
        under_way = self._under_way[partition]
        for confirmation in confirmations:
            under_way.add(confirmation)
            confirmation.add_done_callback(under_way.discard)
        return confirmations

    async def _join(self, partition: int, events: list[Validated]) -> list[asyncio.Future[Any]]:
        """`_joined`; an event that makes it raise is refused alone."""
        try:
            return await self._joined(partition, events)
        except culprits.OF_CONTENT as exc:
            logger.exception("of %s events not all could be joined, now one by one", len(events))
            done, found = await culprits.one_by_one(events, lambda one: self._joined(partition, one), exc)
        confirmations = [confirmation for one in done for confirmation in one]
        for validated, failure in found:
            detail = f"the join raised {type(failure).__name__}; please report it"
            confirmations.append(await self._refuse(validated, "enrichment", detail))
        return confirmations

    async def _joined(self, partition: int, events: list[Validated]) -> list[asyncio.Future[Any]]:
        """Remember the events at their homes and send what follows from them."""
        if not events:
            return []
        now_us = self.clock()
        arrivals, refusals = await self._arrivals(events, now_us)
        incoming: dict[bytes, Home] = {}
        touched: dict[bytes, Validated] = {}  # one event of each home, the oldest in the log
        moved: set[bytes] = set()  # homes that saw a session in this batch
        too_old = 0
        for validated, key, home, _ in arrivals:
            if home is None:
                too_old += 1
                continue
            known = incoming.get(key)
            if known is None:
                incoming[key], touched[key] = home, validated
            else:
                incoming[key] = homes.merge(known, home)
            if type(validated.event) is Session:
                moved.add(key)
        if too_old:
            self.telemetry.count("too_old", too_old)
        standing, confirmations = await self.entities.merge(partition, incoming, homes.outgrown)
        if full := incoming.keys() - standing.keys():
            arrivals, more = await self._fitting(partition, arrivals, full, standing)
            confirmations += more
        enriched = self._winners(arrivals, standing)
        delays = list(self._late_delays(standing, moved, touched))
        by_tutor: dict[int, list[Fact]] = defaultdict(list)
        facts_of, partition_of = homes.facts, self.tutor_partition
        for key, home in standing.items():
            first = touched[key]
            for fact in facts_of(first.event.home_id, home, first.origin.time_ms):
                by_tutor[partition_of(fact.tutor_id)].append(fact)
        send = self.send.send
        for pack in wire.packs(enriched, wire.pack_enriched):
            confirmations.append(await send(self.enriched_topic, pack, partition=partition))
        for pack in wire.packs(delays, lambda part: wire.pack_enriched((), part)):
            confirmations.append(await send(self.enriched_topic, pack, partition=partition))
        await reached("one output of enrich sent")
        for tutors, facts in by_tutor.items():
            for pack in wire.packs(facts, wire.pack_facts):
                confirmations.append(await send(self.facts_topic, pack, partition=tutors))
        return confirmations + refusals

    async def _arrivals(self, events: list[Validated], now_us: int) -> tuple[list[_Arrival], list[asyncio.Future[Any]]]:
        """What each event brings; one that raises is refused before anything is remembered of it."""
        arrivals: list[_Arrival] = []
        refusals: list[asyncio.Future[Any]] = []
        for validated in events:
            event = validated.event
            try:
                home = None if homes.too_old(event, now_us) else homes.home_of(validated)
                arrivals.append(_Arrival(validated, homes.home_key(event), home, derived(event, now_us)))
            except Exception as exc:
                logger.exception("an event of %s could not be enriched", validated.origin.topic)
                detail = f"enrichment raised {type(exc).__name__}; please report it"
                refusals.append(await self._refuse(validated, "enrichment", detail))
        return arrivals, refusals

    async def _fitting(
        self, partition: int, arrivals: list[_Arrival], full: set[bytes], standing: dict[bytes, Home]
    ) -> tuple[list[_Arrival], list[asyncio.Future[Any]]]:
        """Of events whose home (one of `full`) cannot take all of them, those it can take; the others are refused."""
        fitting: list[_Arrival] = []
        confirmations: list[asyncio.Future[Any]] = []
        known = {key: self.entities.get(partition, key) for key in full}
        news: dict[bytes, Home] = {}
        for arrival in arrivals:
            validated, key, mine, _ = arrival
            if key in full and mine is not None:
                held, more = known[key], news.get(key)
                merged = mine if held is None else homes.merge(held, mine)
                if homes.outgrown(held, merged):
                    detail = (
                        f"tutor_id: it would be tutor number {homes.MOST_TUTORS + 1} that versions of this "
                        f"{'tutor event' if key[:1] == b'e' else 'session or its feedback'} name, and "
                        f"{homes.MOST_TUTORS} are the most that are remembered"
                    )
                    confirmations.append(await self._refuse(validated, "too_many_tutors", detail))
                    continue
                known[key], news[key] = merged, mine if more is None else homes.merge(more, mine)
            fitting.append(arrival)
        merged_news, more_confirmations = await self.entities.merge(partition, news)
        standing.update(merged_news)
        return fitting, confirmations + more_confirmations

    async def _refuse(self, validated: Validated, reason: str, detail: str) -> asyncio.Future[Any]:
        self.telemetry.count("dead_letters", topic=validated.origin.topic, reason=reason)
        stand_in = msgspec.json.encode(validated.event)
        return await self.dead_letters.refuse_event(validated.origin, stand_in, reason, detail)

    def _winners(self, arrivals: list[_Arrival], standing: dict[bytes, Home]) -> list[Enriched]:
        """Those that their homes hold to be current, each once, and all that are too old for a home to remember: of
        them PostgreSQL's own guard knows more."""
        winners: dict[tuple[bytes, type], Enriched] = {}
        old: list[Enriched] = []
        superseded = 0
        is_winner = homes.is_winner
        for validated, key, mine, fields in arrivals:
            event = validated.event
            home = standing.get(key)
            if mine is not None and home is not None and not is_winner(validated, home):
                superseded += 1
                continue
            if type(event) is Feedback and type(home) is SessionHome and home.session is not None:
                fields[DELAY] = delay_hours(event.submitted_us, home.session.start_us)
            enriched = Enriched(event, validated.digest, validated.origin, fields, validated.warnings)
            if mine is None:
                old.append(enriched)
            else:
                winners[key, type(event)] = enriched
        if superseded:
            self.telemetry.count("superseded", superseded)
        return [*winners.values(), *old]

    def _late_delays(
        self, standing: dict[bytes, Home], moved: set[bytes], touched: dict[bytes, Validated]
    ) -> Iterable[wire.LateDelay]:
        """Delays of feedback that was here before its session was, or before it moved."""
        for key in moved:
            home = standing.get(key)  # None: each of its events was refused
            if isinstance(home, SessionHome) and home.session is not None and home.feedback is not None:
                submitted_us = home.feedback.version_us
                hours = delay_hours(submitted_us, home.session.start_us)
                yield wire.LateDelay(touched[key].event.home_id, submitted_us, hours)

    async def _announce_end(self, batch: RecordBatch, epoch: int) -> list[asyncio.Future[Any]]:
        """Everything of the database's history is behind us: say so to every partition of `facts`, after it landed."""
        if under_way := list(self._under_way[batch.partition]):
            await batch.while_owned(_all(under_way))
        pack = wire.pack_facts([Barrier(epoch, batch.partition)])
        return [
            await self.send.send(self.facts_topic, pack, partition=partition)
            for partition in range(self.tutor_partition.partitions)
        ]


async def _all(futures: list[asyncio.Future[Any]]) -> None:
    await asyncio.gather(*futures)


def attach(app: faust.App, validated_topic: str, step: Enrich) -> None:
    """The agent, and beside it the forgetting of homes that have expired."""
    drive(app, validated_topic, step, "enrich")
    sweeper = entities.sweeper(step.entities)

    @app.task
    async def forget_homes() -> None:
        while not app.should_stop:
            await asyncio.sleep(SWEEP_SECONDS)
            if not app.tables.actives_ready or app.rebalancing:
                continue
            for partition in step.entities.owned_partitions():
                with contextlib.suppress(Revoked):
                    _, confirmations = await sweeper.step(partition, step.clock())
                    await asyncio.gather(*confirmations)
