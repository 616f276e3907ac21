"""Sessions at a steady rate from a process of its own: one event loop that also begins hundreds of requests a second sends
nothing for half a minute where the machine is busy."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from benchmarks.freshness import session_payload
from tutormax_streams import kafka
from tutormax_streams.settings import Settings
from tutormax_streams.topics import Topics


@contextmanager
def intake(settings: Settings, tutors: int, first: int, per_second: float) -> Iterator[Callable[[], int]]:
    """Sends each tutor's sessions from number `first` on, spread evenly over the partitions, while it is entered.

    Yields a function that answers how many were sent so far; RuntimeError if the process has ended.
    """
    context = multiprocessing.get_context("spawn")
    sent: Any = context.Value("q", 0)
    process = context.Process(target=_run, args=(settings, tutors, first, per_second, sent), daemon=True)
    process.start()

    def count() -> int:
        if not process.is_alive():
            raise RuntimeError(f"what sends the events has ended with {process.exitcode}")
        return int(sent.value)

    try:
        yield count
    finally:
        process.terminate()
        process.join()


def _run(settings: Settings, tutors: int, first: int, per_second: float, sent: Any) -> None:
    asyncio.run(_send(settings, tutors, first, per_second, sent))


async def _send(settings: Settings, tutors: int, first: int, per_second: float, sent: Any) -> None:
    topic = Topics.of(settings).raw("sessions")
    async with kafka.producer(settings) as producer:
        began, event = time.monotonic(), 0
        while True:
            value = session_payload(event % tutors, first + event // tutors, datetime.now(UTC))
            await producer.send(topic, value, partition=event % settings.kafka_partitions)
            event += 1
            sent.value = event
            await asyncio.sleep(max(0.0, began + event / per_second - time.monotonic()))
