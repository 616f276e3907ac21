"""The loop around an agent's step: an exception leaves it only to stop the worker, and acknowledges nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import faust

from tutormax_streams.batches.records import RawBatch, RecordBatch, Revoked, being_cancelled

Step = Callable[[RecordBatch], Awaitable[Iterable[Awaitable[Any]] | None]]


_crashing: set[asyncio.Future[Any]] = set()  # the loop holds tasks weakly


def crash_soon(app: faust.App, failure: BaseException) -> None:
    """Stop the worker from a callback."""
    task = asyncio.ensure_future(app.crash(failure))
    _crashing.add(task)
    task.add_done_callback(_crashing.discard)


def drive(app: faust.App, topic: str, step: Step, name: str) -> None:
    """Declare a Faust agent that runs `step` on every batch of `topic`, one batch at a time.

    The step answers with confirmations; when all have arrived the batch is done. If it answers None, the step has
    kept the batch and calls `done()` itself. Any exception stops the worker with the batch not done, except `Revoked`
    when the partition has left: then the next owner does the work again.
    """
    channel = app.topic(topic, schema=RawBatch())

    async def agent(stream: Any) -> None:
        batches: AsyncIterator[RecordBatch] = stream
        async for batch in batches:
            if batch.revoked:
                continue
            batch.is_taken = True
            try:
                confirmations = await step(batch)
            except (Exception, asyncio.CancelledError) as exc:
                failure: BaseException = exc
                if isinstance(exc, Revoked) and batch.revoked:
                    continue
                if isinstance(exc, asyncio.CancelledError):
                    if being_cancelled():
                        raise
                    # Faust would go on with the next batch, and this one hold up the partition's commits for ever.
                    failure = RuntimeError(f"{name}: what it waited for was cancelled")
                await app.crash(failure)
                await asyncio.sleep(3600)  # the worker is stopping; the loop must not take another batch
            else:
                if confirmations is not None:
                    batch.done_when(confirmations, lambda failure: crash_soon(app, failure))

    agent.__name__ = agent.__qualname__ = name
    app.agent(channel, name=name)(agent)
