"""A merged table writes one record a key, under its writer's name, in the order in which things changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.batches.fakes import FakeSender, Numbers, Record, assign, decode, encode, numbers_table, the_memory
from tests.turns import SOON_SECONDS
from tutormax_streams.batches import Revoked
from tutormax_streams.batches.recovery import merge_records
from tutormax_streams.batches.shelves import MemoryShelf, RocksShelf
from tutormax_streams.batches.table import WRITER_BYTES

A, B, C = b"wrtr-A", b"wrtr-B", b"wrtr-C"
assert len(A) == WRITER_BYTES


def numbers(*values: int) -> frozenset[int]:
    return frozenset(values)


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def table(sender: FakeSender) -> Numbers:
    table = numbers_table(sender)
    assign(table, writer=A)
    return table


def taken_over(table: Numbers, log: list[Record | None], writer: bytes, sender: FakeSender) -> Numbers:
    """Another worker's copy of the table, recovered from `log`."""
    other = numbers_table(sender)
    assign(other, writer=writer)
    merge_records(other, 0, [record for record in log if record is not None])
    return other


# -- merge ------------------------------------------------------------------------------------------------------------


async def test_a_first_value_is_stored_and_sent_under_the_writers_name(table: Numbers, sender: FakeSender):
    merged, confirmations = await table.merge(0, {b"k": numbers(1)})
    assert merged == {b"k": numbers(1)}
    assert table.get(0, b"k") == numbers(1)
    assert sender.items == [(b"k" + A, b"1")]
    assert [sent.topic for sent in sender.sent] == [table.changelog_name]
    assert len(confirmations) == 1
    assert not confirmations[0].done()


async def test_news_are_merged_into_what_is_held(table: Numbers, sender: FakeSender):
    await table.merge(0, {b"k": numbers(1)})
    merged, _ = await table.merge(0, {b"k": numbers(2), b"l": numbers(9)})
    assert merged == {b"k": numbers(1, 2), b"l": numbers(9)}
    assert sender.items == [(b"k" + A, b"1"), (b"k" + A, b"1,2"), (b"l" + A, b"9")]


async def test_a_value_is_sent_again_even_if_nothing_changed(table: Numbers, sender: FakeSender):
    """After a crash the local copy may be ahead of the changelog, and a replay is what mends it."""
    await table.merge(0, {b"k": numbers(1, 2)})
    await table.merge(0, {b"k": numbers(1)})
    assert sender.items == [(b"k" + A, b"1,2")] * 2


async def test_a_merge_that_is_refused_leaves_what_is_held_and_the_other_keys_go_on(table: Numbers, sender: FakeSender):
    await table.merge(0, {b"k": numbers(1, 2)})

    def grows_past_two(known: frozenset[int] | None, merged: frozenset[int]) -> bool:
        return len(merged) > max(2, len(known or ()))

    merged, _ = await table.merge(
        0, {b"k": numbers(3), b"l": numbers(9), b"m": numbers(1, 2, 3)}, refuses=grows_past_two
    )
    assert merged == {b"l": numbers(9)}
    assert table.get(0, b"k") == numbers(1, 2)
    assert table.get(0, b"m") is None
    assert sender.items == [(b"k" + A, b"1,2"), (b"l" + A, b"9")]


async def test_nothing_is_sent_of_nothing(table: Numbers, sender: FakeSender):
    assert await table.merge(0, {}) == ({}, [])
    assert await table.discard(0, [], lambda payload: True) == ([], [])
    assert sender.sent == []


async def test_partitions_are_apart(table: Numbers, sender: FakeSender):
    assign(table, 1, writer=B)
    await table.merge(0, {b"k": numbers(1)})
    await table.merge(1, {b"k": numbers(2)})
    assert (table.get(0, b"k"), table.get(1, b"k")) == (numbers(1), numbers(2))
    assert [(sent.partition, sent.items) for sent in sender.sent] == [
        (0, [(b"k" + A, b"1")]),
        (1, [(b"k" + B, b"2")]),
    ]
    assert table.owned_partitions() == [0, 1]


async def test_a_partition_that_left_is_refused(table: Numbers):
    del table.held.shelves[0]
    for access in (table.merge(0, {b"k": numbers(1)}), table.discard(0, [b"k"], lambda payload: True)):
        with pytest.raises(Revoked):
            await access
    with pytest.raises(Revoked):
        table.get(0, b"k")
    with pytest.raises(Revoked):
        list(table.scan(0, b""))


