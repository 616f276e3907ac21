"""Reading whole topics, from one place to their ends or on and on, without a consumer group and committing nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from tutormax_streams import kafka
from tutormax_streams.settings import Settings

POLL_MS: Final = 400
QUIET_SECONDS: Final = 1.2
"""How long nothing must come before a log counts as read to its end. A broker may understate where a log ends: the
embedded one of the demo names the beginning of the last batch."""


class NoSuchTopic(Exception):
    """The message is a sentence."""


async def scan(
    settings: Settings, topics: Sequence[str], *, last: int | None = None, follow: bool = False
) -> AsyncGenerator[ConsumerRecord, None]:
    """Records of `topics`, those that are fetched together in the order of their times.

    `last`: begin so many records before the end of each partition; None begins at the beginning. `follow`: go on with
    what comes. Raises `KafkaAway`, `NoSuchTopic`.
    """
    partitions = await partitions_of(settings, topics)
    async with kafka.consumer(settings) as client:
        client.assign(partitions)
        ends = await client.end_offsets(partitions)
        if last is None:
            await client.seek_to_beginning(*partitions)
        else:
            begins = await client.beginning_offsets(partitions)
            for tp in partitions:
                client.seek(tp, max(begins[tp], ends[tp] - last))
        heard = time.monotonic()
        while True:
            fetched = await client.getmany(timeout_ms=POLL_MS)
            for record in sorted((r for run in fetched.values() for r in run), key=_time_and_place):
                yield record
            if fetched:
                heard = time.monotonic()
            elif not follow and time.monotonic() - heard > QUIET_SECONDS and await _at_ends(client, ends):
                return


def _time_and_place(record: ConsumerRecord) -> tuple[Any, ...]:
    return record.timestamp, record.topic, record.partition, record.offset


async def partitions_of(settings: Settings, topics: Sequence[str]) -> list[TopicPartition]:
    """Every partition of existing topics. Raises `KafkaAway`, `NoSuchTopic`."""
    async with kafka.admin_client(settings) as admin:
        # Looked for in the list first: a question about one unknown topic makes some brokers create it.
        missing = sorted(set(topics) - set(await admin.list_topics()))
        if missing:
            raise NoSuchTopic(f"topic {', '.join(missing)} does not exist: run `tutormax-streams topics ensure`")
        described = await admin.describe_topics(list(topics))
    return [TopicPartition(topic["topic"], p["partition"]) for topic in described for p in topic["partitions"]]


async def _at_ends(client: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await client.position(tp) >= end for tp, end in ends.items()])
