"""Waiting for brokers, with a client that is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import TopicPartition
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
