"""A batch of raw records of one partition, and the promise that it is committed only when said to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import faust
from faust.types import TP

T = TypeVar("T")


class Record(Protocol):
    """What we read of an `aiokafka.ConsumerRecord`."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # milliseconds
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Revoked(Exception):
    """The partition was taken away while its batch was being worked on: drop the work, the next owner does it again."""


def being_cancelled() -> bool:
    """Whether a `CancelledError` is meant for the running task, and not only for what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class RecordBatch:
    """Raw records of one partition with offsets from `first` to `last`, holes allowed.

    The offset behind `last` is committed after `done()` was called on this batch and on all before it. Faust's own
    acknowledgements are ignored, so an exception in an agent can never commit what it did not finish.
    """

    __slots__ = ("_revoked", "_tasks", "first", "is_done", "is_taken", "last", "oldest_ms", "records", "tp")

    def __init__(self, tp: TP, records: Sequence[Record]) -> None:
        self.tp = tp
        self.records = records
        self.first = records[0].offset
        self.last = records[-1].offset
        self.oldest_ms = records[0].timestamp  # Kafka time; whoever has read the records may let go of them
        self.is_taken = False  # an agent has begun with it
        self.is_done = False
        self._revoked = False
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def partition(self) -> int:
        return self.tp.partition

    @property
    def revoked(self) -> bool:
        return self._revoked

    def done(self) -> None:
        """Everything that follows from this batch is durable."""
        self.is_done = True

    def revoke(self) -> None:
        """The partition is leaving this worker: cancel what is still under way."""
        self._revoked = True
        for task in self._tasks:
            task.cancel()

    async def while_owned(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, cancelling it when the partition is revoked. Raises `Revoked` then."""
        if self._revoked:
            work.close()
            raise Revoked(str(self.tp))
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if not task.done():
                task.cancel()
            if self._revoked and not being_cancelled():
                raise Revoked(str(self.tp)) from None
            raise
        finally:
            self._tasks.discard(task)

    def watch(self, task: asyncio.Future[Any]) -> None:
        """Cancel `task` when the partition is revoked."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def done_when(self, confirmations: Iterable[Awaitable[Any]], on_failure: Any) -> None:
        """Call `done()` once every confirmation has arrived; hand the first failure to `on_failure` instead."""
        pending = list(confirmations)
        if not pending:
            self.done()
            return

        def settled(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                return
            failure = future.exception()
            if failure is None:
                self.done()
            elif not self._revoked:
                cancelled = isinstance(failure, asyncio.CancelledError)
                on_failure(RuntimeError("a confirmation was cancelled before it came") if cancelled else failure)

        asyncio.gather(*pending).add_done_callback(settled)


class RawBatch(faust.Schema):  # type: ignore[type-arg]
    """Hands the `RecordBatch` to the agent as it is, without decoding anything."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        create_event = app.create_event

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return create_event(message.key, message.value, message.headers, message)

        return decode
