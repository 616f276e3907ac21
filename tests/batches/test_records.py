"""A batch is done only when everything that follows from it is, and stops within milliseconds when it is revoked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.batches.fakes import batch_of
from tutormax_streams.batches import Revoked


def new_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def never(failure: BaseException) -> None:
    raise AssertionError(f"no failure was expected: {failure!r}")


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_batch_knows_its_place():
    batch = batch_of(7, 8, 12, partition=3)
    assert (batch.first, batch.last, batch.partition) == (7, 12, 3)
    assert not batch.is_done
    assert not batch.revoked
    batch.done()
    assert batch.is_done


async def test_work_is_awaited_while_the_partition_is_owned():
    assert await batch_of(1).while_owned(asyncio.sleep(0, "result")) == "result"


async def test_an_exception_of_the_work_comes_through():
    async def fail() -> None:
        raise KeyError("of the work")

    with pytest.raises(KeyError):
        await batch_of(1).while_owned(fail())


async def test_revoking_cancels_work_within_milliseconds():
    batch, cleaned = batch_of(1), []

    async def transaction() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append("rolled back")

    step = asyncio.ensure_future(batch.while_owned(transaction()))
    await turns()
    started = time.monotonic()
    batch.revoke()
    with pytest.raises(Revoked):
        await step
    assert time.monotonic() - started < 0.05
    assert cleaned == ["rolled back"]
    assert not batch.is_done


async def test_work_for_a_revoked_batch_does_not_begin():
    batch, begun = batch_of(1), []
    batch.revoke()

    async def work() -> None:
        begun.append(True)

    with pytest.raises(Revoked):
        await batch.while_owned(work())
    assert begun == []


async def test_cancelling_the_agent_is_no_revocation():
    batch = batch_of(1)
    step = asyncio.ensure_future(batch.while_owned(asyncio.sleep(60)))
    await turns()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step


async def test_cancelling_the_agent_counts_also_when_the_batch_is_revoked_at_once():
    batch = batch_of(1)
    step = asyncio.ensure_future(batch.while_owned(asyncio.sleep(60)))
    await turns()
    batch.revoke()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step


async def test_work_that_nobody_saw_ending_before_the_revocation_is_done_again_elsewhere():
    batch, future = batch_of(1), new_future()
    step = asyncio.ensure_future(batch.while_owned(_await(future)))
    await turns()
    future.set_result("committed")
    batch.revoke()
    with pytest.raises(Revoked):
        await step


async def _await(future: asyncio.Future[Any]) -> Any:
    return await future


async def test_a_watched_task_is_cancelled_on_revocation():
    batch = batch_of(1)
    task = asyncio.ensure_future(asyncio.sleep(60))
    batch.watch(task)
    batch.revoke()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_without_confirmations_a_batch_is_done_at_once():
    batch = batch_of(1)
    batch.done_when([], never)
    assert batch.is_done


async def test_a_batch_is_done_after_its_last_confirmation_and_not_before():
    batch, first, second = batch_of(1), new_future(), new_future()
    batch.done_when([first, second], never)
    second.set_result(None)
    await turns()
    assert not batch.is_done
    first.set_result(None)
    await turns()
    assert batch.is_done


async def test_a_failed_confirmation_is_reported_once_and_the_batch_never_done():
    batch = batch_of(1)
    failures: list[BaseException] = []
    confirmations = [new_future() for _ in range(3)]
    batch.done_when(confirmations, failures.append)
    failure = OSError("broker away")
    confirmations[1].set_exception(failure)
    confirmations[2].set_exception(OSError("and again"))
    confirmations[0].set_result(None)
    await turns()
    assert failures == [failure]
    assert not batch.is_done


async def test_a_cancelled_confirmation_never_makes_a_batch_done():
    batch, confirmation = batch_of(1), new_future()
    failures: list[BaseException] = []
    batch.done_when([confirmation], failures.append)
    confirmation.cancel()
    await turns()
    assert not batch.is_done
    assert [type(failure) for failure in failures] == [RuntimeError]


async def test_a_failure_after_revocation_is_nobodys_concern():
    batch, confirmation = batch_of(1), new_future()
    batch.done_when([confirmation], never)
    batch.revoke()
    confirmation.set_exception(OSError("broker away"))
    await turns()
    assert not batch.is_done


async def test_a_confirmation_after_revocation_still_counts():
    """It is durable: if the partition has not left yet, it may be committed."""
    batch, confirmation = batch_of(1), new_future()
    batch.done_when([confirmation], never)
    batch.revoke()
    confirmation.set_result(None)
    await turns()
    assert batch.is_done
