"""A header's name may be no UTF-8: the record is read all the same, and the name's odd bytes are shown as escapes.

Brokers store such records and clients that do not look at names pass them on; in aiokafka they raise, whatever stands
beside them, each time that they are fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy

logger = logging.getLogger(__name__)


class _Bytes(bytearray):
    """Whose every slice can be decoded."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Bytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc] # aiokafka has no types
    """aiokafka's slower reader, which is written in Python."""

    _buffer: Any

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Bytes(self._buffer)


class _Fetched(MemoryRecords):  # type: ignore[misc]
    """What one answer holds of a partition; remembers the bytes, to read them again."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _FetchedAgain(_MemoryRecordsPy):  # type: ignore[misc]
    def next_batch(self) -> Any:
        found = self._next_slice
        batch = super().next_batch()
        return _Batch(found) if batch is not None and batch.magic >= 2 else batch


class PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Steps over what it gave out already: aiokafka itself does so in the first batch of an answer only."""

    _records: Any
    _aborted_transactions: Any
    _aborted_producers: set[int]
    _told: ClassVar[set[Any]] = set()  # partitions; a producer that does so always does so always

    def _unpack_records(self) -> Iterator[Any]:
        aborted = list(self._aborted_transactions)
        try:
            yield from super()._unpack_records()
        except UnicodeDecodeError:
            if self._tp not in self._told:
                self._told.add(self._tp)
                logger.warning(
                    "a header's name is no UTF-8 in %s/%s, at offset %s or soon after: it is read with escapes in the "
                    "name, and so are others in this partition from now on",
                    self._tp.topic,
                    self._tp.partition,
                    self.next_fetch_offset,
                )
            self._records = _FetchedAgain(self._records.data)
            self._aborted_transactions, self._aborted_producers = aborted, set()
            first = self.next_fetch_offset  # goes back to the end of each batch that is read again
            yield from (record for record in super()._unpack_records() if record.offset >= first)


def read_any_header_name() -> None:
    """Every consumer of aiokafka's reads so from now on."""
    fetcher.MemoryRecords = _Fetched
    fetcher.PartitionRecords = PartitionRecords
