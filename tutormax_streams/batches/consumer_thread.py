"""The thread that the client of the broker runs in: its own event loop, which beats as long as it lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from aiokafka import TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode import Service

from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.records import being_cancelled

if TYPE_CHECKING:
    from tutormax_streams.batches.consumer import BatchConsumer

COMMIT_DEADLINE_SECONDS = 8.0
BEAT_SECONDS = 0.5
PASSED_OVER_SECONDS = 1.0  # how long raw topics may be, for work that has begun
HELPING_RECORDS = 1_000  # of all raw topics together, then
LISTEN_SECONDS = 0.1


def _telling(url: str) -> type[RoundRobinPartitionAssignor]:
    """Round robin whose members tell the group where their web server is, as Faust's own assignor does."""

    class Telling(RoundRobinPartitionAssignor):  # type: ignore[misc] # aiokafka has no types
        @classmethod
        def metadata(cls, topics: Iterable[str]) -> Any:
            return ConsumerProtocolMemberMetadata(cls.version, list(topics), json.dumps({"url": url}).encode())

    return Telling


class BatchConsumerThread(AIOKafkaConsumerThread):
    """Lets the broker gather records (Faust hard-codes 1 byte and 1,500 ms) and keeps buffers small."""

    beats = 0  # grows while the thread's loop turns; read by other threads
    _listened = 0.0  # by the monotonic clock
    _heard_ms: int | None = None  # when a fetch was last answered, as of then
    _passed_over_since: float | None = None  # when raw topics were read last; None while nothing keeps them from it
    brought: frozenset[TP] = frozenset()  # the partitions whose records the last fetch brought
    _member_at: float | None = None  # when our group last knew us, by the monotonic clock

    @Service.task
    async def _beat(self) -> None:
        while not self.should_stop:
            self.beats += 1
            await asyncio.sleep(BEAT_SECONDS)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        wanted = cast("BatchConsumer", self.consumer)
        consumer._fetch_min_bytes = wanted.fetch_min_bytes
        consumer._fetch_max_wait_ms = wanted.fetch_max_wait_ms
        consumer._fetch_max_bytes = wanted.fetch_max_bytes
        if consumer._partition_assignment_strategy == [RoundRobinPartitionAssignor]:  # of apps without tables
            consumer._partition_assignment_strategy = [_telling(str(self.app.conf.canonical_url))]
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        beat = coordinator._do_heartbeat

        async def noted() -> bool:
            sent_at = time.monotonic()
            is_member: bool = await beat()
            if is_member:
                self._member_at = sent_at
            return is_member

        coordinator._do_heartbeat = noted

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self._member_at = time.monotonic()
        await super().on_partitions_assigned(assigned, generation_id)

    def _stopped_set(self) -> None:
        try:
            super()._stopped_set()
        except RuntimeError:
            if not self.thread_loop.is_closed():
                raise
            # After a crash the thread has ended by itself and closed its loop; who stops it joins it. Who waits for this
            # in that loop cannot be woken any more.
            with contextlib.suppress(RuntimeError):
                self._stopped.set()

    async def on_thread_stop(self) -> None:
        """aiokafka awaits the requests that it cancels, and one that sleeps before it tries again says so: the thread
        ended over that without a word, and a worker whose Kafka was away waited a minute for it."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            if being_cancelled():
                raise

    async def fetch(self, begun: set[TP], every: set[TP], timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        """What waits in `begun`, else what comes within `timeout` in `every`. Each call into the thread costs.

        Other workers fill `begun` too: where handing out a fetch takes longer than the next one, something waits there
        always. The others are passed over for `PASSED_OVER_SECONDS` and are then given a helping.
        """
        return await self.call_thread(self._fetch_in_turn, begun, every, timeout)

    async def _fetch_in_turn(self, begun: set[TP], every: set[TP], timeout: float) -> Any:  # noqa: ASYNC109
        await reached("fetching")
        consumer = self._ensure_consumer()
        most = consumer._max_poll_records
        if begun and (found := await self._fetch_records(consumer, begun, timeout=0, max_records=most)):
            now = time.monotonic()
            if self._passed_over_since is None:
                self._passed_over_since = now
            elif now - self._passed_over_since > PASSED_OVER_SECONDS:
                self._passed_over_since = now
                rest = every - begun  # never empty: that would stand for all partitions
                helping = await self._fetch_records(consumer, rest, timeout=0, max_records=HELPING_RECORDS)
                found = {**found, **helping}
        else:
            self._passed_over_since = None
            found = await self._fetch_records(consumer, every, timeout=timeout, max_records=most)
        self.brought = frozenset(found)
        return found

    async def seek_here(self, tp: TP, offset: int) -> None:
        """Seek inside the consumer's thread: from outside it would pull records from under a running fetch."""
        await self.call_thread(self._ensure_consumer().seek, TopicPartition(*tp), offset)

    def silence_seconds(self) -> float | None:
        """Seconds since the last answer to a fetch, or None before the first. Every lookup asks; going through all
        partitions would be a seventh of its work."""
        if (now := time.monotonic()) - self._listened > LISTEN_SECONDS:
            subscription = self._ensure_consumer()._subscription.subscription
            assignment = subscription.assignment if subscription else None
            heard = [assignment.state_value(tp).timestamp for tp in assignment.tps] if assignment else []
            self._listened, self._heard_ms = now, max((at for at in heard if at), default=None)
        return None if self._heard_ms is None else time.time() - self._heard_ms / 1000

    def unconfirmed_seconds(self) -> float | None:
        """How long ago the group last knew us for a member, as far as it has told; None before the first assignment.

        A heartbeat counts from when it was sent: its answer may have lain there while the process was frozen, but nobody
        is given our partitions before a session has passed since the heartbeat came.
        """
        return None if self._member_at is None else time.monotonic() - self._member_at

    def log_end(self, tp: TP) -> int | None:
        """The log's end as of the last fetch; None before the first, and after the partition left."""
        # The client's own set of partitions: Faust's answer to the same question makes a new one of all of them.
        consumer = self._ensure_consumer()
        return consumer.highwater(tp) if tp in consumer.assignment() else None

    def position_now(self, tp: TP) -> int | None:
        """The client's own place in the log; None while it has none, and after the partition left.

        Its own answer to that question waits while it has none, and raises for a partition that has left.
        """
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription else None
        if assignment is None or tp not in assignment.tps:
            return None
        with contextlib.suppress(AssertionError):  # the thread has just forgotten it
            return int(assignment.state_value(tp).position)
        return None

    async def committed(self, tp: TP) -> int | None:
        """The group's committed offset, asked of the broker."""
        found: int | None = await self.call_thread(self._ensure_consumer().committed, TopicPartition(*tp))
        return found

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        assigned = self.assignment()
        mine = {TopicPartition(*tp): offset for tp, offset in offsets.items() if tp in assigned}
        if not mine:
            return False
        try:
            await asyncio.wait_for(consumer.commit(mine), COMMIT_DEADLINE_SECONDS)
        except (KafkaError, TimeoutError) as exc:
            # Nothing is lost: the offsets stay committable and the next interval tries again.
            self.log.warning("commit failed, will be tried again: %r", exc)
            return False
        return True
