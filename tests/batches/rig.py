"""The real consumer between Faust and a broker that is played, and may misbehave."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import faust
from aiokafka.errors import IllegalStateError
from faust.types import TP

from tests.batches.fakes import Record
from tutormax_streams.batches import RecordBatch, attach_batches
from tutormax_streams.batches.consumer import BatchConsumer
from tutormax_streams.batches.consumer_thread import BatchConsumerThread

A0, A1 = TP("a", 0), TP("a", 1)


class FakeThread:
    """A broker with logs and committed offsets, and the client that fetches from it."""

    def __init__(self, logs: Mapping[TP, Iterable[int]]) -> None:
        self.logs = {
            tp: [Record(n, topic=tp.topic, partition=tp.partition) for n in found] for tp, found in logs.items()
        }
        self.ends: dict[TP, int] = {}
        self.owned = set(self.logs)
        self.positions: dict[TP, int] = dict.fromkeys(self.logs, 0)
        self.stored: dict[TP, int] = {}
        self.asked: list[set[TP]] = []
        self.seeks: list[tuple[TP, int]] = []
        self.refuses_commits = False
        self.most = 1_000
        self.should_stop = False
        self.brought: frozenset[TP] = frozenset()
        self._passed_over_since: float | None = None

    def assignment(self) -> set[TP]:
        return set(self.owned)

    def highwater(self, tp: TP) -> int:
        assert tp in self.owned
        return self.ends.get(tp, self.logs[tp][-1].offset + 1 if self.logs[tp] else 0)

    def log_end(self, tp: TP) -> int | None:
        return self.highwater(tp) if tp in self.owned else None

    def waiting(self, tp: TP, most: int) -> list[Record]:
        found = [record for record in self.logs[tp] if record.offset >= self.positions[tp]][:most]
        if found:
            self.positions[tp] = found[-1].offset + 1
        return found

    async def _fetch_records(
        self,
        consumer: Any,
        active: set[TP],
        timeout: float,  # noqa: ASYNC109 - Faust's
        max_records: int | None,
    ) -> dict[TP, list[Record]]:
        self.asked.append(set(active))
        await asyncio.sleep(0)
        found: dict[TP, list[Record]] = {}
        for tp in sorted(active & self.owned):
            left = self.most if max_records is None else min(self.most, max_records - sum(map(len, found.values())))
            if left and (records := self.waiting(tp, left)):
                found[tp] = records
        return found

    def _ensure_consumer(self) -> Any:
        return SimpleNamespace(_max_poll_records=None)

    fetch: Any = BatchConsumerThread._fetch_in_turn

    async def seek_here(self, tp: TP, offset: int) -> None:
        if tp not in self.owned:
            raise IllegalStateError(tp)
        self.seeks.append((tp, offset))
        self.positions[tp] = offset

    def position_now(self, tp: TP) -> int | None:
        return self.positions[tp] if tp in self.owned else None

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return {tp: self.stored.get(tp) for tp in self.owned}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return {tp: self.logs[tp][0].offset if self.logs[tp] else 0 for tp in tps}

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        if not self.refuses_commits:
            self.stored.update(offsets)
        return not self.refuses_commits


class Rig:
    """A consumer of `a` over a fake broker, and what it delivered since its last assignment."""

    def __init__(self, logs: Mapping[TP, Iterable[int]], **overrides: Any) -> None:
        self.app = faust.App("rig", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
        attach_batches(self.app, ["a", "p"], **overrides)
        self.consumer: BatchConsumer = self.app.consumer  # type: ignore[assignment]
        self.thread = FakeThread(logs)
        self.consumer._thread = self.thread  # type: ignore[assignment]
        self.consumer._on_partitions_revoked = self._revoked
        self.delivered: dict[TP, list[RecordBatch]] = defaultdict(list)

    async def _revoked(self, revoked: set[TP]) -> None:
        """What `App._on_partitions_revoked` does to the consumer."""
        self.consumer.stop_flow()
        self.consumer.pause_partitions(self.thread.assignment())
        await self.consumer.wait_empty()

    async def revoke(self) -> None:
        await self.consumer.on_partitions_revoked(self.thread.assignment())

    async def assign(self) -> None:
        """What `Recovery` does at the end of an assignment."""
        self.app.consumer_generation_id += 1
        self.delivered.clear()
        self.consumer._set_active_tps(self.thread.assignment())
        self.consumer.resume_partitions(self.thread.assignment())
        await self.consumer.perform_seek()
        self.consumer.resume_flow()

    def poll(self) -> AsyncIterator[tuple[TP, Any]]:
        return self.consumer.getmany(0.0)

    async def deliver(self, most: int = 10_000) -> list[tuple[TP, int, int]]:
        """One fetch, of which at most so many batches are let through: (partition, first, last)."""
        found: list[tuple[TP, int, int]] = []
        polling = self.poll()
        async for tp, message in polling:
            batch: RecordBatch = message.value
            self.delivered[tp].append(batch)
            found.append((tp, batch.first, batch.last))
            if len(found) >= most:
                break
        await polling.aclose()  # type: ignore[attr-defined]
        return found

    def done(self, tp: TP, number: int = 0) -> None:
        [batch for batch in self.delivered[tp] if not batch.is_done][number].done()

    def offsets(self, tp: TP) -> list[int]:
        return [record.offset for batch in self.delivered[tp] for record in batch.records]


async def rig(logs: Mapping[TP, Iterable[int]], **overrides: Any) -> Rig:
    made = Rig(logs, **overrides)
    await made.assign()
    return made
