"""Partitions come and go, and every record is still worked on at least once; no offset passes work that is not done."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import faust
import pytest
from faust.types import TP

from tests.faust_contract.apps import batch_app, committed, create_topics, eventually, publish, running, start
from tutormax_streams.batches import RecordBatch, batch_consumer, drive

pytestmark = pytest.mark.servers

PARTITIONS = 4


@dataclass
class Ledger:
    """What all workers of a group were given and have finished."""

    topic: str
    seen: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    done: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    async def step(self, batch: RecordBatch) -> list[Any]:
        offsets = [record.offset for record in batch.records]
        self.seen[batch.partition].update(offsets)
        confirmation = asyncio.get_running_loop().create_future()

        def confirm() -> None:
            if not batch.revoked:
                self.done[batch.partition].update(offsets)
                confirmation.set_result(None)

        asyncio.get_running_loop().call_later(self.rng.random() * 0.05, confirm)
        return [confirmation]

    def worker(self, kafka: str, group: str) -> faust.App:
        app = batch_app(kafka, group, [self.topic], batch_records=7, fetch_max_wait_ms=10)
        drive(app, self.topic, self.step, "step")
        return app

    def assert_nothing_undone(self, offsets: dict[int, int | None]) -> None:
        for partition, offset in offsets.items():
            missing = set(range(offset or 0)) - self.done[partition]
            assert not missing, f"{self.topic}-{partition} is committed up to {offset} without {sorted(missing)[:5]}"


async def test_nothing_is_lost_however_often_the_group_rebalances(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}rebalancing"
    await create_topics(kafka, PARTITIONS, topic)
    ledger = Ledger(topic)
    count = 0

    async def publish_some(records: int) -> None:
        nonlocal count
        await publish(kafka, topic, [(n % PARTITIONS, b"%d" % n) for n in range(records)])
        count += records

    await publish_some(2_000)
    async with running(ledger.worker(kafka, group)):
        for _ in range(3):
            joining = ledger.worker(kafka, group)
            await asyncio.gather(start(joining), publish_some(800))
            ledger.assert_nothing_undone(await committed(kafka, group, topic, PARTITIONS))
            await asyncio.gather(joining.stop(), publish_some(800))
            ledger.assert_nothing_undone(await committed(kafka, group, topic, PARTITIONS))
        await eventually(lambda: sum(map(len, ledger.done.values())) == count, 30)
    assert {partition: len(offsets) for partition, offsets in ledger.seen.items()} == dict.fromkeys(
        range(PARTITIONS), count // PARTITIONS
    )
    assert set((await committed(kafka, group, topic, PARTITIONS)).values()) == {count // PARTITIONS}


async def test_the_prefix_that_was_done_survives_a_restart_and_the_rest_comes_again(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}restart"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"%d" % n) for n in range(10)])
    batches: list[RecordBatch] = []

    async def keep(batch: RecordBatch) -> None:
        batches.append(batch)

    def worker() -> faust.App:
        app = batch_app(kafka, group, [topic], batch_records=2)
        drive(app, topic, keep, "keep")
        return app

    async with running(worker()):
        await eventually(lambda: len(batches) == 5)
        for batch in (batches[0], batches[1], batches[3]):
            batch.done()
        await eventually(lambda: committed_is(kafka, group, topic, 4))
    assert await committed(kafka, group, topic, 1) == {0: 4}
    assert [batch.revoked for batch in batches] == [False, False, True, False, True]
    batches.clear()
    async with running(worker()):
        await eventually(lambda: len(batches) == 3)
    assert [batch.first for batch in batches] == [4, 6, 8]


async def committed_is(kafka: str, group: str, topic: str, offset: int) -> bool:
    return await committed(kafka, group, topic, 1) == {0: offset}


async def test_perform_seek_starts_at_the_committed_offset_whatever_was_fetched_since(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}seek"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"%d" % n) for n in range(10)])
    batches: list[RecordBatch] = []

    async def keep(batch: RecordBatch) -> None:
        batches.append(batch)

    app = batch_app(kafka, group, [topic], batch_records=2)
    drive(app, topic, keep, "keep")
    async with running(app):
        consumer = batch_consumer(app)
        assert consumer is not None
        await eventually(lambda: len(batches) == 5)
        batches[0].done()
        await eventually(lambda: consumer.positions()[TP(topic, 0)].committed == 2)
        await consumer.perform_seek()
        assert not consumer.flow_active, "nothing is delivered until the caller resumes"
        assert consumer.positions()[TP(topic, 0)].expected == 2
        consumer.resume_flow()
        await eventually(lambda: len(batches) == 9)
    assert [batch.first for batch in batches] == [0, 2, 4, 6, 8, 2, 4, 6, 8]


async def test_a_blocked_partition_does_not_stand_in_the_way_of_others(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}blocked"
    await create_topics(kafka, 2, topic)
    await publish(kafka, topic, [(n % 2, b"%d" % n) for n in range(200)])
    done = 0
    blocked: list[RecordBatch] = []

    async def step(batch: RecordBatch) -> None:
        nonlocal done
        if batch.partition == 0:
            blocked.append(batch)  # as when PostgreSQL holds it
        else:
            done += len(batch.records)
            batch.done()

    app = batch_app(kafka, group, [topic], batch_records=5, max_in_flight=2, settings={"broker_max_poll_records": 20})
    drive(app, topic, step, "step")
    async with running(app):
        await eventually(lambda: done == 100)
        await publish(kafka, topic, [(1, b"more")] * 50)
        await eventually(lambda: done == 150)
        held = len(blocked)
        assert held * 5 < 100, "what is blocked is not fetched without end"
        for batch in blocked:
            batch.done()
        await eventually(lambda: len(blocked) > held)
    assert (await committed(kafka, group, topic, 2))[1] == 150


async def test_a_worker_whose_client_cancels_what_it_asked_ends_all_the_same(kafka: str, topic_prefix: str):
    """aiokafka awaits what it cancels. While Kafka is away that sleeps before it tries again, and does not swallow it."""
    topic = group = f"{topic_prefix}ending"
    await create_topics(kafka, PARTITIONS, topic)
    app = Ledger(topic).worker(kafka, group)
    await start(app)
    thread: Any = batch_consumer(app)._thread  # type: ignore[union-attr]

    async def try_again_later() -> None:
        thread._consumer._fetcher._pending_tasks.add(asyncio.ensure_future(asyncio.sleep(600)))

    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(try_again_later(), thread.thread_loop))
    await asyncio.wait_for(app.stop(), 20)
