"""Why acknowledgements are ours: stock Faust commits what its agent failed on, `BatchConsumer` does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faust_contract.apps import batch_app, committed, create_topics, eventually, new_app, publish, running
from tutormax_streams.batches import RecordBatch, drive

pytestmark = pytest.mark.servers


async def test_stock_faust_commits_an_event_whose_agent_raised(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}stock"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"%d" % n) for n in range(5)])
    app = new_app(kafka, group)
    seen: list[bytes] = []

    @app.agent(app.topic(topic, value_type=bytes, value_serializer="raw"))
    async def agent(stream: Any) -> None:
        async for value in stream:
            seen.append(value)
            if value == b"2":
                raise ValueError("of event 2")

    async with running(app):
        await eventually(lambda: len(seen) == 5)
    assert seen == [b"0", b"1", b"2", b"3", b"4"], "event 2 was not tried again"
    assert await committed(kafka, group, topic, 1) == {0: 5}, "and it is committed all the same"


async def test_our_consumer_does_not_and_the_next_worker_begins_there(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}ours"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"%d" % n) for n in range(6)])

    async def is_committed(offset: int) -> bool:
        return await committed(kafka, group, topic, 1) == {0: offset}

    def worker(failing: bool) -> tuple[Any, list[int]]:
        app = batch_app(kafka, group, [topic], batch_records=2)
        seen: list[int] = []

        async def step(batch: RecordBatch) -> list[Any]:
            seen.extend(record.offset for record in batch.records)
            if failing and batch.first == 2:
                await eventually(lambda: is_committed(2))
                raise ValueError("of the second batch")
            return []

        drive(app, topic, step, "step")
        return app, seen

    app, seen = worker(failing=True)
    async with running(app):
        await eventually(lambda: app.crashed)
        assert isinstance(app.crash_reason, ValueError)
    assert seen == [0, 1, 2, 3], "the loop stands still after the failure"
    assert await committed(kafka, group, topic, 1) == {0: 2}
    app, seen = worker(failing=False)
    async with running(app):
        await eventually(lambda: len(seen) == 4)
    assert seen == [2, 3, 4, 5]
    assert await committed(kafka, group, topic, 1) == {0: 6}
