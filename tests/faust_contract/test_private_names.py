"""Each private name of Faust and aiokafka that we use, at work: see `tutormax_streams.batches.pins`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import faust
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from aiokafka.protocol.group import HeartbeatRequest
from faust.transport.consumer import Consumer as AnyConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from yarl import URL

from tests.batches.rig import A0, A1, rig
from tests.faust_contract.apps import batch_app, create_topics, eventually, publish, running
from tutormax_streams.batches import RecordBatch, Sender, batch_consumer, bound_idle_connections, drive
from tutormax_streams.batches.consumer import BatchConsumer
from tutormax_streams.batches.consumer_thread import BatchConsumerThread
from tutormax_streams.embedded.server import free_port
from tutormax_streams.kafka import admin_client, group_members
from tutormax_streams.settings import Settings
from tutormax_streams.web.members import url_of


async def test_fetching_asks_for_what_is_active_and_not_paused(monkeypatch: pytest.MonkeyPatch):
    made = await rig({A0: range(3), A1: range(3)})
    asked: list[Any] = []

    async def getmany(**arguments: Any) -> dict[TP, Any]:
        asked.append(arguments)
        return {A0: "records"}

    monkeypatch.setattr(made.consumer, "_getmany", getmany)
    made.consumer.pause_partitions({A1})
    assert made.consumer._paused_partitions == {A1}
    found: Any = await made.consumer._wait_next_records(0.5)
    assert found == ({A0: "records"}, {A0})
    assert asked == [{"active_partitions": {A0}, "timeout": 0.5}]


async def test_changelogs_are_told_from_topics():
    made = await rig({A0: range(3)})
    tables: Any = made.app.tables
    tables._changelogs["changelog"] = object()
    assert made.consumer._is_changelog_tp(TP("changelog", 0))
    assert not made.consumer._is_changelog_tp(A0)


def test_the_thread_is_ours():
    app = batch_app("127.0.0.1:1", "thread", ["a"])
    assert batch_consumer(app) is app._consumer is None
    consumer: Any = app.consumer
    assert batch_consumer(app) is app._consumer is consumer
    assert isinstance(consumer, BatchConsumer)
    assert isinstance(consumer._thread, BatchConsumerThread)
    assert consumer._thread.consumer is consumer


async def test_what_has_begun_is_fetched_first_in_one_call_into_the_thread(monkeypatch: pytest.MonkeyPatch):
    assert list(inspect.signature(AIOKafkaConsumerThread._fetch_records).parameters) == [
        "self", "consumer", "active_partitions", "timeout", "max_records",
    ]  # fmt: skip
    app = batch_app("127.0.0.1:1", "turns", ["a"])
    thread: Any = cast(Any, app.consumer)._thread
    client = SimpleNamespace(_max_poll_records=7)
    calls: list[Any] = []
    asked: list[tuple[set[TP], float]] = []
    assert hasattr(AIOKafkaConsumer("a"), "_max_poll_records")

    async def call_thread(step: Any, *arguments: Any) -> Any:
        calls.append(step)
        return await step(*arguments)

    async def fetch_records(consumer: Any, partitions: set[TP], timeout: float, max_records: int) -> Any:  # noqa: ASYNC109
        assert (consumer, max_records) == (client, 7)
        asked.append((partitions, timeout))
        return {A0: "records"} if partitions == {A0} and len(asked) == 1 else {}

    monkeypatch.setattr(thread, "call_thread", call_thread)
    monkeypatch.setattr(thread, "_ensure_consumer", lambda: client)
    monkeypatch.setattr(thread, "_fetch_records", fetch_records)
    assert await thread.fetch({A0}, {A0, A1}, 0.5) == {A0: "records"}
    assert await thread.fetch({A0}, {A0, A1}, 0.5) == {}
    assert asked == [({A0}, 0), ({A0}, 0), ({A0, A1}, 0.5)]
    assert len(calls) == 2


async def test_seeking_notes_the_committed_offsets():
    made = await rig({A0: range(9), A1: range(9)})
    made.thread.stored[A0] = 5
    await AnyConsumer.perform_seek(made.consumer)
    assert (made.consumer._read_offset[A0], made.consumer._read_offset[A1]) == (5, None)
    assert (made.consumer._committed_offset[A0], made.consumer._committed_offset[A1]) == (5, None)


async def test_acknowledging_keeps_books_that_we_empty():
    made = await rig({A0: range(3)})
    conductor: Any = made.app.topics
    conductor._acking_topics.add("a")
    async for _, message in made.poll():
        made.consumer.track_message(message)
        assert message in made.consumer._unacked_messages
        message.incref()
        message.ack(made.consumer)
        assert message not in made.consumer._unacked_messages
    assert (made.consumer._acked[A0], made.consumer._acked_index[A0]) == ([2], {2})
    await made.consumer.commit()
    assert A0 not in made.consumer._acked
    assert A0 not in made.consumer._acked_index
    assert made.thread.stored == {}


async def test_committing_goes_through_our_overrides(monkeypatch: pytest.MonkeyPatch):
    made = await rig({A0: range(3)})
    called: list[str] = []
    for name in ("_filter_tps_with_pending_acks", "_new_offset", "_commit_offsets", "_commit"):
        assert name in vars(BatchConsumer)

        def noted(*arguments: Any, _name: str = name, **named: Any) -> Any:
            called.append(_name)
            return getattr(BatchConsumer, _name)(made.consumer, *arguments, **named)

        monkeypatch.setattr(made.consumer, name, noted)
    await made.deliver()
    made.done(A0)
    await made.consumer.commit()
    assert called == ["_filter_tps_with_pending_acks", "_new_offset", "_commit_offsets", "_commit"]
    assert made.thread.stored == {A0: 3}
    called.clear()
    await made.consumer.commit()
    assert "_commit" not in called, "Faust asks `_committed_offset` whether there is anything new"


@pytest.mark.parametrize("stock", [True, False])
async def test_a_thread_that_a_crash_has_ended_can_be_stopped(stock: bool):
    """Stock mode tells a loop that is closed, logs that as an error, and does not wait for the thread."""

    class Idle(AIOKafkaConsumerThread if stock else BatchConsumerThread):  # type: ignore[misc]
        async def on_start(self) -> None: ...

        async def on_thread_stop(self) -> None: ...

    app = faust.App("ending", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
    thread = Idle(app.consumer, loop=asyncio.get_running_loop())
    await thread.start()
    thread._crash(ValueError("somewhere else"))
    await eventually(thread.thread_loop.is_closed)
    if stock:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            await thread.stop()
    else:
        await thread.stop()
        assert not thread._thread.is_alive()


def test_gaps_are_told_to_our_override():
    assert "_add_gap" in vars(BatchConsumer)
    assert "self._add_gap(tp, r_offset + 1, offset)" in inspect.getsource(AnyConsumer._drain_messages)


@pytest.mark.servers
async def test_fetches_are_tuned_and_their_answers_dated(kafka: str, topic_prefix: str):
    topic = group = f"{topic_prefix}tuned"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"x")])
    seen: list[RecordBatch] = []

    async def step(batch: RecordBatch) -> list[Any]:
        seen.append(batch)
        return []

    app = batch_app(kafka, group, [topic], fetch_min_bytes=1234, fetch_max_wait_ms=77, fetch_max_bytes=4_000_000)
    drive(app, topic, step, "step")
    async with running(app):
        await eventually(lambda: seen)
        consumer: Any = batch_consumer(app)
        client = consumer._thread._ensure_consumer()
        assert isinstance(client, AIOKafkaConsumer)
        fetcher = client._fetcher
        assert (fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms, fetcher._fetch_max_bytes) == (1234, 77, 4_000_000)
        assert client._subscription.subscription.assignment.state_value(TopicPartition(topic, 0)).timestamp > 0
        silence = consumer.silence_seconds()
        assert silence is not None
        assert silence < 5


@pytest.mark.servers
async def test_a_member_knows_when_its_group_last_confirmed_it(kafka: str, topic_prefix: str):
    """By an assignment, and by each heartbeat that is answered, from when it was sent."""
    topic = group = f"{topic_prefix}member"
    await create_topics(kafka, 1, topic)
    app = batch_app(kafka, group, [topic])
    app.conf.broker_heartbeat_interval = 0.5

    async def step(batch: RecordBatch) -> list[Any]:
        return []

    drive(app, topic, step, "step")
    async with running(app):
        consumer: Any = batch_consumer(app)
        await eventually(consumer.assignment)
        assert consumer.unconfirmed_seconds() < 5
        coordinator = consumer._thread._ensure_consumer()._coordinator
        send = coordinator._send_req

        async def slow(request: Any) -> Any:
            answer = await send(request)
            if isinstance(request, HeartbeatRequest):
                await asyncio.sleep(1.5)
            return answer

        coordinator._send_req = slow
        await asyncio.sleep(2.5)
        seen = []
        for _ in range(40):
            seen.append(consumer.unconfirmed_seconds())
            await asyncio.sleep(0.1)
        assert 1.4 < min(seen) < max(seen) < 5, "from when it was sent, time after time"

        async def refused(request: Any) -> Any:
            if isinstance(request, HeartbeatRequest):
                raise KafkaConnectionError
            return await send(request)

        coordinator._send_req = refused
        await eventually(lambda: consumer.unconfirmed_seconds() > 6)
        assert consumer.silence_seconds() < 3, "fetches are answered whoever the partitions belong to by now"


@pytest.mark.servers
async def test_members_of_a_group_without_tables_tell_their_url(kafka: str, topic_prefix: str):
    """They are assigned by aiokafka's round robin, which tells nothing; with tables Faust's own assignor tells it."""
    topic = group = f"{topic_prefix}telling"
    await create_topics(kafka, 1, topic)
    app = batch_app(kafka, group, [topic])
    app.conf.canonical_url = URL("http://worker:6066")
    seen: list[RecordBatch] = []

    async def step(batch: RecordBatch) -> list[Any]:
        seen.append(batch)
        return []

    drive(app, topic, step, "step")
    async with running(app):
        await publish(kafka, topic, [(0, b"x")])
        await eventually(lambda: seen)
        async with admin_client(Settings(kafka_bootstrap_servers=kafka)) as admin:
            members = await group_members(admin, group)
        assert members is not None
        assert [url_of(metadata) for metadata in members] == ["http://worker:6066"]


@pytest.mark.servers
async def test_the_thread_commits_through_our_override(kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch):
    """Stock Faust crashes the worker when a commit fails; ours tries again."""
    topic = group = f"{topic_prefix}commits"
    await create_topics(kafka, 1, topic)
    await publish(kafka, topic, [(0, b"x")])
    failures = 0
    commit = AIOKafkaConsumer.commit

    async def failing_once(self: AIOKafkaConsumer, offsets: Mapping[TopicPartition, int]) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise TimeoutError
        await commit(self, offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", failing_once)

    async def step(batch: RecordBatch) -> list[Any]:
        return []

    app = batch_app(kafka, group, [topic])
    drive(app, topic, step, "step")
    async with running(app):
        consumer: Any = batch_consumer(app)
        await eventually(lambda: consumer.positions()[TP(topic, 0)].committed == 1)
        assert failures >= 2
        assert not app.crashed


@pytest.mark.servers
@pytest.mark.parametrize("idempotent", [True, False])
async def test_the_producer_waits_for_all_replicas_and_is_idempotent(kafka: str, topic_prefix: str, idempotent: bool):
    topic = group = f"{topic_prefix}producer-{idempotent}"
    await create_topics(kafka, 1, topic)
    app = batch_app(kafka, group, [topic], idempotent=idempotent)

    async def step(batch: RecordBatch) -> list[Any]:
        return []

    drive(app, topic, step, "step")
    async with running(app):
        producer: Any = app.producer
        client = producer._ensure_producer()
        assert client._sender._acks == -1
        assert (client._txn_manager is not None) == idempotent
        sender = Sender(app)
        single = await (await sender.send(topic, b"single", partition=0, headers=[("h", b"1")]))
        items: list[tuple[bytes, bytes | None]] = [(b"k%d" % n, bytes(1_000)) for n in range(40)]
        run = await sender.send_run(topic, 0, items)
        placed = [(await future).offset for future, _ in run]
        counts = [count for _, count in run]
        assert single.offset == 0
        assert sum(counts) == 40
        assert len(run) > 1, "several producer batches of 16 KiB"
        assert placed == [1 + sum(counts[:number]) for number in range(len(run))]
        ((large, _),) = await sender.send_run(topic, 0, [(b"k", bytes(100_000))])
        assert (await large).offset == 41, "a record larger than a batch goes alone"
        ((too_large, _),) = await sender.send_run(topic, 0, [(b"k", bytes(2_000_000))])
        with pytest.raises(MessageSizeTooLargeError):
            await too_large


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["silent", "dripping"])
async def test_a_connection_on_which_no_whole_request_comes_is_closed(head: bytes):
    """aiohttp holds it for an hour."""
    app = faust.App("idle", broker="kafka://nowhere:1", web_bind="127.0.0.1", web_port=free_port())
    server: Any = app.web
    bound_idle_connections(app, 0.5)
    await server.start_server()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.conf.web_port)
        closed = asyncio.ensure_future(reader.read())
        writer.write(head)
        for _ in range(50):
            if closed.done():
                break
            if head:
                writer.write(b"x")
            await asyncio.wait({closed}, timeout=0.1)
        assert closed.done(), "held for 5 s"
        writer.close()
        async with aiohttp.ClientSession() as client, client.get(app.conf.canonical_url / "nowhere") as answer:
            assert answer.status == 404, "others are answered"
    finally:
        await server.stop_server()
