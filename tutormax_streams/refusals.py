"""The writing side of the dead-letter topic: original bytes, and in headers why and whence.

1. A letter's identity is its source position (headers topic, partition, offset): a replay writes the same letter again.
2. What does not fit into a letter (a broker's limit is for compressed batches) is cut: the letter keeps the beginning
   of its value, with the size and SHA-256 of all of it, and no key or headers of the record that are as large.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatchBuilder

from models.events import Origin
from tutormax_streams.batches import Sender, reached
from tutormax_streams.kafka import LogReader
from tutormax_streams.topics import LARGEST_BYTES, RAW, Topics

KEPT_BYTES: Final = 64 << 10  # of what is cut
_MARGIN_BYTES: Final = 1 << 10  # for what the producer wraps around a record

Headers = Sequence[tuple[str, bytes | None]]  # a header of theirs may have no value


class DeadLetterBox:
    """Implements `agents.ports.DeadLetters`."""

    def __init__(self, topics: Topics, sender: Sender, reader: LogReader) -> None:
        self._topics = topics
        self._sender = sender
        self._reader = reader

    async def refuse_record(self, record: Any, topic: str, reason: str, detail: str) -> asyncio.Future[Any]:
        ours = _headers(topic, record.partition, record.offset, record.timestamp, reason, detail, "original")
        theirs = [(f"source-{name}", value) for name, value in record.headers or ()]
        sent = await self._send(record.key, record.value, ours, theirs)
        await reached("letter sent")
        return sent

    async def refuse_event(self, origin: Origin, stand_in: bytes, reason: str, detail: str) -> asyncio.Future[Any]:
        record = None
        if origin.topic in RAW:
            record = await self._reader.at(self._topics.raw(origin.topic), origin.partition, origin.offset)
        if record is not None:
            return await self.refuse_record(record, origin.topic, reason, detail)
        ours = _headers(origin.topic, origin.partition, origin.offset, origin.time_ms, reason, detail, "normalised")
        return await self._send(None, stand_in, ours, ())

    async def _send(
        self, key: bytes | None, value: bytes | None, ours: dict[str, str], theirs: Headers
    ) -> asyncio.Future[Any]:
        if _size(key, value, [*_encoded(ours), *theirs]) > LARGEST_BYTES - _MARGIN_BYTES:
            whole = value or b""
            ours |= {
                "content": "cut",
                "content-bytes": str(len(whole)),
                "content-sha256": hashlib.sha256(whole).hexdigest(),
            }
            value = whole[:KEPT_BYTES]
            key = None if key is not None and len(key) > KEPT_BYTES else key
            theirs = () if _size(None, None, theirs) > KEPT_BYTES else theirs
        headers = [*_encoded(ours), *theirs]
        return await self._sender.send(self._topics.dead_letter, value, key=key, headers=headers)


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Of a record, as the producer measures it before it sends it."""
    size: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, list(headers))
    return size


def _encoded(headers: dict[str, str]) -> list[tuple[str, bytes | None]]:
    return [(name, value.encode()) for name, value in headers.items()]


def _headers(
    topic: str, partition: int, offset: int, time_ms: int, reason: str, detail: str, content: str
) -> dict[str, str]:
    return {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "time-ms": str(time_ms),
        "reason": reason,
        "detail": detail,
        "content": content,  # original bytes, or our normalised form where the original had left the log, or cut
        "refused-at-ms": str(time.time_ns() // 1_000_000),
    }
