"""The epoch: which beginning our state has, and whether it is complete.

One record per deployment on the compacted topic `control` says when the state was begun (`epoch`), with how many
partitions, and whether it began empty or is (being) loaded from PostgreSQL. Every partition of our internal topics
begins with a mark, so that a topic that was deleted and made anew is noticed: it is empty, or a changelog without its
mark. (Committed offsets alone would not tell: Kafka forgets those of a deleted topic.)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final, Literal

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from tutormax_streams import kafka
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES
from tutormax_streams.refused import CONFIGURATION, STATE, Refused
from tutormax_streams.settings import Settings
from tutormax_streams.topics import Topics

VERSION: Final = 1
FIRST_BYTES: Final = 1024  # a fetch gives one batch of records at least, however large; a mark is one of its own

Ends = dict[TopicPartition, tuple[int, int]]
"""(first offset, the one behind the last) by partition."""


class Epoch(msgspec.Struct, frozen=True):
    """State of a deployment, as stored on `control`.

    A release whose topics or tables an earlier one cannot read raises `version`, and writes the record again when it
    takes the state over: the earlier one then refuses to start.
    """

    number: int
    partitions: int
    origin: Literal["empty", "database"]
    state: Literal["preparing", "loading", "complete"]
    begun_us: int
    progress: dict[str, str] = {}  # table -> last key loaded; "" when the table is finished
    version: Literal[1] = VERSION


async def read(settings: Settings) -> Epoch | None:
    """The deployment's epoch, or None before the first start. Raises `Refused` for one that cannot be read."""
    topic = Topics.of(settings).control
    found: Epoch | None = None
    async with kafka.consumer(settings) as client:
        tp = TopicPartition(topic, 0)
        client.assign([tp])
        end = (await client.end_offsets([tp]))[tp]
        await client.seek_to_beginning(tp)
        while await client.position(tp) < end:
            for record in (await client.getmany(tp, timeout_ms=2000)).get(tp, []):
                if record.key == settings.app_id.encode() and record.value is not None:
                    found = decoded(topic, record.value)
    return found


class _Stamp(msgspec.Struct):
    version: int


def decoded(topic: str, payload: bytes) -> Epoch:
    """Raises `Refused`."""
    try:
        return msgspec.json.decode(payload, type=Epoch)
    except msgspec.DecodeError as exc:
        with contextlib.suppress(msgspec.DecodeError):
            version = msgspec.json.decode(payload, type=_Stamp).version
            if version > VERSION:
                raise Refused(
                    f"the state was written by a later release (topic {topic} says version {version}): run that release",
                    CONFIGURATION,
                ) from exc
        raise Refused(
            f"topic {topic} holds something that is not ours ({exc}): stop all workers, delete the topic, and run "
            "`tutormax-streams rebuild`",
            STATE,
        ) from exc


async def write(settings: Settings, producer: AIOKafkaProducer, epoch: Epoch) -> None:
    """Replace the deployment's epoch."""
    topic = Topics.of(settings).control
    await producer.send_and_wait(topic, msgspec.json.encode(epoch), key=settings.app_id.encode(), partition=0)


async def mark_topics(settings: Settings, producer: AIOKafkaProducer, epoch: Epoch) -> None:
    """Write the first record of every partition that holds state or work on its way."""
    names = Topics.of(settings)
    sent = []
    for topic in names.marked:
        # Packed topics get a tombstone: agents pass over it.
        value = b"%d" % epoch.number if topic in names.changelogs else None
        key = EPOCH_KEY + bytes(WRITER_BYTES)
        sent += [
            await producer.send(topic, value, key=key, partition=partition) for partition in range(epoch.partitions)
        ]
    await asyncio.gather(*sent)


async def only_marked(settings: Settings) -> set[str]:
    """Topics that hold nothing but marks: a worker begins just now, or was interrupted when it began."""
    found = set(Topics.of(settings).marked)
    ends = await kafka.log_ends(settings, found)
    unread = {tp for tp, (_, end) in ends.items() if end}
    async for tp, records in _from_the_beginning(settings, ends, unread):
        if not all(_is_mark(record) for record in records):
            found.discard(tp.topic)
            unread -= {tp for tp in unread if tp.topic not in found}
    return found


async def without_mark(settings: Settings, ends: Ends) -> set[TopicPartition]:
    """Changelogs' partitions that hold records, but no mark: they were made anew, and written to since.

    A mark lies near the beginning, where it was written: only what lacks it is read to its end.
    """
    unread = {tp for tp, (_, end) in ends.items() if end and tp.topic in Topics.of(settings).changelogs}
    unmarked = set(unread)
    async for tp, records in _from_the_beginning(settings, ends, unread):
        if any(_is_mark(record) for record in records):
            unmarked.discard(tp)
            unread.discard(tp)
    return unmarked


def _is_mark(record: ConsumerRecord) -> bool:
    return record.key is not None and record.key.startswith(EPOCH_KEY)


async def _from_the_beginning(
    settings: Settings, ends: Ends, unread: set[TopicPartition]
) -> AsyncIterator[tuple[TopicPartition, list[ConsumerRecord]]]:
    """Records of the partitions that are in `unread`, one after the other. One leaves it at its end, or when the caller
    has seen enough. Raises `KafkaTimeoutError` where nothing comes any more before the end."""
    if not unread:
        return
    async with kafka.consumer(
        settings, max_partition_fetch_bytes=FIRST_BYTES, fetch_max_wait_ms=kafka.WAIT_MS
    ) as client:
        client.assign(list(unread))
        await client.seek_to_beginning(*unread)
        client.pause(*unread)  # only of the first in a request is a batch given that is larger than what was asked for
        for tp in sorted(unread):
            client.resume(tp)
            position, heard = await client.position(tp), time.monotonic()
            if position >= ends[tp][1]:  # all of it is gone: nothing would come
                unread.discard(tp)
            while tp in unread:
                if records := (await client.getmany(tp, timeout_ms=2000)).get(tp):
                    yield tp, records
                before, position = position, await client.position(tp)
                if position >= ends[tp][1]:
                    unread.discard(tp)
                elif position != before:
                    heard = time.monotonic()
                elif time.monotonic() - heard > kafka.REQUEST_SECONDS:
                    raise KafkaTimeoutError(f"{tp.topic}-{tp.partition} could not be read beyond offset {position}")
            client.pause(tp)
