"""Faust apps on a real broker, run inside the test: one event loop, as many workers as wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tutormax_streams.batches import MergedTable, attach_batches
from tutormax_streams.batches.shelves import SharedMemory
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES

COMPACTED = {"cleanup.policy": "compact"}


async def eventually(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer of `what`, awaited where it must be."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not come true within {seconds} s (last answer: {answer!r})"
        await asyncio.sleep(0.02)


async def create_topics(kafka: str, partitions: int, *names: str, config: Mapping[str, str] | None = None) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        topics = [NewTopic(name, partitions, 1, topic_configs=dict(config or {})) for name in names]
        answer = await admin.create_topics(topics)
        assert all(error == 0 for _, error, _ in answer.topic_errors), answer
    finally:
        await admin.close()


async def publish(kafka: str, topic: str, values: Iterable[tuple[int, bytes]]) -> None:
    """(partition, value), confirmed."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key=b"k", partition=partition) for partition, value in values]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def mark_changelog(kafka: str, table: MergedTable[Any], partitions: int) -> None:
    """Create a table's changelog as the product does: every partition begins with a record of the epoch."""
    await create_topics(kafka, partitions, table.changelog_name, config=COMPACTED)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for partition in range(partitions):
            key = EPOCH_KEY + bytes(WRITER_BYTES)
            await producer.send_and_wait(table.changelog_name, b"1", key=key, partition=partition)
    finally:
        await producer.stop()


async def committed(kafka: str, group: str, topic: str, partitions: int) -> dict[int, int | None]:
    client = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await client.start()
    try:
        return {p: await client.committed(TopicPartition(topic, p)) for p in range(partitions)}
    finally:
        await client.stop()


async def read(kafka: str, topic: str) -> list[Any]:
    """Every record of a topic."""
    client = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await client.start()
    try:
        await client._client.add_topic(topic)
        await client._client.force_metadata_update()
        tps = [TopicPartition(topic, p) for p in client.partitions_for_topic(topic) or ()]
        client.assign(tps)
        ends = await client.end_offsets(tps)
        found: list[Any] = []
        while any([await client.position(tp) < end for tp, end in ends.items()]):
            for records in (await client.getmany(timeout_ms=200)).values():
                found += records
        return found
    finally:
        await client.stop()


def new_app(kafka: str, group: str, **settings: Any) -> faust.App:
    """A stock Faust app with the settings of ours that matter here."""
    given: dict[str, Any] = {
        "broker": f"kafka://{kafka}",
        "broker_session_timeout": 6.0,
        "broker_heartbeat_interval": 0.5,
        "broker_request_timeout": 10.0,
        "broker_commit_interval": 0.2,
        "consumer_auto_offset_reset": "earliest",
        "producer_request_timeout": 10.0,
        "stream_recovery_delay": 0.0,
        "table_standby_replicas": 0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "store": "memory://",
        "autodiscover": False,
        "web_enabled": False,
        "worker_redirect_stdouts": False,
    }
    return faust.App(group, **{**given, **settings})


def batch_app(kafka: str, group: str, topics: Iterable[str], *, settings: Any = None, **overrides: Any) -> faust.App:
    app = new_app(kafka, group, **(settings or {}))
    attach_batches(app, topics, **overrides)
    return app


_memory: list[SharedMemory] = []


def shared_memory() -> SharedMemory:
    if not _memory:
        _memory.append(SharedMemory(1 << 20, 1 << 20))
    return _memory[0]


def is_ready(app: faust.App) -> bool:
    """Whether its assignment is complete and its tables are recovered."""
    return bool(app.tables.actives_ready and not app.rebalancing and app._assignment is not None)


async def start(app: faust.App) -> None:
    """Start and wait until it is ready, or has crashed."""
    app.finalize()
    await app.start()
    await eventually(lambda: is_ready(app) or app.crashed)


@asynccontextmanager
async def running(*apps: faust.App) -> AsyncIterator[None]:
    """Workers from ready to stopped."""
    try:
        for app in apps:
            await start(app)
        yield
    finally:
        for app in apps:
            if app.started:
                await app.stop()
