"""Sending whose outcome is known: every method answers with futures that resolve when the broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import faust
from faust.transport.drivers.aiokafka import Producer as FaustProducer

Headers = Sequence[tuple[str, bytes | None]]


class ConfirmingProducer(FaustProducer):
    """Faust's producer with acks from all replicas and, where the broker can, idempotence."""

    idempotent = True

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self.idempotent}


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
