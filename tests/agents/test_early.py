"""Feedback ahead of its session waits for it in memory, not for long, and never for a commit to pass it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agents import early
from agents.early import EarlyFeedback
from models.events import Enriched
from tests.agents.fakes import Clock, Record, batch
from tests.postgres import builders
from tutormax_streams.batches import Gathering, RecordBatch


def session(number: int) -> Enriched:
    return builders.session(f"s{number}")


def feedback(number: int, at: int = 0) -> Enriched:
    return builders.feedback(f"s{number}", at=builders.T + at)


class Queue:
    """The queue to a database that takes everything, and what stands before it."""

    def __init__(self) -> None:
        self.written: list[Enriched] = []
        self.clock = Clock()
        self.gathering = Gathering(self._write, 100)
        self.early = EarlyFeedback(self.gathering, self.clock)
        self.offset = 0

    async def _write(self, events: list[Enriched]) -> None:
        self.written += events

    async def feed(self, *events: Enriched, partition: int = 0) -> RecordBatch:
        """One batch, and what follows from it."""
        self.offset += 1
        fed = batch([Record("enriched", partition, self.offset, b"")])
        self.early.add(fed, events)
        await self.settle()
        return fed

    async def settle(self) -> None:
        while self.gathering.waiting_entries:
            await self.gathering.run_once()
        await self.gathering.run_once()


@pytest.fixture
def queue() -> Queue:
    return Queue()


async def test_it_is_written_after_its_session_and_its_batch_is_done_then(queue: Queue):
    first = await queue.feed(session(1), feedback(2), feedback(3))
    assert queue.written == [session(1)]
    assert not first.is_done
    second = await queue.feed(session(2))
    assert queue.written[1:] == [session(2), feedback(2)]
    assert second.is_done
    assert not first.is_done
    await queue.feed(session(3))
    assert queue.written[3:] == [session(3), feedback(3)]
    assert first.is_done


async def test_all_versions_of_it_come(queue: Queue):
    held = [await queue.feed(feedback(1), feedback(1, at=5)), await queue.feed(feedback(1, at=9))]
    await queue.feed(session(1))
    assert queue.written == [session(1), feedback(1), feedback(1, at=5), feedback(1, at=9)]
    assert all(each.is_done for each in held)


@pytest.mark.parametrize("known", ["by enrich", "in the batch"])
async def test_it_does_not_wait_for_a_session_that_is_there(queue: Queue, known: str):
    late = feedback(1)
    events: Sequence[Enriched] = [late, session(1)]
    if known == "by enrich":
        events = [Enriched(late.event, late.digest, late.origin, {"feedback_delay_hours": 2.5})]
    fed = await queue.feed(*events)
    assert queue.written == list(events)
    assert fed.is_done


async def test_it_waits_for_few_batches_of_its_partition(queue: Queue):
    held = await queue.feed(feedback(1))
    for _ in range(early.MOST_BATCHES - 1):
        await queue.feed(session(2))
        await queue.feed(session(3), partition=1)
    assert not held.is_done
    await queue.feed(session(4))
    assert queue.written[-1] == feedback(1)
    assert held.is_done


@pytest.mark.parametrize("backlog", [True, False])
async def test_it_waits_for_a_few_seconds_more_of_them_in_a_backlog(queue: Queue, backlog: bool):
    held = await queue.feed(feedback(1))
    waiting = [session(9)] if backlog else []
    queue.gathering.add(batch([Record("enriched", 1, 0, b"")]), waiting)
    queue.clock.now_us += int((early.MOST_SECONDS if backlog else early.IDLE_SECONDS) * 1e6) - 1
    queue.early.let_go_of_overdue()
    assert queue.gathering.waiting_entries == len(waiting)
    queue.clock.now_us += 1
    queue.early.let_go_of_overdue()
    await queue.settle()
    assert queue.written == [*waiting, feedback(1)]
    assert held.is_done


async def test_of_a_partition_that_left_nothing_is_written(queue: Queue):
    held: Any = await queue.feed(feedback(1))
    held.revoke()
    await queue.feed(session(1))
    queue.clock.now_us += 60_000_000
    queue.early.let_go_of_overdue()
    await queue.settle()
    assert queue.written == [session(1)]
    assert not held.is_done
