"""What many wait for together."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.turns import turns
from tutormax_streams.web.patience import Shared


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.now = 10.0
        self.going = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.going.wait()
        if self.failure is not None:
            raise self.failure
        return number

    def shared(self) -> Shared[int]:
        return Shared(1.0, self, lambda: self.now)


async def test_it_is_done_once_for_all_who_wait_and_kept_for_a_second():
    work = Work()
    shared = work.shared()
    waiting = [asyncio.create_task(shared()) for _ in range(5)]
    await asyncio.sleep(0)
    work.now += 60  # however long it takes
    waiting.append(asyncio.create_task(shared()))
    work.going.set()
    assert await asyncio.gather(*waiting) == [1] * 6
    work.now += 0.9
    assert await shared() == 1
    work.now += 0.2
    assert await shared() == 2


async def test_who_is_cancelled_does_not_end_it_for_the_others():
    work = Work()
    shared = work.shared()
    first, second = (asyncio.create_task(shared()) for _ in range(2))
    await turns()
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    work.going.set()
    assert await second == 1
    assert first.cancelled()


async def test_a_failure_is_remembered_no_longer_than_an_answer():
    work = Work()
    shared = work.shared()
    work.going.set()
    work.failure = ValueError("away")
    for _ in range(2):
        with pytest.raises(ValueError, match="away"):
            await shared()
    assert work.begun == 1
    work.failure = None
    work.now += 1.1
    assert await shared() == 2
