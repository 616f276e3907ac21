"""A Faust table whose values merge, written in bulk, with keys that carry their writer.

1. The value of a key is the merge of all that was ever written under it; `merge` is commutative, associative and
   idempotent, so the order of writing does not matter.
2. In the changelog a record's key is ``key + writer``: `writer` names one assignment of one partition to one process.
   Nobody else ever writes that key, so the late record of a zombie cannot displace its successor's in compaction; at
   recovery both are merged. What is held knows the writers of all records that it was merged from, and is gone only
   when each of those was deleted.
3. The first write of a key after a hand-over also deletes (tombstones) the predecessors' records, whose content is in
   the new one.
4. A value is written again even if the merge changed nothing: after a crash the local copy may be ahead of the
   changelog.
5. Changes of a partition reach the changelog in the order in which they were made.
6. The local copy's offset moves only over records that are known to be in it, one after the other; foreign records in
   between stop it, and the next recovery reads them.

Known weakness: a zombie's late record leaves a key of its own until somebody recovers the partition and then writes or
discards the key; it holds an old version and merges into nothing new.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import faust
from faust.stores.base import Store
from faust.types import TP

from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.producer import Sender
from tutormax_streams.batches.records import Revoked
from tutormax_streams.batches.shelves import MemoryShelf, RocksShelf, SharedMemory, Shelf

V = TypeVar("V")

WRITER_BYTES = 6
MOST_WRITERS = 255  # whose records are remembered; of further ones the oldest are forgotten
EPOCH_KEY = b"\x00epoch"  # in each changelog partition from its beginning: the topic is the one we began with


def held_of(writers: Sequence[bytes], payload: bytes) -> bytes:
    """What is held of a key: the number of writers whose records it was merged from, their names, the encoded value."""
    writers = writers[-MOST_WRITERS:]
    return bytes([len(writers)]) + b"".join(writers) + payload


def writers_of(held: bytes) -> list[bytes]:
    return [held[at : at + WRITER_BYTES] for at in range(1, 1 + held[0] * WRITER_BYTES, WRITER_BYTES)]


def payload_of(held: bytes) -> bytes:
    return held[1 + held[0] * WRITER_BYTES :]


class PartitionStore(Store):  # type: ignore[type-arg]
    """One shelf per partition that this worker owns; what Faust asks of a store, and no item access."""

    def __init__(self, table: MergedTable[Any]) -> None:
        super().__init__("merged://", table.app, table)
        self._new_shelf = table.new_shelf
        self.data = {}
        self.shelves: dict[int, Shelf] = {}
        self.writers: dict[int, bytes] = {}
        self.order: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.unmarked: set[int] = set()  # read from the changelog's beginning, whose mark was not met yet

    def shelf(self, partition: int) -> Shelf:
        shelf = self.shelves.get(partition)
        if shelf is None:
            raise Revoked(f"{self.table_name}-{partition} is not held by this worker")
        return shelf

    def persisted_offset(self, tp: TP) -> int | None:
        # A worker that stops during a rebalance has closed its shelves, and Faust asks all the same.
        shelf = self.shelves.get(tp.partition)
        return None if shelf is None else shelf.offset

    def set_persisted_offset(self, tp: TP, offset: int) -> None:
        self.shelf(tp.partition).advance(offset)

    async def need_active_standby_for(self, tp: TP) -> bool:
        return True

    def reset_state(self) -> None: ...

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        if list(batch):
            raise AssertionError("changelogs are read by batches.recovery")

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("the changelog is the backup")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError("use MergedTable.merge")

    def __delitem__(self, key: Any) -> None:
        raise NotImplementedError("use MergedTable.discard")

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Close what left, open what came, and write under new names from now on."""
        topic = self.table.changelog_topic.get_topic_name()
        mine = {tp.partition for tp in assigned if tp.topic == topic}
        for partition in [p for p in self.shelves if p not in mine]:
            self.shelves.pop(partition).close()
        await reached("rebalancing")
        opened = [p for p in mine if p not in self.shelves]
        shelves = await asyncio.gather(*(asyncio.to_thread(self._new_shelf, p) for p in opened))
        self.shelves.update(zip(opened, shelves, strict=True))
        self.unmarked = {p for p in mine if p in self.unmarked or (p in opened and self.shelves[p].offset is None)}
        self.writers = {p: os.urandom(WRITER_BYTES) for p in mine}

    async def on_stop(self) -> None:
        for shelf in self.shelves.values():
            shelf.close()
        self.shelves.clear()


