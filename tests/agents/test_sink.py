"""What persist and flush owe besides the contract: patience, refusals alone, the newest of several, nothing half done."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from agents import holding
from agents import persist as persist_step
from models import wire
from models.events import Enriched, Origin
from models.layouts import UnknownVersion
from models.metrics import MetricsUpdated, encode
from tests.agents.fakes import Record, batch
from tests.agents.rigs import FlushRig, PersistRig
from tests.agents.test_enrich import validated
from tests.oracle import DAY_US
from tests.postgres.builders import metrics
from tests.samples import NOW_US, tutor_payload
from tests.turns import SOON_SECONDS, turns
from tutormax_streams.batches import Revoked


def enriched(tutor_id: str, topic: str = "tutors") -> Enriched:
    event = validated("tutors", tutor_payload(tutor_id, NOW_US - DAY_US))
    return Enriched(event.event, event.digest, Origin(topic, 0, 7, NOW_US // 1000), {})


def of_records(*entries: Enriched) -> Any:
    return batch([Record("enriched", 0, n, wire.pack_enriched([entry])) for n, entry in enumerate(entries)])


def of_updates(*updates: MetricsUpdated) -> Any:
    return batch([Record("metrics", 0, n, encode(update)) for n, update in enumerate(updates)])


@pytest.fixture
async def persist() -> PersistRig:
    rig = PersistRig([])
    await rig.begin()
    return rig


@pytest.fixture
async def flush() -> FlushRig:
    rig = FlushRig([])
    await rig.begin()
    return rig


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "FIRST_WAIT_SECONDS", 0.001)


@pytest.mark.parametrize("sink", ["persist", "flush"])
async def test_it_holds_its_work_while_postgresql_is_away_and_says_so(sink: str, persist: PersistRig, flush: FlushRig):
    rig: Any = persist if sink == "persist" else flush
    step = rig.persist if sink == "persist" else rig.flush
    work = of_records(enriched("t1")) if sink == "persist" else of_updates(metrics("t1"))
    rig.postgres.away = 1_000_000
    feeding = asyncio.create_task(rig.feed(work))
    async with asyncio.timeout(SOON_SECONDS):
        while not step.hold.holding.reasons:  # noqa: ASYNC110 - a dictionary tells nobody
            await asyncio.sleep(0.001)
    assert not work.is_done
    assert list(step.hold.holding.reasons) == [sink]
    tried = 1_000_000 - rig.postgres.away
    rig.postgres.away = 3
    await feeding
    assert not step.hold.holding.reasons
    assert rig.counts.counted["sink_retries", sink] == tried + 3
    assert rig.postgres.writes == 1


@pytest.mark.parametrize("sink", ["persist", "flush"])
async def test_work_of_a_partition_that_leaves_is_dropped_and_not_done(sink: str, persist: PersistRig, flush: FlushRig):
    rig: Any = persist if sink == "persist" else flush
    work = of_records(enriched("t1")) if sink == "persist" else of_updates(metrics("t1"))
    rig.postgres.away = 1_000_000
    await rig.step(work)
    settling = asyncio.create_task(rig.settle())
    await turns()
    work.revoke()
    await asyncio.wait_for(settling, SOON_SECONDS)
    assert not work.is_done
    assert not rig.postgres.writes


async def test_persist_refuses_a_row_alone_and_announces_the_others(persist: PersistRig):
    persist.postgres.refuses = lambda entry: entry.event.tutor_id == "bad"
    await persist.feed(of_records(enriched("t1"), enriched("bad"), enriched("t2")))
    assert [reason for reason, _ in persist.letters.by_place.values()] == ["duplicate"]
    announced = [record.key for record in persist.broker.records("persisted")]
    assert sorted(announced) == [b"t1", b"t2"]  # type: ignore[type-var]


async def test_persist_is_done_only_when_announcements_and_refusals_have_landed(persist: PersistRig):
    persist.broker.holding = True
    work = of_records(enriched("t1"))
    feeding = asyncio.create_task(persist.feed(work))
    await turns()
    assert persist.postgres.entities
    assert not work.is_done
    persist.broker.confirm()
    await feeding


async def test_persist_settles_what_is_owed_once_it_has_been_announced(persist: PersistRig):
    persist.postgres.owes = lambda row: row.id == "t1"
    persist.broker.holding = True
    work = of_records(enriched("t1"), enriched("t2"))
    feeding = asyncio.create_task(persist.feed(work))
    await turns()
    assert len(persist.broker.records("persisted")) == 2
    assert not persist.postgres.told_rows
    persist.postgres.away = 2
    persist.broker.confirm()
    await feeding
    assert [row.id for row in persist.postgres.told_rows] == ["t1"]
    assert work.is_done
    assert len(persist.broker.records("persisted")) == 2


async def test_persist_unpacks_no_more_than_the_next_transaction_takes(
    persist: PersistRig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(persist_step, "MOST_EVENTS", 2)
    await persist.step(of_records(enriched("t1"), enriched("t2")))
    held = of_records(enriched("t3"))
    waiting = asyncio.create_task(persist.step(held))
    await turns()
    assert held.records
    assert persist.persist.gathering.waiting_entries == 2
    await persist.persist.write()
    await asyncio.wait_for(waiting, SOON_SECONDS)
    assert not held.records
    await persist.settle()
    assert len(persist.postgres.entities) == 3


async def test_a_batch_that_leaves_does_not_wait_for_room(persist: PersistRig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(persist_step, "MOST_EVENTS", 1)
    await persist.step(of_records(enriched("t1")))
    held = of_records(enriched("t2"))
    waiting = asyncio.create_task(persist.step(held))
    await turns()
    held.revoke()
    with pytest.raises(Revoked):
        await asyncio.wait_for(waiting, SOON_SECONDS)
    assert not held.is_done


async def test_persist_leaves_what_rebuild_loaded_from_the_database_there(persist: PersistRig):
    await persist.feed(of_records(enriched("t1", "database"), enriched("t2")))
    assert list(persist.postgres.entities) == [("tutor", "t2")]


async def test_flush_writes_the_greatest_fence_of_several_records_once(flush: FlushRig):
    fences = [(1, 5, 3), (2, 1, 1), (1, 9, 9), (2, 1, 0)]
    updates = [metrics("t1", epoch=e, position=p, as_of=NOW_US + a) for e, p, a in fences]
    await flush.feed(of_updates(*updates))
    assert {tutor: update.fence for tutor, (_, update) in flush.postgres.metrics.items()} == {"t1": (2, 1, NOW_US + 1)}
    assert flush.counts.counted["flushed_tutors"] == 1
    await flush.feed(of_updates(updates[0]))
    assert flush.counts.counted["fenced"] == 1


async def test_flush_sees_how_old_the_events_of_superseded_records_were(flush: FlushRig):
    observed: list[float] = []
    flush.counts.observe = lambda name, value, **_: observed.append(value) if name == "freshness" else None  # type: ignore[method-assign]
    now_ms = flush.clock() // 1000
    updates = [
        msgspec.structs.replace(metrics("t1", position=position), oldest_event_time_ms=now_ms - ago_ms)
        for position, ago_ms in ((1, 3000), (3, 2000))
    ]
    await flush.feed(of_updates(*updates, metrics("t1", position=2)))
    assert sorted(map(round, observed)) == [2, 3]
    assert flush.counts.counted["flushed_tutors"] == 1


async def test_what_was_not_written_is_not_fresh(flush: FlushRig):
    observed: list[float] = []
    flush.counts.observe = lambda name, value, **_: observed.append(value) if name == "freshness" else None  # type: ignore[method-assign]
    flush.postgres.refuses = lambda update: update.tutor_id == "bad"
    now_ms = flush.clock() // 1000
    await flush.feed(
        of_updates(
            *(
                msgspec.structs.replace(metrics(tutor), oldest_event_time_ms=now_ms - ago_ms)
                for tutor, ago_ms in (("bad", 7000), ("t1", 2000))
            )
        )
    )
    assert list(map(round, observed)) == [2]


@pytest.mark.parametrize("sink", ["persist", "flush"])
async def test_metrics_that_were_parked_are_counted_when_they_are_written(
    sink: str, persist: PersistRig, flush: FlushRig
):
    rig: Any = persist if sink == "persist" else flush
    observed: list[float] = []
    rig.counts.observe = lambda name, value, **_: observed.append(value) if name == "freshness" else None
    old = msgspec.structs.replace(metrics("t1"), oldest_event_time_ms=rig.clock() // 1000 - 90_000)
    rig.postgres.waiting = [old, metrics("t2")]
    if sink == "persist":
        await persist.feed(of_records(enriched("t1"), enriched("t2")))
    else:
        await flush.flush.retry_parked()
    assert rig.counts.counted["unparked", "metrics"] == 2
    assert len(observed) == 1, "without news there is no age"
    assert observed[0] >= 90


async def test_flush_refuses_windows_that_cannot_be_read_and_takes_the_next_best(flush: FlushRig):
    foreign = encode(metrics("t1", position=9)).replace(b'"windows":', b'"windows":7,"elsewhere":')
    await flush.feed(
        batch([Record("metrics", 0, 0, foreign), Record("metrics", 0, 1, encode(metrics("t1", position=1)))])
    )
    assert [update.position for _, update in flush.postgres.metrics.values()] == [1]
    assert list(flush.letters.by_place) == [("metrics", 0, 0)]


async def test_flush_keeps_what_postgresql_refuses_as_a_dead_letter(flush: FlushRig):
    flush.postgres.refuses = lambda update: update.tutor_id == "bad"
    bad = metrics("bad")
    await flush.feed(of_updates(metrics("t1"), bad))
    assert list(flush.postgres.metrics) == ["t1"]
    assert list(flush.letters.by_place.values()) == [("refused_by_database", encode(bad))]


@pytest.mark.parametrize("value", [b"\x01rubbish", b"", b"{}", b"rubbish", b"\x00\x00\x00\x00\x07avro", b"\xff\xfe"])
async def test_a_record_that_is_none_of_ours_is_refused_alone(persist: PersistRig, flush: FlushRig, value: bytes):
    foreign = Record("enriched", 0, 0, value)
    await persist.feed(batch([foreign, Record("enriched", 0, 1, wire.pack_enriched([enriched("t1")]))]))
    await flush.feed(batch([Record("metrics", 0, 0, b"{}"), Record("metrics", 0, 1, encode(metrics("t1")))]))
    assert persist.postgres.entities
    assert flush.postgres.metrics
    assert list(persist.letters.by_place) == [("enriched", 0, 0)]
    assert list(flush.letters.by_place) == [("metrics", 0, 0)]


async def test_a_record_of_a_later_release_stops_the_worker_instead(persist: PersistRig):
    with pytest.raises(UnknownVersion):
        await persist.feed(batch([Record("enriched", 0, 0, b"\x02later")]))
    assert not persist.letters.by_place


async def test_late_delays_alone_are_nothing_to_write(persist: PersistRig):
    delays = wire.pack_enriched((), [wire.LateDelay("s1", NOW_US, 2.5)])
    await persist.feed(batch([Record("enriched", 0, 0, delays)]))
    assert not persist.postgres.writes
