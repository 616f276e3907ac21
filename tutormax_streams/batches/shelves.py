"""Where one partition of a table lies on this machine: in RocksDB, or in memory.

A shelf remembers the changelog offset up to which it is known to agree with the changelog, in the same write as data.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import rocksdict
from sortedcontainers import SortedDict  # type: ignore[import-untyped]  # it ships no types

logger = logging.getLogger(__name__)

LAYOUT = 1
"""Raise it when what tables keep on their shelves changes its form: local copies then begin anew."""

OPENING_SECONDS = 20.0
"""RocksDB opens in milliseconds, or in some seconds on a busy disk. See `RocksShelf._watched`."""

_opening_one = threading.Lock()  # shelves are opened by several threads, and there is one timer

RESERVED = b"\x00\x00"  # begins the keys of shelves' own notes, and of no table's
_OFFSET_KEY = RESERVED + b"offset"
_MANIFEST_KEY = RESERVED + b"manifest"


class Shelf(Protocol):
    """Ordered bytes -> bytes with an offset."""

    offset: int | None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def write(self, items: Iterable[tuple[bytes, bytes | None]], offset: int | None = None) -> None:
        """Store or (None) delete; with `offset`, remember it together with the data."""

    def advance(self, offset: int) -> None:
        """Remember an offset alone."""

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs in key order from `start` on. Consume it before the next write."""

    def flush(self) -> None:
        """Let go of the memory that writes took, soon."""

    def close(self) -> None: ...


class MemoryShelf:
    """Forgets everything with the assignment; for tests and small deployments."""

    def __init__(self) -> None:
        self._data = SortedDict()
        self.offset: int | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self._data.get
        return [get(key) for key in keys]

    def write(self, items: Iterable[tuple[bytes, bytes | None]], offset: int | None = None) -> None:
        data = self._data
        for key, value in items:
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        if offset is not None:
            self.offset = offset

    def advance(self, offset: int) -> None:
        self.offset = offset

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        data = self._data
        for key in data.irange(start):
            yield key, data[key]

    def flush(self) -> None: ...

    def close(self) -> None:
        self._data.clear()


