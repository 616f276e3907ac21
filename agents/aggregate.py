"""Aggregate: the windows by tutor. Merges components as they come and publishes each tutor's three windows.

1. A tutor with news is published at once, and then at most once a second. While a backlog is worked off its news is
   old anyway: then each tutor waits a quarter of that age, at most `MOST_PATIENCE_US`, and computing is left to events.
2. A tutor without news is published again at its next instant of change (a session leaves the trailing edge or
   ripens at the leading one), and at least every `REFRESH_SECONDS`, spread evenly.
3. After an assignment nothing is published before the position has reached the log end noted then; after that every
   owned tutor is, those with news first. So nothing depends on a mark that a crash could wipe out.
4. A record's fence is (epoch, position in `facts`, as-of). The as-of of a partition never goes back.
5. While a rebuild has not passed every home (`Barriers`), nothing is published: no figure from part of the history.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import faust
import msgspec

from agents import culprits, reading
from agents.ports import Clock, DeadLetters, Sender, Telemetry
from models import metrics, wire
from models.events import Origin
from models.facts import Barrier, Fact, newest_us
from models.metrics import EngagementMode, MetricsUpdated
from tables.tutor_windows import TutorWindows
from tutormax_streams.batches import RecordBatch, Revoked, crash_soon, drive

logger = logging.getLogger(__name__)

SECOND_US = 1_000_000
PUBLISH_INTERVAL_US = SECOND_US
MOST_PATIENCE_US = 10 * SECOND_US
IDLE_US = 300_000  # without facts for so long, nobody needs to be patient
REFRESH_SECONDS = 14 * 60  # the promise is 15 minutes
PACED_TUTORS_PER_SECOND = 400
TICK_SECONDS = 0.05
TICK_BUDGET_US = 40_000  # how long one tick may compute, over all partitions, before the stream gets its turn
SWEEP_EVERY_TICKS = 600  # 30 s: a round over 100,000 keys takes some 17 hours, of a retention of 121 days
APPEND_TIME = 1  # Kafka's LogAppendTime: the broker's clock


class Tutor(msgspec.Struct, gc=False):
    """What is known of a tutor besides facts, in memory only."""

    published_us: int = 0  # by the clock
    due_us: int = 0
    queued_us: int = 0  # its place in the queue of what is due, at or before `due_us`; 0: none
    news: int = 0  # events since the last publication
    fresh_us: int = 0  # its place in the queue of those with news
    oldest_ms: int | None = None
    settled_us: int = 0  # from when on its figures are worth an alert


@dataclass(slots=True)
class Shard:
    """One partition of `facts` during one assignment."""

    partition: int
    writer: bytes  # the assignment it belongs to
    catch_up_to: int
    as_of_us: int
    position: int = 0
    settled_us: int = 0  # as of its tutors
    gate_open: bool = False
    enumerated: bool = False
    tutors: dict[str, Tutor] = field(default_factory=dict)
    fresh: list[tuple[int, str]] = field(default_factory=list)  # tutors with news, by when they may be published
    due: list[tuple[int, str]] = field(default_factory=list)  # all tutors, by when they must be published again

    @property
    def caught_up(self) -> bool:
        return self.position >= self.catch_up_to

    @property
    def publishing(self) -> bool:
        return self.enumerated and self.gate_open and self.caught_up

    def resting(self, now_us: int, idle: bool) -> bool:
        """Nobody is due, and nothing else is to be done before somebody is."""
        fresh = self.fresh and (idle or self.fresh[0][0] <= now_us)
        return self.enumerated and not fresh and not (self.due and self.due[0][0] <= now_us)

    def tell(self, tutor_id: str, time_ms: int, now_us: int) -> Tutor:
        """There is news of a tutor, an event of Kafka time `time_ms` (0: unknown)."""
        tutor = self.tutors.get(tutor_id)
        if tutor is None:
            tutor = self.tutors[tutor_id] = Tutor()
        tutor.news += 1
        if time_ms and (tutor.oldest_ms is None or time_ms < tutor.oldest_ms):
            tutor.oldest_ms = time_ms
        patience_us = min((now_us - time_ms * 1000) // 4, MOST_PATIENCE_US) if time_ms else 0
        at_us = max(now_us, min(tutor.published_us, now_us) + max(patience_us, PUBLISH_INTERVAL_US))
        if tutor.news == 1 or at_us < tutor.fresh_us:
            tutor.fresh_us = at_us
            heapq.heappush(self.fresh, (at_us, tutor_id))
        return tutor

    def schedule(self, tutor_id: str, at_us: int) -> None:
        """A tutor is due then. Mostly it is put off, and keeps its place until that comes up: one place a tutor."""
        tutor = self.tutors[tutor_id]
        tutor.due_us = at_us
        if not tutor.queued_us or at_us < tutor.queued_us:
            tutor.queued_us = at_us
            heapq.heappush(self.due, (at_us, tutor_id))

    def next_due(self, now_us: int, idle: bool = False) -> str | None:
        """The tutor who may be published by now and has waited longest, or None. `idle`: patience is over."""
        while True:
            is_due = bool(self.due) and (self.due[0][0] <= now_us or not idle)
            queue = self.fresh if self.fresh and (not is_due or self.fresh[0] < self.due[0]) else self.due
            if not queue:
                return None
            at_us, tutor_id = queue[0]
            if at_us > now_us and not (idle and queue is self.fresh and self._waited(tutor_id, now_us)):
                return None
            heapq.heappop(queue)
            tutor = self.tutors[tutor_id]
            if queue is self.fresh:
                if tutor.news and self._waited(tutor_id, now_us):
                    return tutor_id
                continue  # it was published meanwhile; news since then have a place of their own
            if tutor.queued_us != at_us:
                continue  # it took an earlier place
            tutor.queued_us = 0
            if tutor.due_us <= now_us:
                return tutor_id
            self.schedule(tutor_id, tutor.due_us)

    def _waited(self, tutor_id: str, now_us: int) -> bool:
        published_us = self.tutors[tutor_id].published_us
        return published_us > now_us or published_us + PUBLISH_INTERVAL_US <= now_us  # a clock may have been put back


@dataclass(slots=True)
class Assignment:
    """What is noted of a partition of `facts` when it comes to this worker."""

    log_end: int
    committed: int
    last_as_of_us: int


@dataclass(slots=True)
class Aggregate:
    """The step for topic `facts`, and the publisher beside it."""

    metrics_topic: str
    windows: TutorWindows
    send: Sender
    dead_letters: DeadLetters
    clock: Clock
    telemetry: Telemetry
    epoch: int
    needs_barriers: int  # how many partitions of `validated` must have passed; 0 if the epoch began empty
    mode: EngagementMode
    note_assignment: Callable[[int], Awaitable[Assignment]]
    settle_us: int = 30 * SECOND_US  # news older than that is no news: for so long after it figures are not settled
    on_failure: Callable[[BaseException], None] | None = None
    shards: dict[int, Shard] = field(default_factory=dict)
    _beginning: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ticks: int = 0
    _last_batch_us: int = 0

    async def __call__(self, batch: RecordBatch) -> list[asyncio.Future[Any]]:
        shard = await self._shard(batch.partition)
        packs, refusals = await reading.entries(batch, wire.unpack_facts, self.dead_letters, self.telemetry, "facts")
        incoming = [fact for pack in packs for fact in pack]
        confirmations = await self._absorb(batch, incoming)
        now_us = self.clock()
        settled_us, old_us = now_us + self.settle_us, now_us - self.settle_us
        for fact in incoming:
            if isinstance(fact, Barrier):
                shard.gate_open = shard.gate_open or self._all_passed(batch.partition)
            else:
                tutor = shard.tell(fact.tutor_id, fact.time_ms, now_us)
                if newest_us(fact) < old_us:  # history flows in
                    tutor.settled_us = settled_us
                if fact.time_ms * 1000 < old_us:  # we are behind, with everybody
                    shard.settled_us = settled_us
        shard.position = batch.last + 1
        self._last_batch_us = now_us
        return confirmations + refusals

    async def _absorb(self, batch: RecordBatch, incoming: list[Fact | Barrier]) -> list[asyncio.Future[Any]]:
        """Merge what came; a fact that makes that raise is refused alone."""
        absorb = self.windows.absorb
        try:
            return await absorb(batch.partition, incoming)
        except culprits.OF_CONTENT as exc:
            logger.exception("of %s facts not all could be merged, now one by one", len(incoming))
            done, found = await culprits.one_by_one(incoming, lambda one: absorb(batch.partition, one), exc)
        confirmations = [confirmation for one in done for confirmation in one]
        if found:  # one letter for all of them, for a letter is known by its place
            refused = [fact for fact, _ in found]
            self.telemetry.count("dead_letters", len(refused), topic="facts", reason="merge")
            origin = Origin("facts", batch.partition, batch.first, getattr(refused[0], "time_ms", 0))
            detail = f"merging the fact raised {type(found[0][1]).__name__}; please report it"
            stand_in = msgspec.json.encode(refused if len(refused) > 1 else refused[0])
            confirmations.append(await self.dead_letters.refuse_event(origin, stand_in, "merge", detail))
        return confirmations

    # -- shards -------------------------------------------------------------------------------------------------

    async def _shard(self, partition: int) -> Shard:
        """The shard of this assignment, begun anew when the partition came (back) to this worker."""
        shard = self.shards.get(partition)
        if shard is not None and shard.writer == self._writer(partition):
            return shard
        async with self._beginning:  # the agent and the publisher may both be first
            shard = self.shards.get(partition)
            writer = self._writer(partition)
            if shard is None or shard.writer != writer:
                self.windows.forget(partition)
                noted = await self.note_assignment(partition)
                as_of_us = max(noted.last_as_of_us, shard.as_of_us if shard is not None else 0)
                shard = Shard(partition, writer, noted.log_end, as_of_us, noted.committed)
                shard.settled_us = self.clock() + self.settle_us
                shard.gate_open = not self.needs_barriers or self._all_passed(partition)
                self.shards[partition] = shard
        return shard

    def _writer(self, partition: int) -> bytes:
        writer = self.windows.table.held.writers.get(partition)
        if writer is None:
            raise Revoked(f"facts-{partition} is not held by this worker")
        return writer

    def _all_passed(self, partition: int) -> bool:
        barriers = self.windows.barriers(partition)
        return barriers is not None and barriers.epoch >= self.epoch and len(barriers.partitions) >= self.needs_barriers

    def _enumerate(self, shard: Shard, now_us: int) -> None:
        """Every tutor of the partition is due once, paced."""
        for number, tutor_id in enumerate(self.windows.tutors(shard.partition)):
            shard.tutors.setdefault(tutor_id, Tutor())
            shard.schedule(tutor_id, now_us + number * SECOND_US // PACED_TUTORS_PER_SECOND)
        shard.enumerated = True

    @property
    def complete(self) -> bool:
        """True when every owned partition answers from all of its history."""
        owned = self.windows.table.owned_partitions()
        return all((shard := self.shards.get(p)) is not None and shard.publishing for p in owned)

    # -- publishing ---------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Publish who is due, for a bounded time; partitions take turns in going first."""
        self._ticks += 1
        owned = self.windows.table.owned_partitions()
        for partition in self.shards.keys() - set(owned):
            del self.shards[partition]
            self.windows.forget(partition)
        now_us = self.clock()
        idle = now_us - self._last_batch_us > IDLE_US
        sweeping = self._ticks % SWEEP_EVERY_TICKS == 0
        first = self._ticks % max(1, len(owned))
        writers = self.windows.table.held.writers
        for partition in owned[first:] + owned[:first]:
            known = self.shards.get(partition)
            at_rest = known is not None and known.writer == writers.get(partition) and known.resting(now_us, idle)
            if at_rest and not sweeping:
                continue
            try:
                shard = await self._shard(partition)
                if not shard.enumerated and shard.gate_open and shard.caught_up:
                    self._enumerate(shard, self.clock())
                if shard.publishing:
                    await self._publish_due(shard, now_us + TICK_BUDGET_US, idle)
                if sweeping:
                    for confirmation in await self.windows.sweep(partition, self.clock()):
                        await confirmation
            except Revoked:
                self.shards.pop(partition, None)

    async def _publish_due(self, shard: Shard, until_us: int, idle: bool) -> None:
        now_us = self.clock()
        while now_us < until_us and (due := shard.next_due(now_us, idle)) is not None:
            try:
                await self._publish(shard, due, now_us)
            except culprits.OF_CONTENT:
                logger.exception("the windows of a tutor cannot be published; tried again later (%s)", due)
                self.telemetry.count("unpublished")
                shard.tutors[due].news = 0
                shard.schedule(due, self._next_refresh(due, now_us))
            now_us = self.clock()

    async def _publish(self, shard: Shard, tutor_id: str, now_us: int) -> None:
        update = self.current(shard.partition, tutor_id)
        tutor = shard.tutors[tutor_id]
        # By the clock, not by as-of: a predecessor whose clock was ahead may have left an as-of that is still to come.
        tutor.published_us, tutor.news, tutor.oldest_ms = now_us, 0, None
        change = self.windows.tutor(shard.partition, tutor_id).next_change(update.as_of_us)
        refresh = self._next_refresh(tutor_id, now_us)
        if not update.is_settled and (update.events or tutor.settled_us > now_us):
            refresh = max(tutor.settled_us, shard.settled_us)  # then it is told what all this has come to
        shard.schedule(tutor_id, refresh if change is None else min(change, refresh))
        future = await self.send.send(
            self.metrics_topic, metrics.encode(update), key=tutor_id.encode(), partition=shard.partition
        )
        future.add_done_callback(self._sent)
        self.telemetry.count("published")

    @staticmethod
    def _next_refresh(tutor_id: str, now_us: int) -> int:
        """When the tutor is published again though nothing happens: at its own place in the round of `REFRESH_SECONDS`, so
        that tutors who began together do not go on together."""
        round_us = REFRESH_SECONDS * SECOND_US
        return now_us + round_us - (now_us + crc32(tutor_id.encode()) * SECOND_US) % round_us

    def _sent(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled():
            return
        failure = future.exception()
        if failure is None:
            record = future.result()
            if record.timestamp_type == APPEND_TIME:
                self.telemetry.set("clock_skew_seconds", self.clock() / 1e6 - record.timestamp / 1e3)
        elif self.on_failure is not None:
            self.on_failure(failure)

    def current(self, partition: int, tutor_id: str) -> MetricsUpdated:
        """A tutor's windows as of now. Raises `Revoked` where the partition is not held, `KeyError` before its time."""
        shard = self.shards[partition]
        if shard.writer != self._writer(partition):
            raise Revoked(f"facts-{partition} left this worker, and has not begun anew")
        shard.as_of_us = as_of_us = max(self.clock(), shard.as_of_us)
        tutor_facts = self.windows.tutor(partition, tutor_id)
        tutor = shard.tutors.get(tutor_id)
        standing = tutor_facts.standing
        return metrics.metrics_updated(
            tutor_id,
            tutor_facts.windows(as_of_us, self.mode),
            as_of_us=as_of_us,
            epoch=self.epoch,
            position=shard.position,
            tutor_name=standing.name if standing else None,
            tutor_status=standing.status if standing else None,
            oldest_event_time_ms=tutor.oldest_ms if tutor else None,
            events=tutor.news if tutor else 0,
            recent=tutor_facts.recent(as_of_us),
            is_settled=tutor is not None and max(tutor.settled_us, shard.settled_us) <= as_of_us,
        )


def attach(app: faust.App, facts_topic: str, step: Aggregate) -> None:
    """The agent and its publisher. Failures stop the worker."""
    step.on_failure = lambda failure: crash_soon(app, failure)
    drive(app, facts_topic, step, "aggregate")

    @app.task
    async def publish() -> None:
        while not app.should_stop:
            if app.tables.actives_ready and not app.rebalancing:
                await step.tick()
            await asyncio.sleep(TICK_SECONDS)
