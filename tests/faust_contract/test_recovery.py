"""Merged tables come back from their changelogs, completely, before anything is delivered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer
from faust.tables.recovery import Recovery, ServiceStopped

from tests.batches.fakes import Numbers, decode, encode, union
from tests.faust_contract.apps import (
    COMPACTED,
    batch_app,
    create_topics,
    eventually,
    mark_changelog,
    publish,
    read,
    running,
    shared_memory,
    start,
)
from tutormax_streams.batches import MergedTable, RecordBatch, drive, recovery_remaining
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES

pytestmark = pytest.mark.servers

PARTITIONS = 2


class Counting:
    """A worker that keeps, for every partition, the numbers it was given under one key each."""

    def __init__(self, kafka: str, group: str, **settings: Any) -> None:
        self.topic = group
        self.app = batch_app(kafka, group, [self.topic], settings=settings)
        self.table: Numbers = MergedTable.declare(
            self.app, "numbers", PARTITIONS, encode=encode, decode=decode, merge=union, directory=None,
            memory=shared_memory(),
        )  # fmt: skip
        self.granted: list[bool] = []  # whether more memory, whenever the table's was told
        self.table.memory = self  # type: ignore[assignment]
        self.begun_with: dict[int, int] = {}  # partition -> numbers held when its first batch came
        drive(self.app, self.topic, self.step, "step")

    is_overdrawn = False

    def widen(self) -> None:
        self.granted.append(True)

    def narrow(self) -> None:
        self.granted.append(False)

    async def step(self, batch: RecordBatch) -> list[asyncio.Future[Any]]:
        self.begun_with.setdefault(batch.partition, len(self.held(batch.partition)))
        news = {b"k%d" % (int(r.value or b"") % 10): frozenset([int(r.value or b"")]) for r in batch.records}
        for record in batch.records:
            number = int(record.value or b"")
            news[b"k%d" % (number % 10)] |= {number}
        return (await self.table.merge(batch.partition, news))[1]

    def held(self, partition: int) -> set[int]:
        return {number for _, payload in self.table.scan(partition, b"") for number in decode(payload)}

    def all_held(self) -> dict[int, set[int]]:
        return {partition: self.held(partition) for partition in self.table.owned_partitions()}


async def prepared(kafka: str, group: str, numbers: Iterable[int]) -> dict[int, set[int]]:
    """A topic, its changelog, and records of numbers in it: partition -> numbers."""
    await create_topics(kafka, PARTITIONS, group)
    await mark_changelog(kafka, Counting(kafka, group).table, PARTITIONS)
    await publish(kafka, group, [(n % PARTITIONS, b"%d" % n) for n in numbers])
    return {p: {n for n in numbers if n % PARTITIONS == p} for p in range(PARTITIONS)}


async def append(kafka: str, table: Numbers, records: int) -> None:
    """Records of other writers to both partitions of a changelog."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    try:
        for partition in range(PARTITIONS):
            sent = [
                await producer.send(table.changelog_name, b"%d" % n, key=b"far%06dwriter" % n, partition=partition)
                for n in range(records)
            ]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def test_a_table_comes_back_in_bulk_before_anything_is_delivered(kafka: str, topic_prefix: str):
    group = f"{topic_prefix}recovery"
    expected = await prepared(kafka, group, range(200))
    first = Counting(kafka, group)
    async with running(first.app):
        await eventually(lambda: first.all_held() == expected)
    await append(kafka, first.table, 15_000)
    second = Counting(kafka, group)
    await publish(kafka, group, [(p, b"%d" % (1_000 + p)) for p in range(PARTITIONS)])
    started = time.monotonic()
    async with running(second.app):
        await eventually(lambda: second.begun_with.keys() == set(range(PARTITIONS)))
        assert time.monotonic() - started < 15, "Faust's own path takes some 10,000 records a second"
        assert all(second.begun_with[p] >= 15_000 for p in range(PARTITIONS))
        assert recovery_remaining(second.app) == 0
        assert True in second.granted
        assert not second.granted[-1], "memory is taken back at the end"
        for partition, held in second.all_held().items():
            assert held >= expected[partition] | {1_000 + partition}


