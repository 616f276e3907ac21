"""The loop around a step: nothing leaves it in silence, and nothing that failed is ever called done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import faust
import pytest

from tests.batches.fakes import batch_of
from tests.turns import turns
from tutormax_streams.batches import RecordBatch, Revoked, drive

Answer = Iterable[Awaitable[Any]] | None
Run = Callable[..., Awaitable[None]]


class Crashes(list[BaseException]):
    """What stopped the worker."""

    async def __call__(self, failure: BaseException) -> None:
        self.append(failure)


@pytest.fixture
def crashes() -> Crashes:
    return Crashes()


@pytest.fixture
def run(crashes: Crashes, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Drive a step over batches; ends when they are used up, or stands still after a crash."""

    async def running(step: Callable[[RecordBatch], Awaitable[Answer]], *batches: RecordBatch) -> None:
        app = faust.App("driving", broker="kafka://127.0.0.1:1", autodiscover=False, web_enabled=False)
        monkeypatch.setattr(app, "crash", crashes)
        drive(app, "topic", step, "step")

        async def stream() -> AsyncIterator[RecordBatch]:
            for batch in batches:
                yield batch

        agent = asyncio.ensure_future(app.agents["step"].fun(stream()))
        await asyncio.wait([agent], timeout=0.1)
        if agent.done():
            agent.result()
        agent.cancel()
        await asyncio.wait([agent])

    return running


def confirmed(result: Any = None) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


async def test_a_batch_is_done_when_the_steps_confirmations_have_arrived(run: Run, crashes: Crashes):
    batches = [batch_of(1), batch_of(2)]
    later = asyncio.get_running_loop().create_future()
    taken: list[int] = []

    async def step(batch: RecordBatch) -> Answer:
        assert batch.is_taken
        taken.append(batch.first)
        return [confirmed(), later] if batch.first == 1 else []

    await run(step, *batches)
    assert taken == [1, 2]
    assert [batch.is_done for batch in batches] == [False, True]
    later.set_result(None)
    await turns()
    assert batches[0].is_done
    assert crashes == []


async def test_a_step_that_keeps_its_batch_calls_done_itself(run: Run):
    batch = batch_of(1)

    async def step(batch: RecordBatch) -> None:
        return None

    await run(step, batch)
    assert not batch.is_done


async def test_an_exception_stops_the_worker_and_no_further_batch_is_taken(run: Run, crashes: Crashes):
    batches = [batch_of(1), batch_of(2)]
    failure = ValueError("a bug")

    async def step(batch: RecordBatch) -> Answer:
        raise failure

    await run(step, *batches)
    assert crashes == [failure]
    assert not any(batch.is_done for batch in batches)
    assert not batches[1].is_taken


async def test_a_failed_confirmation_stops_the_worker(run: Run, crashes: Crashes):
    batch, failure = batch_of(1), OSError("broker away")

    async def step(batch: RecordBatch) -> Answer:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(failure)
        return [future]

    await run(step, batch)
    assert crashes == [failure]
    assert not batch.is_done


async def test_revoked_work_is_dropped_and_the_next_batch_taken(run: Run, crashes: Crashes):
    batches = [batch_of(1), batch_of(2, partition=1)]

    async def step(batch: RecordBatch) -> Answer:
        if batch.first == 1:
            batch.revoke()
            raise Revoked("left")
        return []

    await run(step, *batches)
    assert [batch.is_done for batch in batches] == [False, True]
    assert crashes == []


async def test_a_revoked_batch_is_not_begun(run: Run):
    batch = batch_of(1)
    batch.revoke()

    async def step(batch: RecordBatch) -> Answer:
        raise AssertionError("must not be called")

    await run(step, batch)
    assert not batch.is_taken


async def test_work_dropped_although_the_partition_is_here_stops_the_worker(run: Run, crashes: Crashes):
    """Passing over it would leave the partition uncommitted for ever, without a word."""
    batches = [batch_of(1), batch_of(2)]

    async def step(batch: RecordBatch) -> Answer:
        raise Revoked("table-0 is not held by this worker")

    await run(step, *batches)
    assert [type(failure) for failure in crashes] == [Revoked]
    assert not batches[1].is_taken


async def test_a_step_cancelled_from_within_stops_the_worker(run: Run, crashes: Crashes):
    """Faust would begin the agent anew with the next batch, and this one would never be done."""
    batches = [batch_of(1), batch_of(2)]

    async def step(batch: RecordBatch) -> Answer:
        raise asyncio.CancelledError

    await run(step, *batches)
    assert [type(failure) for failure in crashes] == [RuntimeError]
    assert not batches[1].is_taken


async def test_cancelling_the_agent_is_no_crash(run: Run, crashes: Crashes):
    async def step(batch: RecordBatch) -> Answer:
        await asyncio.sleep(60)
        return []

    batch = batch_of(1)
    await run(step, batch)
    assert crashes == []
    assert not batch.is_done
