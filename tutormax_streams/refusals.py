"""The writing side of the dead-letter topic: original bytes, and in headers why and whence.

A letter's identity is its source position (headers topic, partition, offset): a replay writes the same letter again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from models.events import Origin
from tutormax_streams.batches import Sender, reached
from tutormax_streams.kafka import LogReader
from tutormax_streams.topics import RAW, Topics


class DeadLetterBox:
    """Implements `agents.ports.DeadLetters`."""

    def __init__(self, topics: Topics, sender: Sender, reader: LogReader) -> None:
        self._topics = topics
        self._sender = sender
        self._reader = reader

    async def refuse_record(self, record: Any, topic: str, reason: str, detail: str) -> asyncio.Future[Any]:
        headers = _headers(topic, record.partition, record.offset, record.timestamp, reason, detail, "original")
        headers += [(f"source-{name}", value) for name, value in record.headers or ()]
        sent = await self._sender.send(self._topics.dead_letter, record.value, key=record.key, headers=headers)
        await reached("letter sent")
        return sent

    async def refuse_event(self, origin: Origin, stand_in: bytes, reason: str, detail: str) -> asyncio.Future[Any]:
        record = None
        if origin.topic in RAW:
            record = await self._reader.at(self._topics.raw(origin.topic), origin.partition, origin.offset)
        if record is not None:
            return await self.refuse_record(record, origin.topic, reason, detail)
        headers = _headers(origin.topic, origin.partition, origin.offset, origin.time_ms, reason, detail, "normalised")
        return await self._sender.send(self._topics.dead_letter, stand_in, headers=headers)


def _headers(
    topic: str, partition: int, offset: int, time_ms: int, reason: str, detail: str, content: str
) -> list[tuple[str, bytes]]:
    fields = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "time-ms": str(time_ms),
        "reason": reason,
        "detail": detail,
        "content": content,  # original bytes, or our normalised form where the original had left the log
        "refused-at-ms": str(time.time_ns() // 1_000_000),
    }
    return [(name, value.encode()) for name, value in fields.items()]
