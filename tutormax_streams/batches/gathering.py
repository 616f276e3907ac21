"""Gathers batches of many partitions into one piece of work at a time, such as a database transaction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.records import RecordBatch, Revoked, being_cancelled

E = TypeVar("E")


class Parts:
    """A batch whose entries are worked on in several pieces: it is done when the last of them is."""

    __slots__ = ("_batch", "_left")

    def __init__(self, batch: RecordBatch, pieces: int) -> None:
        self._batch = batch
        self._left = pieces

    @property
    def revoked(self) -> bool:
        return self._batch.revoked

    def split(self) -> None:
        """One piece more."""
        self._left += 1

    def watch(self, task: asyncio.Future[Any]) -> None:
        self._batch.watch(task)

    def done(self) -> None:
        """One piece is durable."""
        self._left -= 1
        if not self._left:
            self._batch.done()


class Gathering(Generic[E]):
    """Batches wait here with their entries; `work` gets the entries of many at once, then all are done.

    At most `most_entries` go into one piece of work (one batch always fits). Work is cancelled and nothing is done
    when a partition leaves: its next owner does it again, and batches of partitions that stay wait here again.
    """

    def __init__(self, work: Callable[[list[E]], Awaitable[None]], most_entries: int) -> None:
        self._work = work
        self._most_entries = most_entries
        self._waiting: list[tuple[RecordBatch | Parts, list[E]]] = []
        self._arrived = asyncio.Event()

    def add(self, batch: RecordBatch | Parts, entries: list[E]) -> None:
        self._waiting.append((batch, entries))
        self._arrived.set()

    @property
    def waiting_entries(self) -> int:
        return sum(len(entries) for _, entries in self._waiting)

    async def arrived(self) -> None:
        """Wait until there is something to do."""
        await self._arrived.wait()

    async def run_once(self) -> int:
        """Do the work of what waits, up to the bound: how many entries were done. Raises what `work` raises."""
        taken: list[tuple[RecordBatch | Parts, list[E]]] = []
        entries: list[E] = []
        while self._waiting and (not taken or len(entries) + len(self._waiting[0][1]) <= self._most_entries):
            batch, more = self._waiting.pop(0)
            if not batch.revoked:
                taken.append((batch, more))
                entries.extend(more)
        if not self._waiting:
            self._arrived.clear()
        if not taken:
            return 0
        if entries and not await self._worked(taken, entries):
            self._waiting[:0] = [pair for pair in taken if not pair[0].revoked]
            if self._waiting:
                self._arrived.set()
            return 0
        await reached("rows committed")
        for batch, _ in taken:
            batch.done()
        return len(entries)

    async def _worked(self, taken: list[tuple[RecordBatch | Parts, list[E]]], entries: list[E]) -> bool:
        """Do the work of `entries`; False if partitions of `taken` left before it was finished."""
        task = asyncio.ensure_future(self._work(entries))
        for batch, _ in taken:
            batch.watch(task)
        try:
            await task
        except (asyncio.CancelledError, Revoked) as exc:
            if being_cancelled():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
                raise
            if not any(batch.revoked for batch, _ in taken):
                # As it stands, a CancelledError would end the writer in silence.
                raise RuntimeError("work was given up although its partitions are still here") from exc
            return False
        return True
