"""Waiting for what an answer can do without: so long and no longer, even if giving it up takes its time; and waiting
together for what many want at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_left: set[asyncio.Future[Any]] = set()  # the loop holds tasks weakly


async def within(seconds: float, work: Awaitable[T]) -> T:
    """What `work` comes to. Raises `TimeoutError` after so long, and leaves it to end by itself: a query to a server that
    hangs takes seconds to be given up."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        _left.add(task)
        task.add_done_callback(_ended)
        raise TimeoutError
    return task.result()


def _ended(task: asyncio.Future[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # nobody waits for it any more


class Shared(Generic[T]):
    """What `work` comes to, its exception too: done once for all who ask meanwhile or within `seconds` after its end. Who
    is cancelled stops waiting, and the work goes on for the others."""

    def __init__(
        self, seconds: float, work: Callable[[], Awaitable[T]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._work = work
        self._monotonic = monotonic
        self._task: asyncio.Task[T] | None = None
        self._good_until = 0.0

    async def __call__(self) -> T:
        if self._task is None or (self._task.done() and self._monotonic() >= self._good_until):
            self._task = asyncio.create_task(self._run())
        return await asyncio.shield(self._task)

    async def _run(self) -> T:
        try:
            return await self._work()
        finally:
            self._good_until = self._monotonic() + self._seconds