async def test_a_recovery_right_after_another_is_not_cut_short(kafka: str, topic_prefix: str):
    """Partitions that come back within seconds bring what was written to them meanwhile."""
    group = f"{topic_prefix}again"
    expected = await prepared(kafka, group, range(100))
    staying, joining = Counting(kafka, group), Counting(kafka, group)
    async with running(staying.app):
        await eventually(lambda: staying.all_held() == expected)
        await start(joining.app)
        await eventually(lambda: is_shared(staying, joining))
        (left,) = joining.table.owned_partitions()
        await append(kafka, staying.table, 10_000)
        staying.begun_with.clear()
        await publish(kafka, group, [(left, b"%d" % (1_000 + left))])
        await eventually(lambda: left in joining.begun_with)
        await joining.app.stop()
        await publish(kafka, group, [(left, b"%d" % (2_000 + left))])
        await eventually(lambda: left in staying.begun_with)
        assert staying.begun_with[left] >= 10_000


def is_shared(*workers: Counting) -> bool:
    return all(len(w.table.owned_partitions()) == 1 and w.app.tables.actives_ready for w in workers)


async def test_the_end_of_a_recovery_is_not_announced_to_the_next(kafka: str, topic_prefix: str):
    group = f"{topic_prefix}announced"
    await prepared(kafka, group, range(10))
    worker = Counting(kafka, group)
    async with running(worker.app):
        tables: Any = worker.app.tables
        assert not tables.recovery.signal_recovery_end.is_set()


@pytest.mark.filterwarnings("ignore::faust.exceptions.AlreadyConfiguredWarning")
async def test_a_recovery_whose_broker_is_silent_stops_the_worker(
    kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
):
    """Stock Faust takes its own deadline for the order to stop, and then stands still for ever."""
    group = f"{topic_prefix}silent"
    await prepared(kafka, group, range(10))
    worker = Counting(kafka, group)

    async def silence(*args: Any) -> None:
        await asyncio.sleep(60)

    async def grow_impatient() -> None:
        worker.app.conf.broker_request_timeout = 1.0

    monkeypatch.setattr(worker.app.consumer, "highwaters", silence)
    monkeypatch.setattr(worker.app.producer, "flush", grow_impatient)  # it comes right before
    worker.app.finalize()
    await worker.app.start()
    try:
        await eventually(lambda: worker.app.crashed, 10)
        assert isinstance(worker.app.crash_reason, TimeoutError)
    finally:
        await worker.app.stop()


async def test_stock_recovery_stands_still_after_its_deadline(monkeypatch: pytest.MonkeyPatch):
    """The reason for the test above: when Faust mends this, ours can go."""
    app = faust.App("stock", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
    recovery = Recovery(app, app.tables)
    with pytest.raises(ServiceStopped):
        await recovery._wait(asyncio.sleep(60), timeout=0.01)
    assert not recovery.should_stop


async def test_compaction_takes_nothing_that_was_confirmed(kafka: str, topic_prefix: str):
    """Several writers of the same keys, late records of one that has been replaced, and a log cleaned for real."""
    group = f"{topic_prefix}compacted"
    await create_topics(kafka, PARTITIONS, group)
    worker = Counting(kafka, group)
    name = worker.table.changelog_name
    config = {**COMPACTED, "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0"}
    await create_topics(kafka, PARTITIONS, name, config=config)
    records: list[tuple[bytes, bytes | None]] = [(EPOCH_KEY + bytes(WRITER_BYTES), b"1")]
    for n in range(50):
        key = b"k%d" % n
        records += [
            (key + b"wrtr-A", b"1"),
            (key + b"wrtr-A", b"1,2"),
            (key + b"wrtr-B", b"1"),
            (key + b"wrtr-A", None),
        ]
        records += [(key + b"wrtr-A", b"1,7"), (key + b"wrtr-B", b"1,2,3"), (key + b"wrtr-A", b"1,8")]
        records += [(b"gone%d" % n + b"wrtr-A", b"1"), (b"gone%d" % n + b"wrtr-A", None)]
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        for key, payload in records:
            await producer.send(name, payload, key=key, partition=0)
        await producer.flush()

        async def is_clean() -> bool:
            await producer.send_and_wait(name, b"9", key=b"rollerwrtr-C", partition=0)
            return len(await read(kafka, name)) < 150

        await eventually(is_clean, 30)
    finally:
        await producer.stop()
    async with running(worker.app):
        held = dict(worker.table.scan(0, b""))
    assert held == {**{b"k%d" % n: b"1,2,3,8" for n in range(50)}, b"roller": b"9"}
