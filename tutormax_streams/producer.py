"""Publishing raw events as any producer would, many at a time: for `generate`, the demo and the benchmarks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition

from tutormax_streams import kafka, scans
from tutormax_streams.batches import Partitioner
from tutormax_streams.settings import Settings
from tutormax_streams.simulation import Record, Trickle, encode
from tutormax_streams.topics import RAW, Topics

BATCH_BYTES: Final = 128 * 1024
REPORT_EVERY: Final = 1000
TRICKLE_SECONDS: Final = 0.1
MOST_IN_FLIGHT: Final = 64


class Publisher:
    """Gathers records by partition into the broker's own batches. Made by `publisher`.

    `published` counts, by the raw topic's short name, what was handed over; `flush` makes sure that it has arrived.
    """

    def __init__(self, client: AIOKafkaProducer, topics: Topics, partitions: dict[str, int]) -> None:
        self.published: Counter[str] = Counter()
        self._client = client
        self._names = {name: topics.raw(name) for name in partitions}
        self._partitioners = {name: Partitioner(count) for name, count in partitions.items()}
        self._open: dict[TopicPartition, Any] = {}
        self._in_flight: set[asyncio.Future[Any]] = set()

    async def add(self, topic: str, key: bytes, value: bytes) -> None:
        """One record, partitioned by its key as every Kafka client would. Waits while the broker cannot follow."""
        tp = TopicPartition(self._names[topic], self._partitioners[topic].of_new(key.decode()))
        batch = self._open.get(tp)
        if batch is None or batch.append(timestamp=None, key=key, value=value) is None:
            if batch is not None:
                await self._send(tp, batch)
            batch = self._open[tp] = self._client.create_batch()
            batch.append(timestamp=None, key=key, value=value)
        self.published[topic] += 1

    async def flush(self) -> None:
        """Returns once the broker has confirmed everything. Raises aiokafka's `KafkaError`."""
        while self._open:
            tp, batch = self._open.popitem()
            await self._send(tp, batch)
        await asyncio.gather(*self._in_flight)

    async def _send(self, tp: TopicPartition, batch: Any) -> None:
        future = await self._client.send_batch(batch, tp.topic, partition=tp.partition)
        self._in_flight.add(future)
        if len(self._in_flight) >= MOST_IN_FLIGHT:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
        for confirmed in [future for future in self._in_flight if future.done()]:
            self._in_flight.discard(confirmed)
            confirmed.result()


@asynccontextmanager
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """A publisher to the raw topics, flushed at the end. Raises `KafkaAway`, `NoSuchTopic`."""
    names = {Topics.of(settings).raw(name): name for name in RAW}
    partitions = Counter(names[tp.topic] for tp in await scans.partitions_of(settings, list(names)))
    async with kafka.producer(settings, max_batch_size=BATCH_BYTES) as client:
        publisher = Publisher(client, Topics.of(settings), partitions)
        yield publisher
        await publisher.flush()


async def publish_all(
    publisher: Publisher,
    records: Iterable[Record],
    *,
    report: Callable[[int], None] = lambda events: None,
    seen: Callable[[Record], None] = lambda record: None,
) -> None:
    """Publish as fast as the broker takes it. `report` is told how many were handed over, `seen` each record."""
    number = 0
    for number, record in enumerate(records, 1):
        seen(record)
        await publisher.add(*encode(record))
        if number % REPORT_EVERY == 0:
            report(number)
            await asyncio.sleep(0)  # making records takes all of a core; others want their turn
    await publisher.flush()
    report(number)


async def publish_live(
    publisher: Publisher,
    trickle: Trickle,
    *,
    seconds: float | None = None,
    report: Callable[[int], None] = lambda events: None,
    seen: Callable[[Record], None] = lambda record: None,
) -> None:
    """Publish a trickle in real time, for ever unless `seconds` says how long; `report` and `seen` as above."""
    started = time.monotonic()
    events = 0
    while seconds is None or time.monotonic() - started < seconds:
        for record in trickle.due(datetime.now(UTC)):
            seen(record)
            await publisher.add(*encode(record))
            events += 1
        await publisher.flush()
        report(events)
        await asyncio.sleep(TRICKLE_SECONDS)
