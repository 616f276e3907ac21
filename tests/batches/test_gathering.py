"""Gathering makes one piece of work of many batches, and never calls a batch done that was not part of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.batches.fakes import batch_of
from tests.turns import SOON_SECONDS
from tutormax_streams.batches import Gathering, Revoked


class Work:
    """Remembers what it was given; waits for `gate`, raises `failure`."""

    def __init__(self) -> None:
        self.done: list[list[int]] = []
        self.gate: asyncio.Event | None = None
        self.failure: BaseException | None = None
        self.cancelled = 0

    async def __call__(self, entries: list[int]) -> None:
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        self.done.append(list(entries))


@pytest.fixture
def work() -> Work:
    return Work()


async def begun(gathering: Gathering[Any]) -> asyncio.Task[int]:
    task = asyncio.ensure_future(gathering.run_once())
    for _ in range(3):
        await asyncio.sleep(0)
    return task


async def test_the_entries_of_many_batches_are_one_piece_of_work(work: Work):
    gathering = Gathering(work, 100)
    batches = [batch_of(1), batch_of(2, partition=1)]
    gathering.add(batches[0], [1, 2])
    gathering.add(batches[1], [3])
    assert gathering.waiting_entries == 3
    assert await gathering.run_once() == 3
    assert work.done == [[1, 2, 3]]
    assert all(batch.is_done for batch in batches)
    assert gathering.waiting_entries == 0


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([4, 4, 4], [8, 4]), ([9, 1], [9, 1]), ([2, 9, 2], [2, 9, 2]), ([3, 5], [8]), ([0, 0, 8], [8])],
)
async def test_work_is_bounded_except_for_a_single_batch(work: Work, sizes: list[int], expected: list[int]):
    gathering = Gathering(work, 8)
    for number, size in enumerate(sizes):
        gathering.add(batch_of(number), [number] * size)
    for size in expected:
        assert await gathering.run_once() == size
    assert await gathering.run_once() == 0


async def test_a_batch_without_entries_is_done_without_work(work: Work):
    gathering, batch = Gathering(work, 8), batch_of(1)
    gathering.add(batch, [])
    assert await gathering.run_once() == 0
    assert batch.is_done
    assert work.done == []


async def test_waiting_ends_with_the_next_arrival_only(work: Work):
    gathering = Gathering(work, 8)
    waiting = asyncio.ensure_future(gathering.arrived())
    await asyncio.sleep(0)
    assert not waiting.done()
    gathering.add(batch_of(1), [1])
    await waiting
    await gathering.run_once()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gathering.arrived(), 0.01)


async def test_revoked_batches_are_passed_over(work: Work):
    gathering, gone, here = Gathering(work, 8), batch_of(1), batch_of(2)
    gathering.add(gone, [1])
    gathering.add(here, [2])
    gone.revoke()
    assert await gathering.run_once() == 1
    assert work.done == [[2]]
    assert (gone.is_done, here.is_done) == (False, True)


async def test_work_under_way_is_cancelled_on_revocation_and_nothing_is_done(work: Work):
    gathering, batch = Gathering(work, 8), batch_of(1)
    work.gate = asyncio.Event()
    gathering.add(batch, [1])
    task = await begun(gathering)
    batch.revoke()
    assert await task == 0
    assert work.cancelled == 1
    assert not batch.is_done


async def test_batches_that_stay_are_worked_on_again_when_a_neighbour_leaves(work: Work):
    gathering, gone, here, later = Gathering(work, 2), batch_of(1), batch_of(2), batch_of(3)
    work.gate = asyncio.Event()
    for batch, entry in ((gone, 1), (here, 2), (later, 3)):
        gathering.add(batch, [entry])
    task = await begun(gathering)
    gone.revoke()
    assert await task == 0
    work.gate.set()
    await asyncio.wait_for(gathering.arrived(), SOON_SECONDS)
    assert await gathering.run_once() == 2
    assert work.done == [[2, 3]]
    assert (gone.is_done, here.is_done, later.is_done) == (False, True, True)


async def test_work_that_says_revoked_itself_leaves_nothing_done(work: Work):
    gathering, batch = Gathering(work, 8), batch_of(1)
    work.failure = Revoked("left")
    gathering.add(batch, [1])
    batch.revoke()
    assert await gathering.run_once() == 0
    assert not batch.is_done


async def test_an_exception_comes_through_and_nothing_is_done(work: Work):
    gathering, batches = Gathering(work, 8), [batch_of(1), batch_of(2)]
    work.failure = KeyError("a bug")
    for batch in batches:
        gathering.add(batch, [1])
    with pytest.raises(KeyError):
        await gathering.run_once()
    assert not any(batch.is_done for batch in batches)


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), Revoked("no batch of ours")])
async def test_work_given_up_for_no_reason_is_a_failure_and_no_silent_end(work: Work, failure: BaseException):
    gathering, batch = Gathering(work, 8), batch_of(1)
    work.failure = failure
    gathering.add(batch, [1])
    with pytest.raises(RuntimeError, match="still here"):
        await gathering.run_once()
    assert not batch.is_done


async def test_cancelling_the_writer_cancels_its_work_and_ends(work: Work):
    gathering, batch = Gathering(work, 8), batch_of(1)
    work.gate = asyncio.Event()
    gathering.add(batch, [1])
    task = await begun(gathering)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled == 1
    assert not batch.is_done


async def test_cancelling_the_writer_counts_also_when_partitions_leave_at_once(work: Work):
    gathering, batch = Gathering(work, 8), batch_of(1)
    work.gate = asyncio.Event()
    gathering.add(batch, [1])
    task = await begun(gathering)
    batch.revoke()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not batch.is_done


async def test_the_next_work_does_not_begin_before_cancelled_work_has_ended(work: Work):
    """A rollback takes its time; two transactions of one sink must not overlap."""
    running: list[str] = []

    async def slow_to_roll_back(entries: list[int]) -> None:
        running.append("begin")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            running.append("end")

    gathering, batch = Gathering(slow_to_roll_back, 8), batch_of(1)
    gathering.add(batch, [1])
    task = await begun(gathering)
    batch.revoke()
    assert await task == 0
    assert running == ["begin", "end"]