class MergedTable(faust.Table, Generic[V]):  # type: ignore[type-arg]
    """See the module's law. Create through `declare`."""

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    merge_values: Callable[[V, V], V]
    is_sound: Callable[[bytes, V], bool]
    new_shelf: Callable[[int], Shelf]
    memory: SharedMemory
    confirmed: Sender
    is_marked: bool
    on_foreign: Callable[[int], None]
    """Told how many records that are not ours a recovery has just passed over."""

    @classmethod
    def declare(
        cls,
        app: faust.App,
        name: str,
        partitions: int,
        *,
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
        merge: Callable[[V, V], V],
        directory: Path | None,
        memory: SharedMemory,
        is_sound: Callable[[bytes, V], bool] = lambda key, value: True,
        is_marked: bool = False,
    ) -> MergedTable[V]:
        """Add a table to `app`. `directory` None keeps it in memory. `is_sound` says whether a value may lie under a
        key; what is not, or cannot be decoded, is nothing that we wrote. It may raise for such a key. `is_marked`: every
        partition of the changelog holds the epoch's mark, and one without it is not the one that we began with."""
        table = cls(app, name=name, key_type=bytes, value_type=bytes, partitions=partitions)
        table.encode, table.decode, table.merge_values = encode, decode, merge
        table.is_sound, table.on_foreign = is_sound, lambda records: None
        table.confirmed, table.memory, table.is_marked = Sender(app), memory, is_marked
        if directory is None:
            table.new_shelf = lambda partition: MemoryShelf()
        else:
            table.new_shelf = lambda partition: RocksShelf(directory / f"{name}-{partition}.db", memory)
        app.tables.add(table)
        return table

    def _new_store(self) -> PartitionStore:
        return PartitionStore(self)

    async def on_start(self) -> None:
        # Stock Faust would also create the changelog topic: ours is created and checked before the worker starts.
        await self.add_runtime_dependency(self.data)

    @property
    def held(self) -> PartitionStore:
        """What this worker holds of the table."""
        return cast(PartitionStore, self.data)

    @property
    def changelog_name(self) -> str:
        name: str = self.changelog_topic.get_topic_name()
        return name

    def owned_partitions(self) -> list[int]:
        return sorted(self.held.shelves)

    def get(self, partition: int, key: bytes) -> V | None:  # type: ignore[override]
        """The merged value of a key. Raises `Revoked` where this worker does not hold the partition."""
        (held,) = self.held.shelf(partition).get_many([key])
        return None if held is None else self.decode(payload_of(held))

    def scan(self, partition: int, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """(key, encoded value) in key order from `start` on, without the tables' own records."""
        for key, held in self.held.shelf(partition).scan(start):
            yield key, payload_of(held)

    async def merge(
        self, partition: int, incoming: Mapping[bytes, V], refuses: Callable[[V | None, V], bool] | None = None
    ) -> tuple[dict[bytes, V], list[asyncio.Future[Any]]]:
        """Merge `incoming` into what is held, locally and in the changelog.

        `refuses` is asked of what is held (None: nothing) and what the merge would make of it; where it says yes, what
        is held stays as it is, and the key is missing from the answer.

        Returns the merged values and the confirmations to wait for. Raises `Revoked` after the partition left.
        """
        async with self.held.order[partition]:
            return await self._merge(partition, incoming, refuses)

    async def _merge(
        self, partition: int, incoming: Mapping[bytes, V], refuses: Callable[[V | None, V], bool] | None
    ) -> tuple[dict[bytes, V], list[asyncio.Future[Any]]]:
        store = self.held
        shelf, writer = store.shelf(partition), store.writers[partition]
        name = held_of([writer], b"")
        merged: dict[bytes, V] = {}
        local: list[tuple[bytes, bytes | None]] = []
        records: list[tuple[bytes, bytes | None]] = []
        decode, encode, merge_values = self.decode, self.encode, self.merge_values
        for (key, news), held in zip(incoming.items(), shelf.get_many(list(incoming)), strict=True):
            known = None if held is None else decode(payload_of(held))
            value = news if known is None else merge_values(known, news)
            if refuses is not None and refuses(known, value):
                continue
            payload = encode(value)
            merged[key] = value
            local.append((key, name + payload))
            records.append((key + writer, payload))
            if held is not None and not held.startswith(name):
                records += [(key + other, None) for other in writers_of(held) if other != writer]
        shelf.write(local)
        return merged, await self._publish(partition, shelf, records)

    async def discard(
        self, partition: int, keys: list[bytes], condition: Callable[[bytes], bool]
    ) -> tuple[list[bytes], list[asyncio.Future[Any]]]:
        """Delete those of `keys` whose encoded value still meets `condition`, locally and in the changelog.

        Returns the keys deleted and the confirmations to wait for.
        """
        async with self.held.order[partition]:
            shelf = self.held.shelf(partition)
            gone = {
                key: held
                for key, held in zip(keys, shelf.get_many(keys), strict=True)
                if held is not None and condition(payload_of(held))
            }
            shelf.write([(key, None) for key in gone])
            records: list[tuple[bytes, bytes | None]] = [
                (key + writer, None) for key, held in gone.items() for writer in writers_of(held)
            ]
            return list(gone), await self._publish(partition, shelf, records)

    async def _publish(
        self, partition: int, shelf: Shelf, records: list[tuple[bytes, bytes | None]]
    ) -> list[asyncio.Future[Any]]:
        confirmations = []
        for future, count in await self.confirmed.send_run(self.changelog_name, partition, records):
            future.add_done_callback(partial(self._landed, partition, shelf, count))
            confirmations.append(future)
        await reached("changelog sent")
        return confirmations

    def _landed(self, partition: int, shelf: Shelf, count: int, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None or self.held.shelves.get(partition) is not shelf:
            return
        first: int = done.result().offset
        if first == (-1 if shelf.offset is None else shelf.offset) + 1:
            shelf.advance(first + count - 1)
