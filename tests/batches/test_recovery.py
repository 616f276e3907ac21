"""Whatever a hand-over, a zombie, a crash and compaction make of a changelog, recovery brings back what was confirmed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.tables.recovery import RebalanceAgain, ServiceStopped
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches.fakes import FakeSender, Numbers, Record, assign, decode, numbers_table
from tutormax_streams.batches.recovery import (
    ChangelogMadeAnew,
    ImpatientRecovery,
    apply_changelog,
    check_mark,
    merge_records,
    settle,
)
from tutormax_streams.batches.shelves import MemoryShelf, RocksShelf, SharedMemory
from tutormax_streams.batches.table import EPOCH_KEY, MOST_WRITERS, WRITER_BYTES, writers_of

KEYS = (b"k", b"l")
PROCESSES = 3


# -- single steps -----------------------------------------------------------------------------------------------------


def recovered(*records: tuple[bytes, bytes | None]) -> Numbers:
    table = numbers_table()
    assign(table)
    merge_records(table, 0, [Record(offset, key, value) for offset, (key, value) in enumerate(records)])
    return table


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param([("k", "a", b"1"), ("k", "a", b"1,2")], {1, 2}, id="a writer's last record counts"),
        pytest.param([("k", "a", b"1"), ("k", "b", b"2")], {1, 2}, id="two writers are merged"),
        pytest.param([("k", "a", b"1"), ("k", "b", b"1,2"), ("k", "a", None)], {1, 2}, id="hand-over"),
        pytest.param([("k", "a", b"1"), ("k", "a", None)], None, id="discarded"),
        pytest.param([("k", "b", b"2"), ("k", "a", b"1"), ("k", "a", b"1,9")], {1, 2, 9}, id="zombie, twice"),
        pytest.param([("k", "b", b"1,2"), ("k", "a", b"1"), ("k", "a", None)], {1, 2}, id="older record deleted later"),
        # The zombie knows more than its successor wrote first; deleting its record must not take the successor's along.
        pytest.param([("k", "a", b"1,2"), ("k", "b", b"1"), ("k", "a", None)], {1, 2}, id="successor knows less"),
        pytest.param([("k", "b", b"1,2"), ("k", "a", b"1,9"), ("k", "a", None)], {1, 2, 9}, id="zombie in between"),
        pytest.param([("k", "a", b"1"), ("k", "b", b"1"), ("k", "b", None)], {1}, id="equal contents, one deleted"),
        pytest.param([("k", "a", b"1"), ("k", "b", b"2"), ("k", "a", None), ("k", "b", None)], None, id="all deleted"),
        pytest.param([("k", "x", None)], None, id="tombstone of nothing"),
    ],
)
def test_recovering(records: list[tuple[str, str, bytes | None]], expected: set[int] | None):
    table = recovered(*((f"{key}wrtr-{writer}".encode(), payload) for key, writer, payload in records))
    found = table.get(0, b"k")
    assert found == (None if expected is None else frozenset(expected))


def test_the_epochs_record_is_no_entry_and_moves_the_offset():
    table = recovered((EPOCH_KEY + bytes(WRITER_BYTES), b"1"))
    assert list(table.scan(0, b"")) == []
    assert table.held.shelf(0).offset == 0


async def rebalanced(table: Numbers, *partitions: int) -> None:
    mine = {TP(table.changelog_name, partition) for partition in partitions}
    await table.held.on_rebalance(mine, set(), mine)


def marked_table(*, is_marked: bool = True) -> Numbers:
    table = numbers_table()
    table.is_marked = is_marked
    return table


MARK = Record(1, EPOCH_KEY + bytes(WRITER_BYTES), b"1")


async def test_a_changelog_without_its_mark_is_another_one():
    table = marked_table()
    await rebalanced(table, 0, 1)
    merge_records(table, 0, [Record(0, b"kwriter", b"1"), MARK])  # anywhere: compaction moves it
    merge_records(table, 1, [Record(0, b"kwriter", b"1")])
    with pytest.raises(ChangelogMadeAnew, match="partition 1"):
        check_mark(table)
    merge_records(table, 1, [MARK])
    check_mark(table)


async def test_a_mark_is_asked_for_only_where_the_changelog_is_read_from_its_beginning():
    table = marked_table()
    await rebalanced(table, 0)
    merge_records(table, 0, [MARK])
    await rebalanced(table, 0, 1)  # 0 stays, and is not read again
    with pytest.raises(ChangelogMadeAnew, match="partition 1"):
        check_mark(table)
    await rebalanced(table, 0)
    check_mark(table)
    warm = MemoryShelf()
    warm.write([(b"k", b"v")], offset=7)
    table.held._new_shelf = lambda partition: warm
    await rebalanced(table, 0, 2)
    check_mark(table)


@pytest.mark.parametrize(
    ("cut_short_by", "raised"),
    [("a rebalance", RebalanceAgain), ("one that only began", RebalanceAgain), ("the order to stop", ServiceStopped)],
)
async def test_a_recovery_that_was_cut_short_accuses_no_changelog(cut_short_by: str, raised: type[Exception]):
    """Faust takes it for complete: workers ended with the advice to rebuild when others came in these seconds."""
    table: Any = marked_table()
    await rebalanced(table, 0)
    tables: Any = {table.name: table}
    recovery = ImpatientRecovery(table.app, tables)
    with pytest.raises(ChangelogMadeAnew):
        await recovery._wait(recovery.on_recovery_completed(table.app.consumer_generation_id))
    generation = table.app.consumer_generation_id
    match cut_short_by:
        case "a rebalance":
            recovery.signal_recovery_start.set()
        case "one that only began":  # the shelves of its partitions are open, and Faust has not told recovery yet
            generation -= 1
        case _:
            recovery._stopped.set()
    with pytest.raises(raised):
        await recovery._wait(recovery.on_recovery_completed(generation))


async def test_a_worker_that_ended_over_a_missing_mark_ends_over_it_again_when_it_is_started_anew(tmp_path: Path):
    """Its shelf lies on disk, and a supervisor starts it: what was read without the mark must not pass for state."""
    memory = SharedMemory()
    for is_there, offset in ((False, None), (True, 2)):
        table = marked_table()
        table.held._new_shelf = lambda partition: RocksShelf(tmp_path / f"{partition}.db", memory)
        await rebalanced(table, 0)
        merge_records(table, 0, [Record(0, b"kwriter", b"1")])
        with pytest.raises(ChangelogMadeAnew):
            check_mark(table)
        if is_there:
            merge_records(table, 0, [MARK, Record(2, b"lwriter", b"2")])
            check_mark(table)
        assert table.held.shelf(0).offset == offset
        await table.held.on_stop()


async def test_a_table_without_marks_asks_for_none():
    table = marked_table(is_marked=False)
    await rebalanced(table, 0)
    merge_records(table, 0, [Record(0, b"kwriter", b"1")])
    check_mark(table)
    assert table.held.shelf(0).offset == 0


def test_data_and_offset_are_one_write():
    table = recovered((b"kwriter", b"1"), (b"lwriter", b"2"))
    assert table.held.shelf(0).offset == 1


def test_the_names_of_writers_are_bounded():
    records = [(b"kw%05d" % number, b"%d" % number) for number in range(MOST_WRITERS + 5)]
    table = recovered(*records)
    assert table.get(0, b"k") == frozenset(range(MOST_WRITERS + 5))
    (held,) = table.held.shelf(0).get_many([b"k"])
    assert held is not None
    assert writers_of(held) == [b"w%05d" % number for number in range(5, MOST_WRITERS + 5)]


async def test_memory_is_granted_for_a_recovery_and_given_back(tmp_path: Path):
    mib = 1 << 20
    memory = SharedMemory(mib, mib, recovery_bytes=8 * mib)
    table = numbers_table()
    table.memory = memory
    assign(table, shelf=RocksShelf(tmp_path / "a.db", memory))
    tp = TP(table.changelog_name, 0)
    recovery = SimpleNamespace(
        in_recovery=True, active_tps={tp}, active_offsets={tp: None}, tp_to_table={tp: table}, need_recovery=bool
    )
    recovery.signal_recovery_end = asyncio.Event()
    app: Any = SimpleNamespace(tables=SimpleNamespace(recovery=recovery))
    for start in range(0, 30_000, 2_000):
        await apply_changelog(app, tp, [Record(n, b"%050dwriter" % n, b"1") for n in range(start, start + 2_000)])
    assert memory.write_buffers.get_usage() > 2 * mib, "nothing was flushed"
    settle(table)
    assert memory.write_buffers.get_buffer_size() == mib
    async with asyncio.timeout(20):
        while memory.is_overdrawn or memory.cache.get_usage() > mib:  # noqa: ASYNC110 - RocksDB does not tell
            await asyncio.sleep(0.02)
    assert len(list(table.scan(0, b""))) == 30_000
    table.held.shelf(0).close()
    again = RocksShelf(tmp_path / "a.db", memory)
    assert again.offset == 29_999
    assert again._db.property_value("rocksdb.block-cache-capacity") == str(mib)
    again.close()


def test_what_fits_is_not_flushed_after_a_recovery(tmp_path: Path):
    table = numbers_table()
    table.memory = SharedMemory()
    shelf = RocksShelf(tmp_path / "a.db", table.memory)
    assign(table, shelf=shelf)
    merge_records(table, 0, [Record(0, b"kwriter", b"1")])
    settle(table)
    assert shelf._db.property_value("rocksdb.num-entries-active-mem-table") != "0"
    shelf.close()


# -- every history ----------------------------------------------------------------------------------------------------


@dataclass
class Process:
    """A worker: its copy of the table outlives its assignments, as a directory does."""

    table: Numbers
    sender: FakeSender = field(default_factory=FakeSender)
    writer: bytes = b""


@cache
def tables() -> list[Numbers]:
    return [numbers_table() for _ in range(PROCESSES + 1)]


class World:
    """One partition's changelog and the workers that hold it one after the other, or believe they do."""

    def __init__(self, most: int) -> None:
        self.log: list[Record | None] = []
        self.processes = [Process(table, FakeSender(most)) for table in tables()[:PROCESSES]]
        for process in self.processes:
            process.table.confirmed = process.sender  # type: ignore[assignment]
            process.table.held.shelves.clear()
        self.names = (b"w%05d" % number for number in itertools.count())
        self.bound = 0  # smaller numbers have expired
        self.written: dict[bytes, set[int]] = defaultdict(set)
        self.confirmed: dict[bytes, set[int]] = defaultdict(set)
        self.owner = self.processes[0]
        self.hand_over(0)

    def hand_over(self, number: int, step: int = 1_000) -> None:
        self.owner = process = self.processes[number]
        process.writer = next(self.names)
        assign(process.table, writer=process.writer, shelf=process.table.held.shelves.get(0))
        self.recover(process.table, step)
        self.check(process.table)

    def recover(self, table: Numbers, step: int) -> None:
        start = table.held.shelf(0).offset
        records = [r for r in self.log if r is not None and (start is None or r.offset > start)]
        for at in range(0, len(records), step):
            merge_records(table, 0, records[at : at + step])

    async def write(self, process: Process, news: dict[bytes, int]) -> None:
        if 0 in process.table.held.shelves:
            for key, number in news.items():
                self.written[key].add(number)
            await process.table.merge(0, {key: frozenset([number]) for key, number in news.items()})

    async def sweep(self, process: Process, further: int) -> None:
        if 0 in process.table.held.shelves:
            self.bound += further
            await process.table.discard(0, list(KEYS), lambda payload: max(decode(payload)) < self.bound)

    async def land(self, process: Process, batches: int) -> None:
        first = len(self.log)
        process.sender.land(self.log, batches)
        await asyncio.sleep(0)
        for record in self.log[first:]:
            assert record is not None
            assert record.key is not None
            if process is self.owner and record.key.endswith(process.writer) and record.value is not None:
                self.confirmed[record.key[:-WRITER_BYTES]] |= decode(record.value)

    def crash(self, process: Process, disk_lost: bool) -> None:
        process.sender.sent.clear()
        if disk_lost:
            process.table.held.shelves.pop(0, None)
        if process is self.owner:
            self.hand_over(self.processes.index(process))

    def compact(self, seed: int) -> None:
        """Drop some records that have successors, and some tombstones."""
        rng = random.Random(seed)
        last = {record.key: record.offset for record in self.log if record is not None}
        for record in self.log[:-1]:
            if record is not None and (record.value is None or last[record.key] > record.offset) and rng.random() < 0.7:
                self.log[record.offset] = None

    def check(self, table: Numbers) -> None:
        for key in KEYS:
            found = table.get(0, key) or frozenset()
            lost = {n for n in self.confirmed[key] if n >= self.bound} - found
            assert not lost, f"{key!r}: {lost} were confirmed and are gone"
            assert found <= self.written[key]

    def check_a_new_worker(self) -> None:
        table = tables()[PROCESSES]
        assign(table)
        self.recover(table, 1_000)
        self.check(table)

    async def act(self, action: str, number: int, argument: Any) -> None:
        process = self.processes[number] if number < PROCESSES else self.owner
        match action:
            case "write":
                await self.write(process, argument)
            case "land":
                await self.land(process, argument)
            case "hand over":
                self.hand_over(self.processes.index(process), argument)
            case "crash":
                self.crash(process, disk_lost=argument)
            case "compact":
                self.compact(argument)
            case "sweep":
                await self.sweep(process, argument)


