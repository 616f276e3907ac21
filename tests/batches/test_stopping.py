"""A worker told to stop in the middle of a rebalance: its shelves are closed, and Faust goes on asking for a while; and
one whose Kafka is away: nothing that was sent will be confirmed.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.transport.drivers.aiokafka import Producer
from faust.types import TP

from tests.batches.fakes import Numbers, Record, assign, numbers_table
from tests.turns import SOON_SECONDS
from tutormax_streams.batches import Revoked, producer
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


async def test_the_end_waits_once_and_not_for_long_for_a_kafka_that_is_away(monkeypatch: pytest.MonkeyPatch):
    """Faust flushes when an app stops, and again when its producer does; an idempotent producer never gives up."""

    async def away(_: Producer) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(Producer, "flush", away)
    monkeypatch.setattr(producer, "STOP_SECONDS", 0.3)
    app = faust.App("away", broker="kafka://127.0.0.1:1", autodiscover=False)
    sending: Any = producer.ConfirmingProducer(app.transport)
    flushing = asyncio.ensure_future(sending.flush())
    await asyncio.sleep(0.5)
    assert not flushing.done(), "while the app works, whoever flushes wants to know"
    flushing.cancel()
    app._stopped.set()
    async with asyncio.timeout(SOON_SECONDS):
        await sending.flush()
        await sending.on_stop()
