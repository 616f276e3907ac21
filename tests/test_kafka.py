"""What we add to the client of Kafka; its patience with one that is played."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaTimeoutError

from tutormax_streams import kafka
from tutormax_streams.settings import Settings

PARTITIONS = [TopicPartition("fresh", 0)]


class Client:
    """Gives up `patience` times by its own deadline, which is shorter than ours, before the leader serves it."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await asyncio.sleep(0.01)
        if self.patience:
            self.patience -= 1
            raise KafkaTimeoutError("Failed to get offsets by times in 15000 ms")
        return dict.fromkeys(partitions, 0)


@pytest.mark.parametrize(("patience", "seconds", "answered"), [(0, 5, True), (3, 5, True), (1_000, 0.2, False)])
async def test_leaders_are_waited_for_until_our_own_deadline(
    patience: int, seconds: float, answered: bool, monkeypatch: pytest.MonkeyPatch
):
    @asynccontextmanager
    async def consumer(*args: Any) -> AsyncIterator[Client]:
        yield Client(patience)

    monkeypatch.setattr(kafka, "consumer", consumer)
    assert await kafka.leaders_answer(Settings(), PARTITIONS, seconds) is answered


@pytest.mark.servers
async def test_the_last_records_are_read_oldest_first_without_what_is_not_ours(request: pytest.FixtureRequest):
    """Behind the newest of our own may lie what a zombie sent late, so one of them is not enough."""
    settings = Settings(kafka_bootstrap_servers=request.getfixturevalue("kafka"))
    topic = f"recent-{uuid.uuid4().hex[:8]}"
    async with kafka.admin_client(settings) as admin:
        await admin.create_topics([NewTopic(topic, 2, 1)])
    reader = kafka.LogReader(settings)
    try:
        assert await kafka.leaders_answer(settings, [TopicPartition(topic, 0), TopicPartition(topic, 1)], 15)
        assert await reader.recent(topic, 1, msgspec.json.decode) == []
        async with kafka.producer(settings) as producer:
            values: list[bytes | None] = [*(b"%d" % number for number in range(60)), b"{", None, b"7"]
            for value in values:
                await producer.send(topic, value, key=b"k", partition=1)
        assert await reader.recent(topic, 1, msgspec.json.decode) == [*range(13, 60), 7]
        began = time.monotonic()
        for _ in range(12):  # as when so many partitions are assigned
            assert len(await reader.recent(topic, 1, msgspec.json.decode)) == 48
            assert await reader.ends(topic, 0) == (0, 0)
        assert time.monotonic() - began < 8, "each waited a second behind a fetch of what was not there yet"
    finally:
        await reader.close()