OWNER = PROCESSES  # whoever that is then
# Few numbers: the same event is replayed by several owners, and a zombie may know more than its successor.
NEWS: list[dict[bytes, int]] = [{b"k": 1}, {b"k": 2}, {b"k": 3}, {b"l": 1, b"k": 2}]
ACTIONS: list[tuple[str, int, Any]] = [
    *(("write", who, news) for who in (0, 1, OWNER, OWNER) for news in NEWS),
    *(("land", who, batches) for who in (0, 1, OWNER, OWNER) for batches in (1, 1, 2, 9)),
    *(("hand over", who, step) for who in range(PROCESSES) for step in (1, 3, 1_000)),
    *(("crash", who, disk_lost) for who in (0, OWNER) for disk_lost in (True, False)),
    *(("sweep", who, further) for who in (0, OWNER) for further in (0, 1)),
    *(("compact", OWNER, seed) for seed in range(4)),
]


@given(history=st.lists(st.sampled_from(ACTIONS), min_size=6, max_size=30), most=st.integers(1, 3))
@settings(max_examples=500)
def test_nothing_confirmed_is_ever_lost(history: list[tuple[str, int, Any]], most: int):
    async def live() -> None:
        world = World(most)
        for action in history:
            await world.act(*action)
            world.check_a_new_worker()

    asyncio.run(live())
