"""Only the prefix that is done is ever committed, and what was not is delivered again after an assignment."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches.fakes import Record
from tests.batches.rig import A0, A1, rig
from tests.turns import SOON_SECONDS
from tutormax_streams.batches import consumer as module


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)


# -- commit -----------------------------------------------------------------------------------------------------------


async def test_only_the_prefix_that_is_done_is_committed():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    made.done(A0, 1)
    await made.consumer.commit()
    assert made.thread.stored == {}
    made.done(A0, 0)
    await made.consumer.commit()
    assert made.thread.stored == {A0: 4}


async def test_what_faust_acknowledges_does_not_matter():
    made = await rig({A0: range(6)}, batch_records=2)
    async for tp, message in made.poll():
        made.delivered[tp].append(message.value)
        conductor: Any = made.app.topics
        conductor._acking_topics.add("a")
        message.incref()
        message.ack(made.consumer)
    await made.consumer.commit()
    assert made.thread.stored == {}
    assert not made.consumer._acked[A0]


async def test_a_failed_commit_is_tried_again():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    made.done(A0)
    made.thread.refuses_commits = True
    await made.consumer.commit()
    assert made.consumer.positions()[A0].committed is None
    for batch in made.delivered[A0]:
        batch.records = ()  # whoever has read them may let go of them
    assert made.consumer.positions()[A0].oldest_ms is not None
    made.thread.refuses_commits = False
    await made.consumer.commit()
    assert made.thread.stored == {A0: 2}
    assert made.consumer.positions()[A0].committed == 2


async def test_a_partition_that_left_is_not_committed():
    made = await rig({A0: range(6), A1: range(6)})
    await made.deliver()
    made.done(A0)
    made.done(A1)
    made.thread.owned.discard(A0)
    await made.consumer.commit()
    assert made.thread.stored == {A1: 6}


async def test_a_crashed_worker_stops_in_order_although_its_consumer_thread_is_gone():
    made = await rig({A0: range(6)})
    await made.deliver()
    made.done(A0)
    made.thread.should_stop = True
    await made.consumer.wait_empty()
    assert made.thread.stored == {}


async def test_a_gap_is_never_taken_for_an_acknowledgement():
    made = await rig({A0: [0, 1, 5, 6]}, batch_records=2)
    await made.consumer._add_gap(A0, 2, 5)
    await made.deliver()
    made.done(A0, 1)
    await made.consumer.commit()
    assert made.thread.stored == {}


# -- partitions leave -------------------------------------------------------------------------------------------------


async def test_on_revocation_done_work_is_committed_and_the_rest_dropped():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    first, second, third = made.delivered[A0]
    first.done()
    third.done()
    await made.revoke()
    assert made.thread.stored == {A0: 2}
    assert second.revoked
    assert made.consumer.positions() == {}


async def test_work_under_way_gets_a_moment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "GRACE_SECONDS", 2 * SOON_SECONDS)
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    taken, waiting, _ = made.delivered[A0]
    taken.is_taken = True
    asyncio.get_running_loop().call_later(0.05, taken.done)
    await asyncio.wait_for(made.revoke(), SOON_SECONDS)
    assert made.thread.stored == {A0: 2}
    assert waiting.revoked
    assert not taken.revoked


async def test_the_moment_is_given_once(monkeypatch: pytest.MonkeyPatch):
    """A stopping worker waits twice: when its flow stops and when its consumer does."""
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    made = await rig({A0: range(6)})
    await made.deliver()
    made.delivered[A0][0].is_taken = True
    loop = asyncio.get_running_loop()
    started = loop.time()
    await made.consumer.wait_empty()
    await made.consumer.wait_empty()
    assert loop.time() - started < 0.35


async def test_batches_of_the_assignment_before_cannot_be_committed_in_the_next():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    late = made.delivered[A0][0]
    await made.revoke()
    await made.assign()
    late.done()
    await made.consumer.commit()
    assert made.thread.stored == {}
    await made.deliver()
    assert made.offsets(A0) == list(range(6))


async def test_a_new_position_revokes_what_is_under_way():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    old = list(made.delivered[A0])
    await made.assign()
    assert all(batch.revoked for batch in old)


async def test_partitions_that_left_are_forgotten_by_telemetry_and_watch():
    made = await rig({A0: range(6), A1: range(6)})
    made.thread.owned.discard(A1)
    assert made.consumer.positions()[A1].end is None
    await made.assign()
    assert set(made.consumer.positions()) == {A0}


# -- every history ----------------------------------------------------------------------------------------------------

STEPS = ["deliver", "deliver one", "done", "done any", "move", "commit", "refuse", "rebalance", "grow", "leave"]


@given(steps=st.lists(st.sampled_from(STEPS), max_size=40), seed=st.integers(0, 2**16), holes=st.booleans())
@settings(max_examples=300)
def test_nothing_is_lost_doubled_or_committed_too_early(steps: list[str], seed: int, holes: bool):
    asyncio.run(_live(steps, random.Random(seed), holes))


async def _live(steps: list[str], rng: random.Random, holes: bool) -> None:
    logs = {tp: [n for n in range(rng.randrange(30)) if not holes or rng.random() < 0.7] for tp in (A0, A1)}
    made = await rig(logs, batch_records=3, max_in_flight=2)
    thread = made.thread
    starts: dict[TP, int] = dict.fromkeys(logs, 0)
    finished: dict[TP, set[int]] = defaultdict(set)

    def check() -> None:
        for tp in logs:
            found = made.offsets(tp)
            in_log = [record.offset for record in thread.logs[tp] if record.offset >= starts[tp]]
            assert found == in_log[: len(found)], "delivered once, in order, without omission"
            finished[tp] |= {r.offset for b in made.delivered[tp] if b.is_done for r in b.records}
            committed = thread.stored.get(tp, 0)
            assert {r.offset for r in thread.logs[tp] if r.offset < committed} <= finished[tp], "nothing undone"

    for step in steps:
        tp = rng.choice([A0, A1])
        waiting = [batch for batch in made.delivered[tp] if not batch.is_done]
        match step:
            case "deliver":
                thread.most = rng.randrange(1, 9)
                await made.deliver()
            case "deliver one":  # the worker is busy elsewhere, and what else was fetched is dropped
                await made.deliver(1)
            case "done" if waiting:
                waiting[0].done()
            case "done any" if waiting:
                rng.choice(waiting).done()
            case "move" if made.consumer._deliveries[tp].hole is None:  # a fetch was running, and not again since
                thread.positions[tp] = rng.randrange(40)
            case "commit":
                thread.refuses_commits = False
                await made.consumer.commit()
            case "refuse":
                thread.refuses_commits = True
                await made.consumer.commit()
            case "rebalance":
                await made.revoke()
                check()
                await made.assign()
                starts = {tp: thread.stored.get(tp, 0) for tp in logs}
            case "grow":
                last = thread.logs[tp][-1].offset if thread.logs[tp] else -1
                thread.logs[tp].append(Record(last + rng.choice([1, 1, 3]), topic=tp.topic, partition=tp.partition))
        check()
    thread.refuses_commits = False
    for _ in range(60):  # moved positions are noticed by what comes next, or by the watch
        await made.deliver()
        for tp, batches in made.delivered.items():
            for batch in batches:
                batch.done()
            delivery = made.consumer._deliveries[tp]
            delivery.empty_fetches = 3
            await made.consumer._watch(tp, delivery, delivery.idle_since + 100)
        for tp in logs:
            thread.positions[tp] = min(thread.positions[tp], made.consumer._deliveries[tp].expected)
    await made.consumer.commit()
    check()
    for tp in logs:
        if thread.logs[tp]:
            assert thread.stored[tp] == thread.logs[tp][-1].offset + 1


async def test_records_that_are_not_delivered_are_known_to_grow_old():
    made = await rig({A0: range(6)})
    first = made.consumer.positions()[A0]
    assert (first.in_flight, first.oldest_ms, first.behind) == (0, None, 6)
    assert first.behind_seconds > 0
    await asyncio.sleep(0.05)
    assert made.consumer.positions()[A0].behind_seconds >= 0.05
    await made.assign()
    assert made.consumer.positions()[A0].behind_seconds >= 0.05, "a rebalance makes nothing younger"
    await made.deliver()
    made.done(A0)
    await made.consumer.commit()
    assert (made.consumer.positions()[A0].behind, made.consumer.positions()[A0].behind_seconds) == (0, 0.0)
