"""How far a deployment's worker has come, asked of the broker, so that the worker spends nothing on being watched."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.ground import MeasuredWorker
from tutormax_streams import kafka, scans
from tutormax_streams.batches.table import EPOCH_KEY
from tutormax_streams.settings import Settings
from tutormax_streams.topics import RAW, Topics

POLL_SECONDS = 0.3
LAST_NEWS_SECONDS = 2.0
"""When nothing has been published for so long after the last fact was committed, all metrics are."""
ANY_PARKED = """
(SELECT FROM tutormax_streams.parked LIMIT 1) UNION ALL (SELECT FROM tutormax_streams.parked_metrics LIMIT 1)
"""


class Unfinished(Exception):
    """The worker did not come to the end in time. The message says where it stands."""


class Progress:
    """Made by `progress`."""

    def __init__(self, settings: Settings, reader: AIOKafkaConsumer) -> None:
        self._settings = settings
        self._reader = reader
        self._partitions: dict[str, list[TopicPartition]] = {}

    async def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        names = list(topics)
        if unknown := [name for name in names if name not in self._partitions]:
            for tp in await scans.partitions_of(self._settings, unknown):
                self._partitions.setdefault(tp.topic, []).append(tp)
        partitions = [tp for name in names for tp in self._partitions[name]]
        found: dict[TopicPartition, int] = await self._reader.end_offsets(partitions)
        return found

    async def lag(self, group: str, topics: Sequence[str]) -> int:
        """Records of `topics` that the group has not committed."""
        # Committed offsets first: what was committed of one topic has landed in the next before its end is asked for.
        committed = await kafka.committed_offsets(self._settings, group)
        ends = await self.ends(topics)
        return sum(end - committed.get(tp, 0) for tp, end in ends.items())

    async def drained(self, worker: MeasuredWorker, *roles: str, seconds: float = 600.0) -> None:
        """Wait until everything has been worked off and the last metrics have been published (and flushed).

        Raises `Unfinished`, and EmbeddedError if the worker ends.
        """
        names = Topics.of(self._settings)
        deadline = time.monotonic() + seconds
        stream = [*map(names.raw, RAW), names.validated, names.facts]
        await self._nothing_left(worker, self._settings.stream_group, stream, deadline)
        await self._published(names.metrics, deadline)
        if "sink" in roles:
            await self._nothing_left(worker, self._settings.sink_group, [names.enriched, names.metrics], deadline)
            await self._nothing_parked(worker, deadline)

    async def _nothing_left(self, worker: MeasuredWorker, group: str, topics: Sequence[str], deadline: float) -> None:
        while left := await self.lag(group, topics):
            if time.monotonic() > deadline:
                raise Unfinished(f"{left} records are left for group {group}; the worker: {worker.last_words()}")
            worker.ensure_running()
            await asyncio.sleep(POLL_SECONDS)

    async def _published(self, topic: str, deadline: float) -> None:
        """Wait until the topic has stopped growing; the rare refreshes of some tutors do not count."""
        seen, still_since = await self.ends([topic]), time.monotonic()
        while time.monotonic() < min(still_since + LAST_NEWS_SECONDS, deadline):
            await asyncio.sleep(POLL_SECONDS)
            ends = await self.ends([topic])
            if sum(ends.values()) > sum(seen.values()):
                seen, still_since = ends, time.monotonic()

    async def _nothing_parked(self, worker: MeasuredWorker, deadline: float) -> None:
        async with await psycopg.AsyncConnection.connect(self._settings.conninfo, autocommit=True) as connection:
            while (await (await connection.execute(ANY_PARKED)).fetchone()) is not None:
                if time.monotonic() > deadline:
                    raise Unfinished(f"records are still parked; the worker: {worker.last_words()}")
                worker.ensure_running()
                await asyncio.sleep(POLL_SECONDS)

    async def changelog_records(self) -> int:
        """Records ever written to changelogs, but for those that mark their beginning."""
        ends = await self.ends(Topics.of(self._settings).changelogs)
        return sum(ends.values()) - len(ends)


@asynccontextmanager
async def progress(settings: Settings) -> AsyncIterator[Progress]:
    async with kafka.consumer(settings) as reader:
        yield Progress(settings, reader)


async def changelog_bytes(settings: Settings) -> tuple[int, int]:
    """(records, bytes of their keys and values) that stand in the changelogs, uncompressed and without overhead."""
    records = size = 0
    async for record in scans.scan(settings, list(Topics.of(settings).changelogs)):
        if not record.key.startswith(EPOCH_KEY):
            records += 1
            size += len(record.key) + len(record.value or b"")
    return records, size
