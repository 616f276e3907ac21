"""What enrich owes besides the contract: old events, refusals alone, delays that come late, the end of a history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from models import homes, wire
from models.enrichment import DELAY, derived
from models.events import Enriched, Event, Origin, Validated
from models.facts import Barrier, Fact
from models.fates import Accepted
from models.parsing import Parser
from models.versions import digest
from tests.agents.fakes import Record, batch
from tests.agents.rigs import PARTITIONS, EnrichRig
from tests.oracle import DAY_US, Payload
from tests.pure_flow import KIND
from tests.samples import NOW_US, bare, feedback_payload, session_payload, tutor_event_payload, tutor_payload
from tests.turns import turns


def validated(topic: str, payload: Payload, offset: int = 0) -> Validated:
    outcome = Parser().parse(KIND[topic], bare(payload), NOW_US)
    assert isinstance(outcome, Accepted)
    return Validated(outcome.event, digest(outcome.event), Origin(topic, 0, offset, NOW_US // 1000), outcome.warnings)


async def rig_of(*entries: bytes) -> EnrichRig:
    rig = EnrichRig([])
    await rig.begin()
    if entries:
        await rig.feed(batch([Record("validated", 0, number, entry) for number, entry in enumerate(entries)]))
    return rig


def enriched(rig: EnrichRig) -> list[Enriched]:
    return [entry for record in entries(rig, "enriched") for entry in wire.unpack_enriched(record).events]


def winners(rig: EnrichRig) -> list[Event]:
    return [entry.event for entry in enriched(rig)]


def entries(rig: EnrichRig, topic: str) -> Sequence[bytes]:
    return [record.value or b"" for record in rig.broker.records(topic)]


async def test_a_session_too_old_for_the_windows_reaches_the_sink_also_beside_feedback_that_is_not():
    """Its feedback is remembered for longer, so the home is there, and holds no session that could win."""
    session = session_payload("s1", "t1", NOW_US - 150 * DAY_US, NOW_US - 150 * DAY_US)
    rating = feedback_payload("f1", "s1", "t1", 5, NOW_US - 149 * DAY_US)
    rig = await rig_of(wire.pack_validated([validated("feedback", rating), validated("sessions", session)]))
    assert {type(event).__name__ for event in winners(rig)} == {"Session", "Feedback"}
    assert rig.counts.counted["too_old"] == 1
    assert not rig.counts.counted["superseded"]


async def test_two_old_versions_both_reach_the_sink_which_knows_what_it_holds():
    versions = [session_payload("s1", "t1", NOW_US - days * DAY_US, NOW_US - days * DAY_US) for days in (150, 151)]
    rig = await rig_of(wire.pack_validated([validated("sessions", payload) for payload in versions]))
    assert len(winners(rig)) == 2
    assert not entries(rig, "facts")


async def test_an_event_that_makes_enrich_raise_is_refused_alone(monkeypatch: Any):
    """And nothing is remembered of it: what has no row must not count in the windows."""
    bad = validated("sessions", session_payload("bad", "t1", NOW_US - DAY_US, NOW_US - DAY_US), 7)
    good = validated("sessions", session_payload("good", "t1", NOW_US - DAY_US, NOW_US - DAY_US), 8)

    def spoil(real: Any) -> Any:
        def raising(subject: Any, *rest: Any) -> Any:
            if getattr(subject, "event", subject).home_id == "bad":
                raise ZeroDivisionError
            return real(subject, *rest)

        return raising

    for name, real in (("agents.enrich.derived", derived), ("models.homes.home_of", homes.home_of)):
        with monkeypatch.context() as patch:
            patch.setattr(name, spoil(real))
            rig = await rig_of(wire.pack_validated([bad, good]))
        assert [event.home_id for event in winners(rig)] == ["good"], name
        assert list(rig.letters.by_place) == [("sessions", 0, 7)], name
        told = [fact for record in entries(rig, "facts") for fact in wire.unpack_facts(record)]
        assert {fact.session_id for fact in told} == {"good"}, name  # type: ignore[union-attr]


async def test_an_event_that_makes_the_join_raise_is_refused_alone(monkeypatch: Any):
    bad = validated("sessions", session_payload("bad", "t1", NOW_US - DAY_US, NOW_US - DAY_US), 7)
    good = validated("sessions", session_payload("good", "t1", NOW_US - DAY_US, NOW_US - DAY_US), 8)
    for name in ("merge", "facts", "is_winner"):
        real = getattr(homes, name)

        def raising(*given: Any, real: Any = real) -> Any:
            if "bad" in repr(given):
                raise LookupError
            return real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(homes, name, raising)
            rig = await rig_of(wire.pack_validated([bad, bad, good]))
        assert "good" in {event.home_id for event in winners(rig)}, name
        assert set(rig.letters.by_place) <= {("sessions", 0, 7)}, name
        assert rig.letters.by_place or name == "merge", name


def named(number: int, session_id: str = "s1", offset: int | None = None) -> Validated:
    """A version of a session under its own tutor."""
    payload = session_payload(session_id, f"tutor_{number:05d}", NOW_US - DAY_US, NOW_US - DAY_US + number)
    return validated("sessions", payload, number if offset is None else offset)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "a batch each"])
async def test_a_home_names_only_so_many_tutors_and_who_would_be_one_more_is_refused_alone(together: bool):
    most = homes.MOST_TUTORS
    again = named(3, offset=90_000)  # of a tutor who is known
    events = [*(named(number) for number in range(most + 50)), named(0, "s2", 80_000), again]
    rig = await rig_of(*([wire.pack_validated(events)] if together else [wire.pack_validated([e]) for e in events]))
    assert sorted(rig.letters.by_place) == [("sessions", 0, offset) for offset in range(most, most + 50)]
    assert {reason for reason, _ in rig.letters.by_place.values()} == {"too_many_tutors"}
    assert rig.counts.counted["dead_letters", "sessions", "too_many_tutors"] == 50
    home = rig.table.get(0, b"ss1")
    assert isinstance(home, homes.SessionHome)
    assert home.tutors == tuple(f"tutor_{number:05d}" for number in range(most))
    assert home.session is not None
    assert home.session.tutor_id == f"tutor_{most - 1:05d}"  # the newest of those accepted
    assert {event.home_id for event in winners(rig)} == {"s1", "s2"}


async def test_a_full_home_goes_on_for_tutors_it_knows_and_a_batch_of_nothing_else_is_refused_whole():
    full = wire.pack_validated([named(number) for number in range(homes.MOST_TUTORS)])
    rig = await rig_of(full, wire.pack_validated([named(1_000), named(1_001)]))
    assert sorted(rig.letters.by_place) == [("sessions", 0, 1_000), ("sessions", 0, 1_001)]
    rating = feedback_payload("f1", "s1", "tutor_00005", 4, NOW_US - 1000)
    await rig.feed(batch([Record("validated", 0, 2, wire.pack_validated([validated("feedback", rating)]))]))
    home = rig.table.get(0, b"ss1")
    assert isinstance(home, homes.SessionHome)
    assert home.feedback is not None
    assert len(homes.encode(home)) < 32 << 10


async def test_homes_that_grew_apart_are_merged_whole_and_take_those_they_know():
    """A zombie's home and its successor's may together name more than one of them may."""
    parts = [
        homes.home_of(named(number)) for number in (*range(homes.MOST_TUTORS), *range(500, 500 + homes.MOST_TUTORS))
    ]
    both = parts[0]
    for part in parts[1:]:
        both = homes.merge(both, part)
    rig = await rig_of()
    await rig.table.merge(0, {b"ss1": both})
    await rig.feed(batch([Record("validated", 0, 0, wire.pack_validated([named(505), named(7_000)]))]))
    assert list(rig.letters.by_place) == [("sessions", 0, 7_000)]


async def test_a_record_of_ours_that_cannot_be_read_is_refused_alone():
    good = wire.pack_validated([validated("sessions", session_payload("good", "t1", NOW_US - DAY_US, NOW_US - DAY_US))])
    rig = await rig_of(wire.VERSION + b"rubbish", good)
    assert [event.home_id for event in winners(rig)] == ["good"]
    assert list(rig.letters.by_place) == [("validated", 0, 0)]


async def test_the_delay_of_feedback_that_came_before_its_session_is_told_when_the_session_comes():
    start_us = NOW_US - DAY_US
    rating = wire.pack_validated(
        [validated("feedback", feedback_payload("f1", "s1", "t1", 5, start_us + 9_000_000_000))]
    )
    session = wire.pack_validated([validated("sessions", session_payload("s1", "t1", start_us, start_us))])
    rig = await rig_of(rating)
    await rig.feed(batch([Record("validated", 0, 1, session)]))
    delays = [delay for record in entries(rig, "enriched") for delay in wire.unpack_enriched(record).delays]
    assert [(delay.session_id, delay.feedback_delay_hours) for delay in delays] == [("s1", 2.5)]


async def test_warnings_stay_on_the_event_and_what_follows_from_it_joins_them():
    """Nobody behind topic `enriched` reads either: they are for others, and only this test would miss them."""
    start_us = NOW_US - DAY_US
    odd = {
        "tutors": tutor_payload("t1", NOW_US, age=99),
        "sessions": session_payload("s1", "t1", start_us, start_us, duration_minutes=37),
        "feedback": feedback_payload("f1", "s1", "t1", 2, start_us + 9_000_000_000, would_recommend=True),
        "tutor-events": tutor_event_payload("e1", "t1", "login", NOW_US + 1),
    }
    told = [validated(topic, payload) for topic, payload in odd.items()]
    assert all(one.warnings for one in told)
    rig = await rig_of(wire.pack_validated(told))
    found = {type(one.event): one for one in enriched(rig)}
    for one in told:
        expected = derived(one.event, NOW_US)
        assert bool(expected) == (one.origin.topic != "tutor-events")
        if one.origin.topic == "feedback":
            expected[DELAY] = 2.5
        came = found[type(one.event)]
        assert (came.derived, came.warnings, came.origin) == (expected, one.warnings, one.origin)


async def test_a_session_that_moved_leaves_its_old_tutor():
    first = session_payload("s1", "old", NOW_US - DAY_US, NOW_US - 2000)
    moved = first | {"tutor_id": "new", "updated_at": session_payload("", "", 0, NOW_US - 1000)["updated_at"]}
    rig = await rig_of(*(wire.pack_validated([validated("sessions", payload)]) for payload in (first, moved)))
    told = [fact for record in entries(rig, "facts") for fact in wire.unpack_facts(record)]
    assert {fact.tutor_id for fact in told} == {"old", "new"}  # type: ignore[union-attr]
    assert all(fact.session.tutor_id == "new" for fact in told)  # type: ignore[union-attr]


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
async def test_the_end_of_a_history_is_announced_once_everything_before_it_has_landed(together: bool):
    rig = await rig_of()
    rig.broker.holding = True
    event = wire.pack_validated([validated("tutor-events", tutor_event_payload("e1", "t1", "login", NOW_US - DAY_US))])
    records = [Record("validated", 0, 0, event), Record("validated", 0, 1, wire.pack_history_end(3))]
    steps = [
        asyncio.create_task(rig.step(batch(part))) for part in ([records] if together else [records[:1], records[1:]])
    ]
    await turns()

    def barriers() -> set[tuple[int, Fact | Barrier]]:
        return {
            (record.partition, fact)
            for record in rig.broker.records("facts")
            for fact in wire.unpack_facts(record.value or b"")
            if isinstance(fact, Barrier)
        }

    assert not barriers()
    rig.broker.confirm()
    await asyncio.gather(*steps)
    assert barriers() == {(partition, Barrier(3, 0)) for partition in range(PARTITIONS)}
