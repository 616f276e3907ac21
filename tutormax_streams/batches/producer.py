"""Sending whose outcome is known: every method answers with futures that resolve when the broker has confirmed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Producer as FaustProducer

logger = logging.getLogger(__name__)

STOP_SECONDS = 5.0
Headers = Sequence[tuple[str, bytes | None]]


class ConfirmingProducer(FaustProducer):
    """Faust's producer with acks from all replicas and, where the broker can, idempotence."""

    idempotent = True
    _end: float | None = None  # by the loop's clock, once the app ends

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self.idempotent}

    async def flush(self) -> None:
        """Wait until all is confirmed; while the app ends, `STOP_SECONDS` at most, however often it is asked.

        An idempotent producer never gives a record up while Kafka is away. None of what waits belongs to anything that
        was said to be done: it comes again, and nobody need wait for it.
        """
        if self.app.should_stop:
            await self._within_the_end(super().flush())
        else:
            await super().flush()

    async def on_stop(self) -> None:
        await self._within_the_end(super().on_stop())

    async def _within_the_end(self, step: Coroutine[Any, Any, None]) -> None:
        if self._end is None:
            self._end = asyncio.get_running_loop().time() + STOP_SECONDS
        try:
            async with asyncio.timeout_at(self._end):
                await step
        except TimeoutError:
            logger.warning("what was sent last is not confirmed: what it belongs to comes again")


class Sender:
    """What agents send through. Bound to an app whose transport is `BatchTransport`."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    @property
    def _producer(self) -> Any:
        return self._app.producer._ensure_producer()  # type: ignore[attr-defined]

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Any]:
        """One record; the client gathers neighbours into a request. The future holds the record's metadata."""
        future: asyncio.Future[Any] = await self._producer.send(
            topic, value, key=key, partition=partition, headers=list(headers), timestamp_ms=timestamp_ms
        )
        return future

    async def send_run(
        self, topic: str, partition: int, items: Iterable[tuple[bytes, bytes | None]]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Many small records of one partition as few producer batches: [(future, records in it)].

        A record larger than the producer's batch size goes alone; the broker's own limit makes its future fail.
        """
        producer = self._producer
        sent: list[tuple[asyncio.Future[Any], int]] = []
        rest = iter(items)
        item = next(rest, None)
        while item is not None:
            batch = producer.create_batch()
            while item is not None and batch.append(timestamp=None, key=item[0], value=item[1]) is not None:
                item = next(rest, None)
            count = batch.record_count()
            assert count, "a new batch takes one record of any size"
            sent.append((await producer.send_batch(batch, topic, partition=partition), count))
        return sent
