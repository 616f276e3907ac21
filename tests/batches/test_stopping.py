"""A worker told to stop in the middle of a rebalance: its shelves are closed, and Faust goes on asking for a while."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from faust.types import TP

from tests.batches.fakes import Numbers, Record, assign, numbers_table
from tutormax_streams.batches import Revoked
from tutormax_streams.batches.recovery import apply_changelog


@pytest.fixture
async def stopped() -> Numbers:
    table = numbers_table()
    assign(table)
    await table.held.on_stop()
    return table


async def test_there_is_no_offset_of_a_closed_shelf(stopped: Numbers):
    assert stopped.held.persisted_offset(TP(stopped.changelog_name, 0)) is None


async def test_what_is_still_fetched_of_a_changelog_is_dropped(stopped: Numbers):
    tp = TP(stopped.changelog_name, 0)
    recovery = SimpleNamespace(
        in_recovery=True, active_tps={tp}, active_offsets={tp: None}, tp_to_table={tp: stopped}, need_recovery=bool
    )
    app = SimpleNamespace(tables=SimpleNamespace(recovery=recovery))
    await apply_changelog(app, tp, [Record(0, b"kwriter", b"1")])
    assert recovery.active_offsets[tp] is None


async def test_nothing_is_written_any_more(stopped: Numbers):
    with pytest.raises(Revoked):
        await stopped.merge(0, {b"k": frozenset({1})})
