"""Plain Kafka clients for what Faust does not do: administration, reading single records, looking at groups."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, KafkaError, KafkaTimeoutError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tutormax_streams.batches import read_any_header_name
from tutormax_streams.settings import Settings

T = TypeVar("T")

REQUEST_SECONDS = 15.0
WAIT_MS = 20  # of a fetch, where the next request should not wait behind it
LOOKED_BACK = 50  # records, for the last that are ours


class KafkaAway(Exception):
    """No broker answers. The message says what to check."""


def client_settings(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client of ours is made with."""
    found: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": int(REQUEST_SECONDS * 1000),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        found["sasl_mechanism"] = settings.kafka_security_sasl_mechanism
        found["sasl_plain_username"] = settings.kafka_security_username
        password = settings.kafka_security_password
        found["sasl_plain_password"] = password.get_secret_value() if password else None
    if settings.kafka_security_protocol.endswith("SSL"):
        found["ssl_context"] = tls_context(settings)
    return found


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Verifies the brokers' certificates."""
    return ssl.create_default_context(cafile=settings.kafka_security_ca_file)


@asynccontextmanager
async def _started(client: Any, settings: Settings) -> AsyncIterator[Any]:
    try:
        try:
            await asyncio.wait_for(client.start(), REQUEST_SECONDS)
        except (KafkaError, TimeoutError, OSError) as exc:
            raise KafkaAway(
                f"no Kafka broker answers at {settings.kafka_bootstrap_servers}: start it, or set "
                "KAFKA_BOOTSTRAP_SERVERS"
            ) from exc
        yield client
    finally:
        close = client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
        await close()


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An administration client. Raises `KafkaAway`."""
    async with _started(AIOKafkaAdminClient(**client_settings(settings)), settings) as client:
        yield client


@asynccontextmanager
async def producer(settings: Settings, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """A producer whose records are confirmed by all replicas. Raises `KafkaAway`."""
    client = AIOKafkaProducer(
        **client_settings(settings),
        acks="all",
        enable_idempotence=settings.kafka_idempotent_producer,
        max_request_size=8 << 20,
        linger_ms=5,
        **options,
    )
    async with _started(client, settings):
        yield client


@asynccontextmanager
async def consumer(settings: Settings, group: str | None = None, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that assigns itself and commits only when told. Raises `KafkaAway`."""
    read_any_header_name()
    client = AIOKafkaConsumer(
        **client_settings(settings),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **{"max_partition_fetch_bytes": 8 << 20, **options},
    )
    async with _started(client, settings):
        yield client


