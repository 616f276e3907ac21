"""The consumer between Faust and a broker that misbehaves: nothing is lost, doubled or committed too early.

The broker and the thread that reads from it are played by `FakeThread`; all else is the real consumer.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import faust
import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches.fakes import Record
from tutormax_streams.batches import RecordBatch, attach_batches, batch_consumer
from tutormax_streams.batches import consumer as module
from tutormax_streams.batches.consumer import BatchConsumer, LogCutShort

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
        self.flow_active = True

    def assignment(self) -> set[TP]:
        return set(self.owned)

    def highwater(self, tp: TP) -> int:
        assert tp in self.owned
        return self.ends.get(tp, self.logs[tp][-1].offset + 1 if self.logs[tp] else 0)

    def fetch(self, tp: TP) -> list[Record]:
        found = [record for record in self.logs[tp] if record.offset >= self.positions[tp]][: self.most]
        if found:
            self.positions[tp] = found[-1].offset + 1
        return found

    async def getmany(self, active: set[TP], timeout: float) -> dict[TP, list[Record]]:  # noqa: ASYNC109 - Faust's
        self.asked.append(set(active))
        await asyncio.sleep(0)
        return {tp: found for tp in sorted(active & self.owned) if (found := self.fetch(tp))}

    async def seek_here(self, tp: TP, offset: int) -> None:
        if tp not in self.owned:
            raise IllegalStateError(tp)
        self.seeks.append((tp, offset))
        self.positions[tp] = offset

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


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.0)


# -- delivery ---------------------------------------------------------------------------------------------------------


async def test_a_fetch_becomes_batches_of_one_partition_each_in_turns():
    made = await rig({A0: range(5), A1: range(3)}, batch_records=2)
    assert await made.deliver() == [(A0, 0, 1), (A1, 0, 1), (A0, 2, 3), (A1, 2, 2), (A0, 4, 4)]
    assert await made.deliver() == []


async def test_a_message_carries_its_batch_and_the_place_and_time_of_its_last_record():
    made = await rig({A0: range(5)})
    async for tp, message in made.poll():
        assert tp == message.tp == A0
        assert (message.topic, message.partition, message.offset) == ("a", 0, 4)
        assert message.timestamp == 1_700_000_000.0
        assert isinstance(message.value, RecordBatch)


async def test_records_come_from_the_committed_offset_on():
    made = Rig({A0: range(10)})
    made.thread.stored[A0] = 6
    await made.assign()
    await made.deliver()
    assert made.offsets(A0) == [6, 7, 8, 9]


async def test_without_a_committed_offset_they_come_from_the_logs_start_without_a_gap():
    gaps: list[Any] = []
    made = await rig({A0: range(7, 10)}, on_gap=staticmethod(lambda *gap: gaps.append(gap)))
    await made.deliver()
    assert made.offsets(A0) == [7, 8, 9]
    assert gaps == []


async def test_an_offset_of_zero_is_a_committed_offset():
    made = Rig({A0: range(3)})
    made.thread.stored[A0] = 0
    await made.assign()
    await made.deliver()
    assert made.offsets(A0) == [0, 1, 2]


async def test_records_that_a_moved_position_skipped_are_fetched_again():
    """A fetch that was already running when the consumer sought moves the position behind what it brings."""
    made = await rig({A0: range(10)})
    made.thread.positions[A0] = 4
    assert await made.deliver() == []
    assert made.thread.seeks[-1] == (A0, 0)
    await made.deliver()
    assert made.offsets(A0) == list(range(10))


async def test_a_real_hole_is_accepted_when_seen_twice_and_reported():
    gaps: list[Any] = []
    made = await rig({A0: [0, 1, 5, 6]}, on_gap=staticmethod(lambda *gap: gaps.append(gap)))
    made.thread.most = 2
    for _ in range(3):
        await made.deliver()
    assert made.offsets(A0) == [0, 1, 5, 6]
    assert gaps == [(A0, 2, 5)]


async def test_duplicates_are_dropped():
    made = await rig({A0: range(6)})
    made.thread.most = 4
    await made.deliver()
    made.thread.positions[A0] = 1
    await made.deliver()
    await made.deliver()
    assert made.offsets(A0) == [0, 1, 2, 3, 4, 5]


async def test_a_slow_partition_is_not_fetched_and_stands_in_nobodys_way():
    made = await rig({A0: range(100), A1: range(100)}, batch_records=1, max_in_flight=4)
    made.thread.most = 4
    await made.deliver()
    for _ in range(4):
        made.done(A1)
    await made.deliver()
    assert made.thread.asked[-1] == {A1}
    assert (len(made.delivered[A0]), len(made.delivered[A1])) == (4, 8)
    made.done(A0, 2)
    await made.deliver()
    assert made.thread.asked[-1] == {A1}  # the oldest is still unfinished
    made.done(A0, 0)
    await made.deliver()
    assert A0 in made.thread.asked[-1]


async def test_without_room_anywhere_nothing_is_fetched():
    made = await rig({A0: range(10)}, batch_records=1, max_in_flight=1)
    await made.deliver(1)
    asked = len(made.thread.asked)
    assert await made.deliver() == []
    assert len(made.thread.asked) == asked


async def test_work_that_has_begun_goes_first():
    packed = TP("p", 0)
    made = await rig({A0: range(10), packed: range(10)}, packed_topics=["p"])
    made.thread.most = 5
    assert {tp for tp, _, _ in await made.deliver()} == {packed}
    assert {tp for tp, _, _ in await made.deliver()} == {packed}
    assert {tp for tp, _, _ in await made.deliver()} == {A0}  # nothing begun waits any more


async def test_what_was_fetched_of_a_paused_partition_is_fetched_again():
    made = await rig({A0: range(4), A1: range(4)}, batch_records=2)
    polling = made.poll()
    async for tp, message in polling:
        made.delivered[tp].append(message.value)
        made.consumer.pause_partitions({A1})
    assert made.offsets(A0) == [0, 1, 2, 3]
    assert made.offsets(A1) == []
    made.consumer.resume_partitions({A1})
    await made.deliver()
    assert made.offsets(A1) == [0, 1, 2, 3]


async def test_a_fetch_of_the_assignment_before_is_dropped():
    made = await rig({A0: range(10)}, batch_records=2)
    polling = made.poll()
    await anext(polling)
    made.thread.stored[A0] = 4
    await made.revoke()
    await made.assign()
    assert [message async for message in polling] == []
    await made.deliver()
    assert made.offsets(A0) == [4, 5, 6, 7, 8, 9]


async def test_a_seek_for_a_partition_that_has_just_left_is_no_failure():
    made = await rig({A0: range(10)})
    made.thread.positions[A0] = 4
    fetch = made.thread.fetch

    def last_fetch(tp: TP) -> list[Record]:
        found = fetch(tp)
        made.thread.owned.clear()
        return found

    made.thread.fetch = last_fetch  # type: ignore[method-assign]
    assert await made.deliver() == []


async def test_while_the_flow_is_stopped_nothing_is_delivered():
    made = await rig({A0: range(10)})
    polling = made.poll()
    fetching = asyncio.ensure_future(anext(polling, None))
    await asyncio.sleep(0)
    made.consumer.stop_flow()
    assert await fetching is None
    await made.assign()
    await made.deliver()
    assert made.offsets(A0) == list(range(10))


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
        made.app.topics._acking_topics.add("a")
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
    monkeypatch.setattr(module, "GRACE_SECONDS", 2.0)
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver()
    taken, waiting, _ = made.delivered[A0]
    taken.is_taken = True
    asyncio.get_running_loop().call_later(0.05, taken.done)
    await asyncio.wait_for(made.revoke(), 1)
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


# -- watching ---------------------------------------------------------------------------------------------------------


async def watch(made: Rig, seconds: float, tp: TP = A0) -> None:
    delivery = made.consumer._deliveries[tp]
    await made.consumer._watch(tp, delivery, delivery.idle_since + seconds)


async def test_records_that_wait_without_coming_are_sought_again():
    made = await rig({A0: range(6)})
    made.thread.seeks.clear()
    made.consumer._deliveries[A0].empty_fetches = 3
    await watch(made, module.STUCK_SECONDS - 1)
    assert made.thread.seeks == []
    await watch(made, module.STUCK_SECONDS + 1)
    assert made.thread.seeks == [(A0, 0)]


async def test_where_other_partitions_keep_the_fetcher_busy_it_waits_longer():
    made = await rig({A0: range(6)})
    made.thread.seeks.clear()
    await watch(made, module.STARVED_SECONDS - 1)
    assert made.thread.seeks == []
    await watch(made, module.STARVED_SECONDS + 1)
    assert made.thread.seeks == [(A0, 0)]


async def test_work_under_way_is_no_standstill():
    made = await rig({A0: range(6)}, batch_records=2)
    await made.deliver(1)
    made.thread.seeks.clear()
    made.consumer._deliveries[A0].empty_fetches = 3
    await watch(made, 1_000)
    assert made.thread.seeks == []


async def test_a_log_that_was_cut_short_stops_the_worker():
    """What is written to it now would be dropped as if it had been delivered before."""
    made = await rig({A0: range(6)})
    await made.deliver()
    made.thread.ends[A0] = 3
    await watch(made, 0)
    await watch(made, module.CUT_SHORT_SECONDS - 1)
    with pytest.raises(LogCutShort, match="a-0 ends at 3, but was read up to 6"):
        await watch(made, module.CUT_SHORT_SECONDS + 1)


async def test_a_log_that_seems_short_for_a_moment_is_none_of_that():
    made = await rig({A0: range(6)})
    await made.deliver()
    made.thread.ends[A0] = 3
    await watch(made, 0)
    del made.thread.ends[A0]
    await watch(made, 20)
    made.thread.ends[A0] = 3
    await watch(made, module.CUT_SHORT_SECONDS + 1)


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
            case "move":  # a fetch was running
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


def test_an_app_without_a_consumer_has_none():
    app = faust.App("none", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
    assert batch_consumer(app) is None
