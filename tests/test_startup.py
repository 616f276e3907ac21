"""Checks of a start, beside workers that go on working."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from aiokafka import TopicPartition

from tutormax_streams import epoch as epochs
from tutormax_streams import kafka, startup
from tutormax_streams.epoch import Ends, Epoch
from tutormax_streams.refused import Refused
from tutormax_streams.settings import Settings


class Moving:
    """A Kafka whose logs grow, and are committed to their ends, between any two questions."""

    def __init__(self, committed_ahead: int = 0) -> None:
        self.end, self.ahead = 100, committed_ahead

    async def log_ends(self, settings: Settings, topics: Iterable[str]) -> Ends:
        self.end += 1
        return {TopicPartition(topic, 0): (0, self.end) for topic in topics}

    async def without_mark(self, settings: Settings, ends: Ends) -> set[TopicPartition]:
        self.end += 1
        return set()

    async def committed_offsets(self, settings: Settings, group: str) -> Mapping[TopicPartition, int]:
        self.end += 1
        return {TopicPartition("tutormax.sessions", 0): self.end + self.ahead}


async def check(monkeypatch: pytest.MonkeyPatch, moving: Moving) -> None:
    for module, name in ((kafka, "log_ends"), (epochs, "without_mark"), (kafka, "committed_offsets")):
        monkeypatch.setattr(module, name, getattr(moving, name))
    settings = Settings(kafka_partitions=1)
    await startup._check_kafka_state(settings, Epoch(1, 1, "empty", "complete", 0))


async def test_what_others_commit_while_a_worker_starts_is_not_beyond_its_log(monkeypatch: pytest.MonkeyPatch):
    await check(monkeypatch, Moving())


async def test_what_is_committed_beyond_a_log_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Refused, match=r"has committed offset 1\d\d of tutormax\.sessions-0, which ends at 10"):
        await check(monkeypatch, Moving(committed_ahead=50))