class LogReader:
    """Reads single records by their place, through one consumer without a group. Calls are served one at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def _ready(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            client = AIOKafkaConsumer(
                **client_settings(self._settings),
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=8 << 20,
                # What is asked next waits behind a fetch of what is not there yet.
                fetch_max_wait_ms=WAIT_MS,
            )
            await asyncio.wait_for(client.start(), REQUEST_SECONDS)
            self._consumer = client
        return self._consumer

    async def ends(self, topic: str, partition: int) -> tuple[int, int]:
        """(first offset, offset behind the last) of a partition."""
        async with self._lock:
            client = await self._ready()
            tp = TopicPartition(topic, partition)
            begin = await client.beginning_offsets([tp])
            end = await client.end_offsets([tp])
            return begin[tp], end[tp]

    async def at(self, topic: str, partition: int, offset: int, seconds: float = 5.0) -> ConsumerRecord | None:
        """The record at `offset`, or None if it is not in the log any more."""
        async with self._lock:
            client = await self._ready()
            tp = TopicPartition(topic, partition)
            begin, end = (await client.beginning_offsets([tp]))[tp], (await client.end_offsets([tp]))[tp]
            if not begin <= offset < end:
                return None
            client.assign([tp])
            client.seek(tp, offset)
            found = await client.getmany(tp, timeout_ms=int(seconds * 1000), max_records=1)
            client.pause(tp)
            records = found.get(tp, [])
            return records[0] if records and records[0].offset == offset else None

    async def recent(self, topic: str, partition: int, read: Callable[[bytes], T]) -> list[T]:
        """What `read` makes of the last records, oldest first. It raises `msgspec.DecodeError` for those that are none of
        ours. Raises `KafkaTimeoutError`."""
        begin, end = await self.ends(topic, partition)
        found: list[T] = []
        async with self._lock:
            client = await self._ready()
            tp = TopicPartition(topic, partition)
            client.assign([tp])
            client.seek(tp, max(begin, end - LOOKED_BACK))
            deadline = time.monotonic() + REQUEST_SECONDS
            while await client.position(tp) < end:
                if time.monotonic() > deadline:
                    raise KafkaTimeoutError(f"{topic}-{partition} could not be read within {REQUEST_SECONDS:g} s")
                for record in (await client.getmany(tp, timeout_ms=1000)).get(tp, []):
                    if record.value is not None:
                        with contextlib.suppress(msgspec.DecodeError):
                            found.append(read(record.value))
            client.pause(tp)
        return found

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None


async def log_ends(settings: Settings, topics: Iterable[str]) -> dict[TopicPartition, tuple[int, int]]:
    """(first, behind last) of every partition of existing `topics`."""
    async with admin_client(settings) as admin:
        described = await admin.describe_topics(list(topics))
    partitions = [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in described
        if not topic["error_code"]
        for partition in topic["partitions"]
    ]
    if not partitions:
        return {}
    async with consumer(settings) as client:
        begins = await client.beginning_offsets(partitions)
        ends = await client.end_offsets(partitions)
        return {tp: (begins[tp], ends[tp]) for tp in partitions}


async def leaders_answer(settings: Settings, partitions: Sequence[TopicPartition], seconds: float) -> bool:
    """Wait until the leader of each partition serves it: False when `seconds` have passed before.

    Metadata name a leader before that broker knows, and until it does clients are refused, each time with a line in the
    log.
    """
    fetcher = logging.getLogger("aiokafka.consumer.fetcher")
    fetcher.addFilter(_no_leader_yet)
    try:
        async with consumer(settings) as client, asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(KafkaTimeoutError):  # the client's own, shorter deadline
                    await client.beginning_offsets(partitions)
                    return True
    except TimeoutError:
        return False
    finally:
        fetcher.removeFilter(_no_leader_yet)


def _no_leader_yet(record: logging.LogRecord) -> bool:
    return "NotLeaderForPartitionError" not in record.getMessage()


async def committed_offsets(settings: Settings, group: str) -> Mapping[TopicPartition, int]:
    """Committed offsets of a group, empty if it never committed."""
    async with admin_client(settings) as admin:
        found = await _coordinated(lambda: admin.list_consumer_group_offsets(group))
        return {tp: meta.offset for tp, meta in found.items() if meta.offset >= 0}


async def group_has_members(admin: AIOKafkaAdminClient, group: str) -> bool:
    """True while workers belong to a group, killed ones until their session has timed out."""
    # One group a request: aiokafka 0.14 cannot read the answer for several (it misses a field of version 3).
    (response,) = await _coordinated(lambda: admin.describe_consumer_groups([group]))
    _error, _name, state, *_rest = response.groups[0]
    return state not in ("Empty", "Dead", "")


async def group_members(admin: AIOKafkaAdminClient, group: str) -> list[bytes] | None:
    """What each member told the group when it joined; None while the group rebalances, when brokers do not say."""
    (response,) = await _coordinated(lambda: admin.describe_consumer_groups([group]))
    _error, _name, state, _type, _protocol, members, *_rest = response.groups[0]
    if state not in ("Stable", "Empty", "Dead"):
        return None
    return [metadata for _id, _client, _host, metadata, _assignment in members]


async def _coordinated(call: Callable[[], Awaitable[T]]) -> T:
    """A broker that has just started looks for coordinators, and makes the topic of offsets, in its own time."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((GroupCoordinatorNotAvailableError, GroupLoadInProgressError)),
        stop=stop_after_delay(REQUEST_SECONDS),
        wait=wait_fixed(0.3),
        reraise=True,
    ):
        with attempt:
            return await call()
    raise AssertionError("unreachable")


def can_be_connected(settings: Settings, seconds: float = 2.0) -> bool:
    """Whether a broker takes connections within `seconds` each. Blocks; needs no event loop."""
    for server in settings.kafka_bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        with contextlib.suppress(OSError, ValueError):
            socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
            return True
    return False