async def test_scanning_shows_encoded_values_without_names(table: Numbers):
    await table.merge(0, {b"b": numbers(2), b"a": numbers(1), b"c": numbers(3)})
    assert list(table.scan(0, b"b")) == [(b"b", b"2"), (b"c", b"3")]


# -- hand-over --------------------------------------------------------------------------------------------------------


async def test_the_first_write_after_a_hand_over_deletes_the_predecessors_record(table: Numbers):
    log: list[Record | None] = []
    first, second = FakeSender(), FakeSender()
    table.confirmed = first  # type: ignore[assignment]
    await table.merge(0, {b"k": numbers(1), b"l": numbers(5)})
    first.land(log)
    successor = taken_over(table, log, B, second)
    await successor.merge(0, {b"k": numbers(2)})
    assert second.items == [(b"k" + B, b"1,2"), (b"k" + A, None)]
    second.sent.clear()
    await successor.merge(0, {b"k": numbers(3)})
    assert second.items == [(b"k" + B, b"1,2,3")]


async def test_all_predecessors_of_a_value_are_deleted(table: Numbers):
    """A zombie's record beside the owner's: both are live, so both must go when a third takes over."""
    log: list[Record | None] = [Record(0, b"k" + A, b"1,9"), Record(1, b"k" + B, b"1,2")]
    sender = FakeSender()
    third = taken_over(table, log, C, sender)
    await third.merge(0, {b"k": numbers(3)})
    assert sender.items[0] == (b"k" + C, b"1,2,3,9")
    assert sorted(sender.items[1:]) == [(b"k" + A, None), (b"k" + B, None)]


async def test_an_assignment_that_stays_gets_a_new_name_too(table: Numbers, sender: FakeSender):
    await table.merge(0, {b"k": numbers(1)})
    tp = TP(table.changelog_name, 0)
    await table.held.on_rebalance({tp}, set(), set())
    name = table.held.writers[0]
    assert name != A
    await table.merge(0, {b"k": numbers(2)})
    assert sender.items[1:] == [(b"k" + name, b"1,2"), (b"k" + A, None)]


# -- discard ----------------------------------------------------------------------------------------------------------


async def test_discarding_deletes_here_and_in_the_changelog(table: Numbers, sender: FakeSender):
    await table.merge(0, {b"k": numbers(1), b"l": numbers(2)})
    sender.sent.clear()
    gone, confirmations = await table.discard(0, [b"k", b"unknown"], lambda payload: True)
    assert gone == [b"k"]
    assert len(confirmations) == 1
    assert table.get(0, b"k") is None
    assert sender.items == [(b"k" + A, None)]


async def test_discarding_looks_again_whether_the_condition_still_holds(table: Numbers, sender: FakeSender):
    """The sweep looked, the stream wrote, the sweep deletes: the news must survive."""
    await table.merge(0, {b"k": numbers(1)})

    def expired(payload: bytes) -> bool:
        return max(decode(payload)) < 5

    sender.turns = 3
    (_, _), (gone, _) = await asyncio.gather(table.merge(0, {b"k": numbers(7)}), table.discard(0, [b"k"], expired))
    assert gone == []
    assert table.get(0, b"k") == numbers(1, 7)


async def test_discarding_deletes_every_live_record_of_the_key(table: Numbers):
    log: list[Record | None] = [Record(0, b"k" + A, b"1,9"), Record(1, b"k" + B, b"1,2")]
    sender = FakeSender()
    third = taken_over(table, log, C, sender)
    await third.discard(0, [b"k"], lambda payload: True)
    assert sorted(sender.items) == [(b"k" + A, None), (b"k" + B, None)]


# -- order ------------------------------------------------------------------------------------------------------------


async def test_the_changelog_has_the_order_in_which_things_changed_here(table: Numbers, sender: FakeSender):
    """A merge whose sending waits for room must not be overtaken by what changes its keys afterwards."""
    sender.most, sender.turns = 1, 2

    async def merging(start: int) -> None:
        for n in range(start, start + 20):
            await table.merge(0, {b"k": numbers(n), b"l": numbers(n + 100)})

    async def discarding() -> None:
        for _ in range(20):
            await table.discard(0, [b"k", b"l"], lambda payload: len(payload) > 12)
            await asyncio.sleep(0)

    await asyncio.gather(merging(0), discarding(), merging(50))
    replayed: dict[bytes, bytes] = {}
    for key, payload in sender.items:
        replayed.pop(key, None)
        if payload is not None:
            replayed[key] = payload
    assert replayed == {key + A: payload for key, payload in table.scan(0, b"")}


