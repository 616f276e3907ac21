"""A Faust consumer that delivers batches.

1. One stream event is a run of up to `batch_records` records of one partition, in order, none twice.
2. The committed offset is the end of the longest run of batches that were said to be done.
3. What was fetched and not delivered is sought again at once. The offset expected next starts at the *committed* one,
   never at the fetcher's position: a fetch already running in the consumer's thread moves that.
4. A record that does not follow its predecessor causes one re-seek; a real hole (retention, compaction, transaction
   markers) shows itself the same twice and is then accepted and reported. At the end of a log none shows itself: the
   client's position there, twice, does, and then the rest is not behind.
5. A partition with `max_in_flight` unfinished batches is not fetched, so a slow one never stands in others' way.
6. Work that has begun goes first: raw topics are read when nothing waits in packed ones, and a little each second.

Known weakness: a topic written in transactions costs one re-seek per transaction marker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import faust
from aiokafka.errors import IllegalStateError
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP, ConsumerMessage
from mode import Service

from tutormax_streams.batches.consumer_thread import BatchConsumerThread
from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.delivery import Arrears, Delivery, Position
from tutormax_streams.batches.producer import ConfirmingProducer
from tutormax_streams.batches.records import Record, RecordBatch, being_cancelled
from tutormax_streams.batches.recovery import ImpatientRecovery, apply_changelog

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0  # for work under way when partitions leave
COMMIT_DEADLINE_SECONDS = 16.0  # twice the thread's own: then the thread does not answer
STUCK_SECONDS = 5.0
STARVED_SECONDS = 60.0  # when other partitions keep the fetcher busy
CUT_SHORT_SECONDS = 30.0  # after a change of leader a log may seem shorter for a moment


class LogCutShort(Exception):
    """Records that were read are not in the log any more. The start-up check knows what to do about it."""


class BatchConsumer(Consumer):
    """See the module's law. Class attributes are set per app by `attach_batches`."""

    fetch_min_bytes = 1 << 18
    fetch_max_wait_ms = 50
    fetch_max_bytes = 8 << 20
    batch_records = 1000
    batch_bytes = 1 << 20
    max_in_flight = 4
    batch_topics: frozenset[str] = frozenset()
    packed_topics: frozenset[str] = frozenset()
    packed_bytes = 1 << 18  # a record of a packed topic carries many events
    _thread: BatchConsumerThread
    on_gap: Callable[[TP, int, int], None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._deliveries: dict[TP, Delivery] = {}
        self._arrears: defaultdict[TP, Arrears] = defaultdict(Arrears)
        self.fetches = 0  # answered by the thread, with or without records
        self.is_fetching = False
        self._committing: asyncio.Future[bool] | None = None
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> Any:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- delivery -----------------------------------------------------------------------------------------------

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        if active_partitions is None:
            return await super()._getmany(None, timeout)
        with_room = {tp for tp in active_partitions if self._has_room(tp)}
        if not with_room:
            await asyncio.sleep(0.02)
            return {}
        begun = {tp for tp in with_room if tp.topic in self.packed_topics}
        if len(begun) == len(with_room):
            begun = set()
        # A partition may gain room at any moment: wait shortly when some had none.
        self.is_fetching = True
        try:
            found = await self._thread.fetch(
                begun, with_room, timeout if len(with_room) == len(active_partitions) else 0.05
            )
        finally:
            self.is_fetching = False
        self.fetches += 1
        if not found:
            for tp in with_room:
                if delivery := self._deliveries.get(tp):
                    delivery.empty_fetches += 1
        return found

    def _has_room(self, tp: TP) -> bool:
        delivery = self._deliveries.get(tp)
        if delivery is None:
            return True
        delivery.settle()
        return len(delivery.in_flight) < self.max_in_flight

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's
        """Yield one message per batch, round robin over partitions."""
        fetched, _ = await self._wait_next_records(timeout)
        if not fetched or self.should_stop or not self.flow_active:
            return  # whoever stopped the flow seeks before it resumes: see perform_seek
        generation = self.app.consumer_generation_id
        waiting: deque[tuple[TP, Delivery, Iterator[list[Record]]]] = deque()
        for tp, records in fetched.items():
            if self._is_changelog_tp(tp):
                if tp not in self._paused_partitions:
                    await apply_changelog(self.app, tp, records)
            elif delivery := self._deliveries.get(tp):  # else it is not positioned yet: perform_seek rewinds
                runs = await self._runs(tp, delivery, records)
                waiting.append((tp, delivery, iter(runs)))
        while waiting:
            tp, delivery, runs_left = waiting.popleft()
            run = next(runs_left, None)
            if run is None:
                continue
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if self._deliveries.get(tp) is not delivery:
                continue  # positioned anew since
            if tp in self._paused_partitions or run[0].offset < delivery.expected:
                await self._rewind(tp, delivery)  # not delivered: fetch it again
                continue
            batch = RecordBatch(tp, run)
            delivery.in_flight.append(batch)
            delivery.expected = batch.last + 1
            yield tp, self._message(batch, generation)
            waiting.append((tp, delivery, runs_left))

    async def _runs(self, tp: TP, delivery: Delivery, records: Sequence[Record]) -> list[list[Record]]:
        """What follows of the records; seeks where something is missing before them."""
        taken = delivery.take(
            records, self.batch_records, self.packed_bytes if tp.topic in self.packed_topics else self.batch_bytes
        )
        if taken.again is not None:
            await self._rewind(tp, delivery)
        if taken.gap is not None:
            logger.warning("%s-%s: offsets %s to before %s are not in the log any more", *tp, *taken.gap)
            if self.on_gap is not None:
                self.on_gap(tp, *taken.gap)
        return taken.runs

    async def _rewind(self, tp: TP, delivery: Delivery) -> None:
        """Fetch again from what is expected next."""
        try:
            await self._thread.seek_here(tp, delivery.expected)
        except IllegalStateError:
            logger.info("%s-%s has left: its next owner begins at the committed offset", *tp)

    def _message(self, batch: RecordBatch, generation: int) -> ConsumerMessage:
        tp, newest = batch.tp, batch.records[-1]
        self.app.monitor.track_tp_end_offset(tp, self._end(tp) or 0)
        return ConsumerMessage(
            tp.topic, tp.partition, batch.last, newest.timestamp / 1000.0, 0, None, None, cast(bytes, batch), None, 0, 0,
            tp, generation_id=generation,
        )  # fmt: skip

    def _end(self, tp: TP) -> int | None:
        """The log's end as of the last fetch; None before the first, and after the partition left."""
        return self._thread.log_end(tp)

    def on_buffer_full(self, tp: TP) -> None:
        """Room is counted per partition by `max_in_flight`; Faust's own queue pressure must not pause anything."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`; the stock version wakes partitions that are paused for recovery."""

    # -- positions ----------------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Start every partition at its committed offset, or at the log's start where nothing was committed."""
        self.stop_flow()  # nothing is delivered until the caller resumes
        self._forget(set(self._deliveries))
        await super().perform_seek()
        mine = [tp for tp in self.assignment() if tp.topic in self.batch_topics]
        unknown = [tp for tp in mine if self._read_offset.get(tp) is None]
        starts = await self.earliest_offsets(*unknown) if unknown else {}
        for tp in mine:
            committed = self._read_offset.get(tp)
            expected = starts[tp] if committed is None else committed
            self._deliveries[tp] = Delivery(expected)
            await self._thread.seek_here(tp, expected)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish or drop what is under way, commit what is done, forget the rest."""
        await super().on_partitions_revoked(revoked)
        self._forget(set(self._deliveries))

    def _forget(self, tps: set[TP]) -> None:
        """Whatever is still under way belongs to nobody any more."""
        for tp in tps:
            for batch in self._deliveries.pop(tp).in_flight:
                batch.revoke()

    async def wait_empty(self) -> None:
        """Give work under way a moment, then revoke it; commit what is done. Never waits longer than the grace."""
        deadline = time.monotonic() + GRACE_SECONDS
        # Looking now and then is cheaper than an event per batch.
        while time.monotonic() < deadline and any(batch.is_taken for batch in self._unfinished()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for batch in self._unfinished():
            batch.revoke()
        await asyncio.sleep(0)
        self._unacked_messages.clear()
        await self.commit()

    def _unfinished(self) -> list[RecordBatch]:
        in_flight = (batch for delivery in self._deliveries.values() for batch in delivery.in_flight)
        return [batch for batch in in_flight if not batch.is_done and not batch.revoked]

    @Service.task
    async def _watch_positions(self) -> None:
        async for _ in self.itertimer(1.0, name="watch-positions"):
            for tp, delivery in list(self._deliveries.items()):
                await self._watch(tp, delivery, time.monotonic())

    async def _watch(self, tp: TP, delivery: Delivery, now: float) -> None:
        """Seek again where records are known to wait and none came for a while, although fetches had nothing to do.

        Raises `LogCutShort` if the log has ended before what was read of it for longer than a change of leader takes.
        """
        end = self._end(tp)
        if end is None or end >= delivery.expected:
            delivery.short_since = None
        elif delivery.short_since is None:
            delivery.short_since = now
        elif now - delivery.short_since > CUT_SHORT_SECONDS:
            raise LogCutShort(
                f"{tp.topic}-{tp.partition} ends at {end}, but was read up to {delivery.expected}: the log was cut short "
                "or the topic made anew, and what is written to it now would be taken for old"
            )
        is_coming = tp in self._thread.brought  # handing out what a fetch brought takes a busy worker seconds
        is_due = self.flow_active and tp not in self._paused_partitions and not delivery.in_flight and not is_coming
        position = self._thread.position_now(tp)
        is_past = position is not None and end is not None and position >= end
        is_odd = (is_past or delivery.empty_fetches > 2) and delivery.barren_end != end
        patience = STUCK_SECONDS if is_odd else STARVED_SECONDS
        if end is None or delivery.expected >= end or not is_due:
            delivery.idle_since, delivery.empty_fetches = now, 0
        elif now - delivery.idle_since > patience:
            delivery.idle_since, delivery.empty_fetches = now, 0
            if not (is_past and delivery.found_nothing_before(end)):
                logger.warning("%s-%s: nothing came for a while, seeking %s", *tp, delivery.expected)
            await self._rewind(tp, delivery)

    async def committed(self, tp: TP) -> int | None:
        """The group's committed offset, asked of the broker."""
        found: int | None = await self._thread.committed(tp)
        return found

    def silence_seconds(self) -> float | None:
        """How long no fetch has been answered; None where none is expected to be."""
        if not self.flow_active or not any(self._has_room(tp) for tp in self._deliveries):
            return None
        return self._thread.silence_seconds()

    def thread_silence_seconds(self) -> float | None:
        """The same whether or not anything is fetched for agents; recovery fetches too."""
        return self._thread.silence_seconds()

    @property
    def is_assigned(self) -> bool:
        """Whether it has partitions. It has none before its thread has begun, which takes a busy machine a second."""
        try:
            return bool(self.assignment())
        except ConsumerNotStarted:
            return False

    def unconfirmed_seconds(self) -> float | None:
        """How long ago the group last knew us for a member; None before the first assignment."""
        return self._thread.unconfirmed_seconds()

    def thread_beats(self) -> int | None:
        """How often the consumer's thread has beaten; None while it is not meant to. May be asked by any thread."""
        return None if self._thread.should_stop else self._thread.beats or None

    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the consumer's thread."""
        found: asyncio.AbstractEventLoop = self._thread.thread_loop
        return found

    def positions(self) -> dict[TP, Position]:
        """Where every batch partition of this worker stands."""
        found = {}
        now = time.monotonic()
        for tp, delivery in self._deliveries.items():
            delivery.settle()
            head = delivery.in_flight[0] if delivery.in_flight else None
            committed, end = self._committed_offset.get(tp), delivery.deliverable_end(self._end(tp))
            found[tp] = Position(
                committed,
                delivery.expected,
                end,
                len(delivery.in_flight),
                head.oldest_ms if head else None,
                delivery.committable,
                head.first if head and head.is_taken else None,
                delivery.begun,
                self._arrears[tp].seconds(delivery.begun if committed is None else committed, end, now),
            )
        return found

    async def verify_all_partitions_active(self) -> None:
        """Faust's own detector judges by its acknowledgements, which we do not use: `_watch` looks instead."""

    # -- commit -------------------------------------------------------------------------------------------------

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is done. One that hangs is given up, or all that come after would wait for it."""
        committing = self._committing = asyncio.ensure_future(super().commit(topics, start_new_transaction))
        try:
            return bool(await asyncio.wait_for(committing, COMMIT_DEADLINE_SECONDS))
        except TimeoutError:
            logger.warning("a commit was not answered within %s s, will be tried again", COMMIT_DEADLINE_SECONDS)
        except asyncio.CancelledError:
            if being_cancelled():
                raise
        return False

    async def commit_at_once(self) -> bool:
        """Give up the commit that may hang, and commit what is done."""
        if self._committing is not None:
            self._committing.cancel()
            await asyncio.wait({self._committing})
        return await self.commit()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self._deliveries if topics is None or tp in topics or tp.topic in topics])

    def _new_offset(self, tp: TP) -> int | None:
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        delivery = self._deliveries.get(tp)
        return None if delivery is None else delivery.settle()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Never infer that something was acknowledged from a hole in what was delivered."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        await reached("committing")
        # A crash ends the consumer's thread at once: what is asked of it then is answered by "event loop is closed",
        # which would take the place of the reason and keep the rest of the worker from being stopped in order.
        if self._thread.should_stop or not await super()._commit(offsets):
            return False
        await reached("offsets committed")
        return True

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        assignment = self.assignment()
        mine = {tp: offset for tp, offset in offsets.items() if tp in assignment}
        if not mine or not await self._commit(mine):
            return False
        self._committed_offset.update(mine)
        self.app.monitor.on_tp_commit(mine)
        return True


def batch_consumer(app: faust.App) -> BatchConsumer | None:
    """The consumer of an app made by `attach_batches`, once there is one."""
    return cast(BatchConsumer | None, app._consumer)


class BatchTransport(Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer = BatchConsumer
    Producer = ConfirmingProducer


def attach_batches(
    app: faust.App,
    topics: Iterable[str],
    *,
    packed_topics: Iterable[str] = (),
    idempotent: bool = True,
    **overrides: Any,
) -> None:
    """Make `app` deliver `topics` in batches. `overrides` replace class attributes of `BatchConsumer`."""
    attributes = {"batch_topics": frozenset(topics), "packed_topics": frozenset(packed_topics), **overrides}
    consumer = type("AppBatchConsumer", (BatchConsumer,), attributes)
    producer = type("AppProducer", (ConfirmingProducer,), {"idempotent": idempotent})
    transport = type("AppTransport", (BatchTransport,), {"Consumer": consumer, "Producer": producer})
    app.transport = transport(app.conf.broker_consumer, app)
    app.producer_transport = transport(app.conf.broker_producer, app)
    tables: Any = app.tables
    tables._recovery = ImpatientRecovery(app, tables, beacon=tables.beacon)
