"""Waiting for what an answer can do without: so long and no longer, even if giving it up takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

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