async def test_a_partition_waits_for_itself_only(table: Numbers, sender: FakeSender):
    assign(table, 1, writer=B)
    async with table.held.order[0]:
        waiting = asyncio.ensure_future(table.merge(0, {b"k": numbers(1)}))
        await asyncio.wait_for(table.merge(1, {b"k": numbers(1)}), SOON_SECONDS)
        assert not waiting.done()
    await waiting


# -- the local offset -------------------------------------------------------------------------------------------------


def shelf_of(table: Numbers) -> Any:
    return table.held.shelf(0)


async def test_the_offset_moves_over_own_records_one_after_the_other(table: Numbers, sender: FakeSender):
    sender.most = 2
    log: list[Record | None] = []
    await table.merge(0, {b"%d" % n: numbers(n) for n in range(5)})
    assert shelf_of(table).offset is None
    for expected in (1, 3, 4):
        sender.land(log, 1)
        await asyncio.sleep(0)
        assert shelf_of(table).offset == expected


async def test_the_offset_stops_at_a_foreign_record(table: Numbers, sender: FakeSender):
    log: list[Record | None] = []
    await table.merge(0, {b"k": numbers(1)})
    sender.land(log)
    log.append(Record(1, b"k" + B, b"9"))
    await table.merge(0, {b"k": numbers(2)})
    sender.land(log)
    await asyncio.sleep(0)
    assert shelf_of(table).offset == 0


async def test_the_offset_does_not_move_for_failed_cancelled_or_late_confirmations(table: Numbers, sender: FakeSender):
    for _ in range(3):
        await table.merge(0, {b"k": numbers(1)})
    failed, cancelled, late = (sent.future for sent in sender.sent)
    failed.set_exception(OSError("broker away"))
    cancelled.cancel()
    del sender.sent[:2]
    old = shelf_of(table)
    assign(table, writer=B)
    sender.land([])
    await asyncio.sleep(0)
    assert late.done()
    assert failed.exception() is not None
    assert (old.offset, shelf_of(table).offset) == (None, None)


# -- the store, as Faust sees it --------------------------------------------------------------------------------------


def on_disk(table: Numbers, directory: Path) -> None:
    table.held._new_shelf = lambda partition: RocksShelf(directory / f"{partition}.db", the_memory())
    table.held.shelves.clear()


async def test_a_rebalance_closes_what_left_and_opens_what_came(table: Numbers, tmp_path: Path):
    on_disk(table, tmp_path)
    changelog = table.changelog_name
    await table.held.on_rebalance({TP(changelog, 0), TP(changelog, 1), TP("other", 3)}, set(), set())
    assert table.owned_partitions() == [0, 1]
    kept = table.held.shelf(0)
    await table.merge(1, {b"k": numbers(1)})
    await table.held.on_rebalance({TP(changelog, 0), TP(changelog, 2)}, {TP(changelog, 1)}, {TP(changelog, 2)})
    assert table.owned_partitions() == [0, 2]
    assert table.held.shelf(0) is kept
    assert set(table.held.writers) == {0, 2}
    open_again = RocksShelf(tmp_path / "1.db", the_memory())  # it was closed: nobody holds its lock
    assert len(open_again.get_many([b"k"])) == 1
    open_again.close()
    await table.held.on_stop()
    assert table.owned_partitions() == []


async def test_a_directory_in_use_refuses_the_assignment(table: Numbers, tmp_path: Path):
    on_disk(table, tmp_path)
    holder = RocksShelf(tmp_path / "1.db", the_memory())
    with pytest.raises(RuntimeError, match="in use by another worker"):
        await table.held.on_rebalance({TP(table.changelog_name, p) for p in (1, 2)}, set(), set())
    holder.close()
    await table.held.on_stop()


async def test_faust_reads_and_moves_the_offset_of_a_held_partition(table: Numbers):
    tp = TP(table.changelog_name, 0)
    assert table.held.persisted_offset(tp) is None
    table.held.set_persisted_offset(tp, 12)
    assert table.held.persisted_offset(tp) == 12


def test_the_table_is_no_dictionary(table: Numbers):
    with pytest.raises(NotImplementedError, match="merge"):
        table.held[b"k"] = 1
    with pytest.raises(NotImplementedError, match="discard"):
        del table.held[b"k"]


def test_values_survive_their_encoding():
    assert decode(encode(numbers(3, 1))) == numbers(1, 3)
    assert decode(encode(numbers())) == numbers()
    assert MemoryShelf().offset is None