class SharedMemory:
    """One block cache and one write-buffer budget for all shelves of a process.

    Both are larger while tables are recovered. RocksDB flushes whichever shelf is written when the budget of all is
    used up: with the small one after almost every write, and merging so many small files cost a third of a recovery.
    """

    def __init__(
        self, cache_bytes: int = 4 << 20, write_buffer_bytes: int = 4 << 20, recovery_bytes: int = 32 << 20
    ) -> None:
        self._cache_bytes, self._write_buffer_bytes, self._recovery_bytes = (
            cache_bytes, write_buffer_bytes, recovery_bytes,
        )  # fmt: skip
        self.cache = rocksdict.Cache(cache_bytes)
        self.write_buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            write_buffer_bytes, False, self.cache
        )

    def widen(self) -> None:
        """Spend the memory that a recovery is worth."""
        self._grant(self._recovery_bytes)

    def narrow(self) -> None:
        """Spend no more than the rest of the time needs. What shelves hold beyond that stays until they are flushed."""
        self._grant(0)

    def _grant(self, more: int) -> None:
        self.cache.set_capacity(self._cache_bytes + more)  # write buffers count as a part of it
        self.write_buffers.set_buffer_size(self._write_buffer_bytes + more)

    @property
    def is_overdrawn(self) -> bool:
        """Whether shelves hold more in write buffers than they may."""
        return self.write_buffers.get_usage() > self.write_buffers.get_buffer_size()

    def options(self) -> rocksdict.Options:
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self.cache)
        table.set_bloom_filter(10, False)
        table.set_cache_index_and_filter_blocks(True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_manager(self.write_buffers)
        options.set_write_buffer_size(4 << 20)
        # Each shelf takes at least one block. With RocksDB's own choice (512 KiB) those of many empty shelves would
        # exceed the budget together, and every little write would be flushed to a file of its own.
        options.set_arena_block_size(16 << 10)
        options.set_max_write_buffer_number(2)
        options.set_max_background_jobs(2)
        options.set_max_open_files(64)
        options.set_keep_log_file_num(1)
        # Many small databases: what each keeps for itself counts. Two files are always open for writing, and RocksDB
        # would begin with 64 KiB for each: 9 MiB for the tables of 24 partitions.
        options.set_writable_file_max_buffer_size(8 << 10)
        options.set_table_cache_num_shard_bits(1)
        options.set_stats_dump_period_sec(0)
        options.set_stats_persist_period_sec(0)
        return options


class UnreadableShelf(RuntimeError):
    """What lies on this machine is damaged. The worker stops; its next start takes everything from the changelog."""


class DirectoryInUse(RuntimeError):
    """Two workers were given one directory. It is the other's, which was there first."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is in use by another worker: give every worker its own TUTORMAX_DATA_DIR")


class _Manifest(NamedTuple):
    """RocksDB's list of its files. It only grows while a database is open, and each opening begins another."""

    name: str
    size: int

    @classmethod
    def of(cls, database: Path) -> _Manifest:
        """As it lies on disk. Raises `OSError`."""
        name = (database / "CURRENT").read_text().strip()
        return cls(name, os.stat(database / name).st_size)


class RocksShelf:
    """A RocksDB of its own. What cannot be read is thrown away when opened next: the changelog is the durable copy.

    RocksDB takes a list of files that was cut short for an older one, and then puts the newest writes, our offset with
    them, on top of what that one knows: a hole. So every write remembers how long the list was.
    """

    def __init__(self, path: Path, memory: SharedMemory) -> None:
        self.path = path
        self._damaged = path.with_name(f"{path.name}.damaged")
        self._opening = path.with_name(f"{path.name}.opening")
        self.offset: int | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        if (is_damaged := self._damaged.exists()) or self._opening.exists():
            if self._is_held():
                raise DirectoryInUse(path)
            self._begin_anew(
                "it was found damaged" if is_damaged else "the process that opened it last came to its end over that"
            )
        try:
            with self._watched():
                self._open(memory)
        except Exception as exc:  # rocksdict raises plain Exception for damage and for a held lock alike
            if "/LOCK:" in str(exc):
                raise DirectoryInUse(path) from exc
            self._begin_anew(str(exc))
            self._open(memory)

    def _is_held(self) -> bool:
        """Whether another process has it open, or is opening it: RocksDB locks this file before anything else."""
        try:
            with open(self.path / "LOCK", "rb+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """End the process, with its stacks, if this takes too long; the next start then begins anew.

        RocksDB reads certain damaged lists of files for ever (one byte is enough, see the tests), and rocksdict
        keeps the interpreter's lock meanwhile: no thread of Python's could notice. This timer is a thread in C.
        """
        with _opening_one:
            self._opening.touch()
            faulthandler.dump_traceback_later(OPENING_SECONDS, exit=True, file=sys.__stderr__ or 2)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._opening.unlink(missing_ok=True)

    def _open(self, memory: SharedMemory) -> None:
        before = None
        with contextlib.suppress(OSError, ValueError):  # there is none yet, or RocksDB will say what is wrong
            before = _Manifest.of(self.path)
        options = memory.options()
        # An existing database would take its column family's options from its own file: a block cache of 8 MiB for
        # each of many shelves, and no Bloom filters.
        self._db = rocksdict.Rdict(str(self.path), options, column_families={"default": options})
        try:
            self._check_manifest(before, self._db.get(_MANIFEST_KEY))
            stored = self._db.get(_OFFSET_KEY)
            self.offset = int(stored) if stored is not None else None
            self._manifest_name = _Manifest.of(self.path).name
        except Exception:
            self._db.close()
            raise
        self._manifest_path = str(self.path / self._manifest_name)
        self._noted_size = -1

    def _check_manifest(self, before: _Manifest | None, stored: bytes | None) -> None:
        """Raises `ValueError` if the list of files is shorter than one of the writes knew it."""
        if before is None or stored is None:
            return
        name, _, size = stored.decode().partition(" ")
        if name == before.name and before.size < int(size):
            raise ValueError(f"{name} was cut short from {size} to {before.size} bytes")

    def _begin_anew(self, reason: str) -> None:
        logger.warning("%s is started anew from its changelog: %s", self.path, reason)
        shutil.rmtree(self.path, ignore_errors=True)
        for mark in (self._damaged, self._opening):
            mark.unlink(missing_ok=True)

    def _note_damage(self, exc: Exception) -> None:
        """If it is damage: remember it, or every start would stumble over it again, and raise `UnreadableShelf`."""
        if "Corruption" in str(exc):
            self._damaged.touch()
            raise UnreadableShelf(f"{self.path}: {exc}; the next start takes it from the changelog") from exc

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            return cast(list[bytes | None], self._db.get(list(keys)))
        except Exception as exc:
            self._note_damage(exc)
            raise

    def write(self, items: Iterable[tuple[bytes, bytes | None]], offset: int | None = None) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in items:
            if value is None:
                delete(key)
            else:
                put(key, value)
        if offset is not None:
            put(_OFFSET_KEY, b"%d" % offset)
        size = os.stat(self._manifest_path).st_size
        if size != self._noted_size:
            put(_MANIFEST_KEY, f"{self._manifest_name} {size}".encode())
            self._noted_size = size
        try:
            self._db.write(batch)
        except Exception as exc:
            self._note_damage(exc)
            raise
        if offset is not None:
            self.offset = offset

    def advance(self, offset: int) -> None:
        self.write((), offset)

    def scan(self, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        last = start
        pairs = cast(Iterator[tuple[bytes, bytes]], self._db.items(from_key=start))
        for key, value in pairs:
            last = key
            if not key.startswith(RESERVED):
                yield key, value
        # The iteration ends at damage as it does at the end: only a cursor tells the two apart.
        cursor = self._db.iter()
        cursor.seek(last)
        if cursor.valid():
            cursor.next()
        try:
            cursor.status()
        except Exception as exc:
            self._note_damage(exc)
            raise

    def flush(self) -> None:
        try:
            self._db.flush(wait=False)
        except Exception as exc:
            self._note_damage(exc)
            raise

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._db.close()
