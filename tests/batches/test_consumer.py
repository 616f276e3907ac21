"""What the broker holds is delivered in batches, every record once, whatever the fetcher does in between."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import pytest
from faust.types import TP

from tests.batches.fakes import Record
from tests.batches.rig import A0, A1, Rig, rig
from tutormax_streams.batches import RecordBatch, batch_consumer
from tutormax_streams.batches import consumer as module
from tutormax_streams.batches import consumer_thread as thread_module
from tutormax_streams.batches.consumer import LogCutShort

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


async def test_raw_records_are_not_passed_over_for_ever(monkeypatch: pytest.MonkeyPatch):
    """What waits in packed topics comes from other workers too: one that is slower than they never sees the end of it."""
    packed = TP("p", 0)
    made = await rig({A0: range(4_000), packed: range(10_000)}, packed_topics=["p"])
    made.thread.most = 5
    monkeypatch.setattr(thread_module, "PASSED_OVER_SECONDS", 0.4)
    monkeypatch.setattr(thread_module, "HELPING_RECORDS", 3)
    assert await made.deliver() == [(packed, 0, 4)]
    for round_ in range(1, 4):
        await asyncio.sleep(0.41)
        for batch in made.delivered[packed]:
            batch.done()
        assert (packed, 5 * round_, 5 * round_ + 4) in await made.deliver(), "and yet what has begun goes on"
    assert made.offsets(A0) == list(range(9)), "so many at a time: there is enough to do"


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


async def test_a_fetch_of_before_a_new_position_is_dropped():
    made = await rig({A0: range(10)}, batch_records=2)
    polling = made.poll()
    await anext(polling)
    await made.consumer.perform_seek()
    made.consumer.resume_flow()
    assert [message async for message in polling] == []
    await made.deliver()
    assert made.offsets(A0) == list(range(10))


async def test_nothing_is_delivered_while_positions_are_being_set():
    made = await rig({A0: range(10)})
    made.thread.stored[A0] = 5
    gate = asyncio.Event()
    committed = made.thread.seek_to_committed

    async def slowly() -> dict[TP, int | None]:
        await gate.wait()
        return await committed()

    made.thread.seek_to_committed = slowly  # type: ignore[method-assign]
    seeking = asyncio.ensure_future(made.consumer.perform_seek())
    polling = asyncio.ensure_future(made.deliver())
    await asyncio.wait([polling], timeout=0.05)
    assert not polling.done()
    gate.set()
    await seeking
    assert made.offsets(A0) == []
    made.consumer.resume_flow()
    await polling
    assert made.offsets(A0) == [5, 6, 7, 8, 9]


async def test_a_seek_for_a_partition_that_has_just_left_is_no_failure():
    made = await rig({A0: range(10)})
    made.thread.positions[A0] = 4
    waiting = made.thread.waiting

    def last_fetch(tp: TP, most: int) -> list[Record]:
        found = waiting(tp, most)
        made.thread.owned.clear()
        return found

    made.thread.waiting = last_fetch  # type: ignore[method-assign]
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


async def test_what_has_come_and_waits_for_its_turn_is_not_sought_again():
    """Where the event loop has much to do, handing out what one fetch brought takes seconds."""
    made = await rig({A0: range(6), A1: range(6)})
    made.thread.seeks.clear()
    polling = made.poll()
    assert (await anext(polling))[0] == A0
    await watch(made, 1_000, A1)
    assert made.thread.seeks == []
    assert (await anext(polling))[0] == A1


async def test_what_came_and_was_lost_on_its_way_is_sought_again():
    made = await rig({A0: range(6)})
    made.thread.seeks.clear()
    await made.thread.fetch(set(), {A0}, 0.0)  # who waited for it was cancelled
    assert await made.deliver() == []
    await watch(made, module.STUCK_SECONDS + 1)
    assert made.thread.seeks == [(A0, 0)]


async def test_a_marker_at_the_end_of_a_log_is_looked_for_twice_and_then_nothing_is_behind():
    """The end of a topic that is written in transactions; nobody ever delivers it."""
    made = await rig({A0: range(6)})
    await made.deliver()
    made.done(A0)
    await made.consumer.commit()
    assert await made.deliver() == []
    made.thread.ends[A0] = 7
    delivery = made.consumer._deliveries[A0]
    made.thread.seeks.clear()
    for looked in range(4):
        assert made.consumer.positions()[A0].behind == (1 if looked < 2 else 0)
        delivery.empty_fetches = 3
        made.thread.positions[A0] = 7  # the client passes over it
        await watch(made, module.STUCK_SECONDS + 1)
        assert await made.deliver() == []
    assert made.thread.seeks == [(A0, 6)] * 2, "from then on it is not worth a look every few seconds"
    await watch(made, module.STARVED_SECONDS + 1)
    assert len(made.thread.seeks) == 3, "but for ever one now and then"
    assert made.consumer.positions()[A0].behind_seconds == 0.0
    made.thread.logs[A0].append(Record(7, topic="a"))
    del made.thread.ends[A0]
    assert made.consumer.positions()[A0].behind == 2, "what comes next is behind again"
    assert await made.deliver() == []
    assert await made.deliver() == [(A0, 7, 7)]


async def test_it_is_looked_for_as_soon_where_other_partitions_are_busy_and_no_more_once_it_has_left():
    made = await rig({A0: range(6), A1: range(3)})
    await made.deliver()
    made.done(A0)
    await made.consumer.commit()
    assert await made.deliver() == []
    made.thread.ends[A0] = made.thread.positions[A0] = 7
    await watch(made, module.STUCK_SECONDS + 1)
    made.thread.positions[A0] = 7
    await watch(made, module.STUCK_SECONDS + 1)
    assert made.consumer._deliveries[A0].barren_end == 7
    made.thread.ends[A0] = 9
    made.thread.owned.discard(A0)
    await watch(made, module.STARVED_SECONDS + 1)


async def test_a_position_that_lost_its_records_is_no_marker():
    made = await rig({A0: range(6)})
    made.thread.positions[A0] = 6  # somebody pulled them from under us
    made.consumer._deliveries[A0].empty_fetches = 3
    await watch(made, module.STUCK_SECONDS + 1)
    assert made.consumer.positions()[A0].behind == 6
    assert await made.deliver() == [(A0, 0, 5)]


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


def test_an_app_without_a_consumer_has_none():
    app = faust.App("none", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
    assert batch_consumer(app) is None
