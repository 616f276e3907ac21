"""Stand-ins for what the batches meet in production: records, a producer, tables that need no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import faust
from faust.types import TP

from tutormax_streams.batches import MergedTable, RecordBatch
from tutormax_streams.batches.shelves import MemoryShelf, Shelf
from tutormax_streams.batches.shelves import SharedMemory as Memory


@dataclass
class Record:
    """As much of an `aiokafka.ConsumerRecord` as is read."""

    offset: int
    key: bytes | None = None
    value: bytes | None = b""
    topic: str = "topic"
    partition: int = 0
    timestamp: int = 1_700_000_000_000
    headers: Sequence[tuple[str, bytes | None]] = ()


def batch_of(*offsets: int, partition: int = 0) -> RecordBatch:
    return RecordBatch(TP("topic", partition), [Record(offset) for offset in offsets])


class Landed(NamedTuple):
    """As much of `aiokafka.structs.RecordMetadata` as is read."""

    offset: int


Item = tuple[bytes, bytes | None]


@dataclass
class Sent:
    """One producer batch on its way."""

    topic: str
    partition: int
    items: list[Item]
    future: asyncio.Future[Landed]


@dataclass
class FakeSender:
    """Keeps what is sent, `most` records a producer batch, until the test lets it land."""

    most: int = 1_000
    sent: list[Sent] = field(default_factory=list)
    turns: int = 0  # how often the loop gets a turn before a batch is taken, as when the producer's buffer is full

    async def send_run(
        self, topic: str, partition: int, items: Iterable[Item]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        found: list[tuple[asyncio.Future[Any], int]] = []
        left = list(items)
        while left:
            part, left = left[: self.most], left[self.most :]
            for _ in range(self.turns):
                await asyncio.sleep(0)
            future: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()
            self.sent.append(Sent(topic, partition, part, future))
            found.append((future, len(part)))
        return found

    @property
    def items(self) -> list[Item]:
        return [item for sent in self.sent for item in sent.items]

    def land(self, log: list[Record | None], batches: int | None = None) -> None:
        """Append the oldest `batches` (all) to a changelog, as the broker does, and confirm them."""
        for sent in self.sent[:batches]:
            sent.future.set_result(Landed(len(log)))
            for key, value in sent.items:
                log.append(Record(len(log), key, value))
        del self.sent[:batches]


def encode(value: frozenset[int]) -> bytes:
    return b",".join(b"%d" % number for number in sorted(value))


def decode(payload: bytes) -> frozenset[int]:
    return frozenset(int(number) for number in payload.split(b",") if number)


def union(left: frozenset[int], right: frozenset[int]) -> frozenset[int]:
    return left | right


@cache
def the_app() -> faust.App:
    return faust.App("batches", broker="kafka://127.0.0.1:1", store="memory://", autodiscover=False, web_enabled=False)


@cache
def the_memory() -> Memory:
    return Memory(cache_bytes=1 << 20, write_buffer_bytes=1 << 20)


Numbers = MergedTable[frozenset[int]]
_names = iter(f"numbers{n}" for n in range(10_000))


def numbers_table(sender: FakeSender | None = None) -> Numbers:
    """A table of sets of numbers that holds no partition yet."""
    table: Numbers = MergedTable.declare(
        the_app(), next(_names), 4, encode=encode, decode=decode, merge=union, directory=None, memory=the_memory()
    )
    table.confirmed = sender or FakeSender()  # type: ignore[assignment]
    return table


def assign(table: Numbers, partition: int = 0, writer: bytes = b"writer", shelf: Shelf | None = None) -> None:
    """What a rebalance does: `partition` is held, under a new writer's name."""
    table.held.shelves[partition] = MemoryShelf() if shelf is None else shelf
    table.held.writers[partition] = writer
