"""When aggregate publishes, when it must not, and what its fences say."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from faust.types import TP

from agents.aggregate import APPEND_TIME, REFRESH_SECONDS, Assignment
from agents.culprits import SURELY_OURS
from models import facts as stored_facts
from models import wire
from models.events import Validated
from models.facts import Barrier, Fact
from models.homes import facts, home_of
from models.metrics import MetricsUpdated, decode
from models.windows import TutorFacts
from tests.agents import fakes
from tests.agents.fakes import Record, batch
from tests.agents.rigs import AggregateRig
from tests.agents.test_enrich import validated
from tests.oracle import DAY_US
from tests.samples import NOW_US, session_payload, tutor_payload
from tests.turns import turns
from tutormax_streams.batches import Revoked

SECOND_US = 1_000_000
CREATE_TIME = 0  # Kafka's: the producer's clock


def known(tutor_id: str) -> list[Fact]:
    """A tutor exists."""
    return told(validated("tutors", tutor_payload(tutor_id, NOW_US - DAY_US)))


def held(tutor_id: str, start_us: int = NOW_US - DAY_US, session_id: str = "s1") -> list[Fact]:
    """A session of a tutor."""
    return told(validated("sessions", session_payload(session_id, tutor_id, start_us, min(start_us, NOW_US))))


def told(event: Validated, age_seconds: int = 0) -> list[Fact]:
    return list(facts(event.event.home_id, home_of(event), NOW_US // 1000 - 1000 * age_seconds))


class Bench(AggregateRig):
    """Partition 0 of `facts` alone, with whatever an assignment finds there."""

    noted = Assignment(0, 0, 0)

    async def note_assignment(self, partition: int) -> Assignment:
        return self.noted

    async def begin(self) -> None:
        await super().begin()
        await fakes.assign(self.table, self.broker, [0])

    async def tell(self, offset: int, *entries: Any) -> None:
        await self.feed(batch([Record("facts", 0, offset, wire.pack_facts(list(entries)))]))

    async def after(self, seconds: float) -> list[MetricsUpdated]:
        """What is published when so much time has passed."""
        log = self.broker.logs[TP("metrics", 0)]
        before = len(log)
        self.clock.now_us += round(seconds * SECOND_US)
        await self.aggregate.tick()
        return [decode(record.value or b"") for record in log[before:]]


@pytest.fixture
async def bench() -> Bench:
    bench = Bench([])
    await bench.begin()
    return bench


async def test_a_tutor_with_news_is_published_at_once_and_then_at_most_once_a_second(bench: Bench):
    await bench.tell(0, *known("t1"))
    assert [update.tutor_id for update in await bench.after(0)] == ["t1"]
    await bench.tell(1, *held("t1"))
    assert not await bench.after(0.4)
    await bench.tell(2, *held("t1", session_id="s2"))
    assert not await bench.after(0.5)
    (update,) = await bench.after(0.1)
    assert (update.windows["7day"].sessions_completed, update.events, update.position) == (2, 2, 3)


async def test_news_that_is_old_already_waits_a_quarter_of_its_age_as_long_as_others_come(bench: Bench):
    old = told(validated("tutors", tutor_payload("t1", NOW_US - DAY_US)), age_seconds=20)
    await bench.tell(0, *old)
    assert len(await bench.after(0)) == 1  # the first time at once
    await bench.tell(1, *old)
    for seconds, published in ((4.9, ["t2"]), (0.2, ["t1", "t3"])):
        bench.clock.now_us += round(seconds * SECOND_US)
        (other,) = {"t2", "t3"}.intersection(published)
        await bench.tell(2, *known(other))
        assert sorted(update.tutor_id for update in await bench.after(0)) == published


async def test_nobody_is_patient_when_nothing_comes_any_more(bench: Bench):
    old = told(validated("tutors", tutor_payload("t1", NOW_US - DAY_US)), age_seconds=20)
    await bench.tell(0, *old)
    assert len(await bench.after(0)) == 1
    await bench.tell(1, *old)
    assert await bench.after(0.5) == []  # at most once a second all the same
    assert len(await bench.after(0.5)) == 1


async def test_young_news_does_not_wait_behind_old_news_of_its_tutor(bench: Bench):
    await bench.tell(0, *known("t1"))
    assert len(await bench.after(0)) == 1
    await bench.tell(1, *told(validated("tutors", tutor_payload("t1", NOW_US - DAY_US)), age_seconds=40))
    await bench.tell(2, *known("t1"))
    bench.clock.now_us += SECOND_US
    await bench.tell(3, *known("t2"))
    assert sorted(update.tutor_id for update in await bench.after(0)) == ["t1", "t2"]


async def test_nothing_is_published_before_the_log_end_noted_at_the_assignment(bench: Bench):
    bench.noted = Assignment(log_end=3, committed=1, last_as_of_us=0)
    await bench.tell(1, *known("t1"))
    assert not await bench.after(60)
    assert not bench.aggregate.complete
    await bench.tell(2, *held("t1"))
    (update,) = await bench.after(0)
    assert bench.aggregate.complete
    assert (update.position, update.windows["7day"].sessions_completed) == (3, 1)


async def test_after_an_assignment_every_tutor_is_published_those_with_news_first(bench: Bench):
    await bench.tell(0, *(fact for n in range(5) for fact in known(f"t{n}")))
    assert len(await bench.after(1)) == 5
    await fakes.assign(bench.table, bench.broker, [0])  # it came back: as if to another worker
    bench.noted = Assignment(log_end=2, committed=1, last_as_of_us=0)
    assert not await bench.after(1)
    await bench.tell(1, *held("t3"))
    first, *others = await bench.after(1)
    assert (first.tutor_id, first.windows["7day"].sessions_completed) == ("t3", 1)
    assert sorted({update.tutor_id for update in [first, *others, *await bench.after(1)]}) == [
        f"t{n}" for n in range(5)
    ]


async def test_no_figure_is_published_before_every_home_has_passed_its_history(bench: Bench):
    bench.aggregate.needs_barriers = 2
    await bench.tell(0, *known("t1"), Barrier(1, 0))
    assert not await bench.after(60)
    await bench.tell(1, Barrier(1, 0), Barrier(0, 1))  # one again, and one of an epoch that is over
    assert not await bench.after(60)
    assert not bench.aggregate.complete
    await bench.tell(2, Barrier(1, 1))
    assert [update.tutor_id for update in await bench.after(0)] == ["t1"]
    await fakes.assign(bench.table, bench.broker, [0])  # and that is remembered
    assert [update.tutor_id for update in await bench.after(1)] == ["t1"]


async def test_time_alone_publishes_at_both_edges_of_a_window(bench: Bench):
    ripening = held("t1", NOW_US + 5 * SECOND_US, "future")
    leaving = held("t1", NOW_US + 9 * SECOND_US - 7 * DAY_US, "past")
    await bench.tell(0, *ripening, *leaving)
    assert [u.windows["7day"].sessions_completed for u in await bench.after(0)] == [1]
    assert not await bench.after(5)  # an instant is outside until it has passed
    assert [u.windows["7day"].sessions_completed for u in await bench.after(0.000_001)] == [2]
    assert not await bench.after(3.999_999)
    assert [u.windows["7day"].sessions_completed for u in await bench.after(0.000_001)] == [1]


async def test_every_tutor_is_refreshed_within_fifteen_minutes_and_not_all_at_once(bench: Bench):
    tutors = 1_000
    await bench.tell(0, *(fact for n in range(tutors) for fact in known(f"t{n}")))
    bench.aggregate.shards.clear()  # begun anew: all are published, paced
    for _ in range(20):
        await bench.after(0.25)
    assert len({update.tutor_id for update in bench.updates()}) == tutors
    await bench.after(30)  # the figures have settled
    refreshed: list[str] = []
    most = 0
    for _ in range(15 * 60):
        published = [update.tutor_id for update in await bench.after(1)]
        most, refreshed = max(most, len(published)), refreshed + published
    assert set(refreshed) == {f"t{n}" for n in range(tutors)}
    assert most <= 12, f"{tutors / REFRESH_SECONDS:.1f} a second are even"


async def test_a_fact_that_makes_merging_raise_is_refused_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    real = stored_facts.stored

    def stored(fact: Any) -> Any:
        if getattr(fact, "session_id", "") == "bad":
            raise KeyError(fact.tutor_id)
        return real(fact)

    monkeypatch.setattr(stored_facts, "stored", stored)
    await bench.tell(0, *known("t1"), *held("t1", session_id="bad"), *held("t1", session_id="good"))
    assert [u.windows["7day"].sessions_completed for u in await bench.after(0)] == [1]
    ((place, (reason, _)),) = bench.letters.by_place.items()
    assert (place[:2], reason) == (("facts", 0), "merge")


async def test_a_tutor_whose_windows_cannot_be_computed_stops_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    real = TutorFacts.windows

    def windows(self: TutorFacts, *rest: Any) -> Any:
        if self.tutor_id == "bad":
            raise ZeroDivisionError
        return real(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TutorFacts, "windows", windows)
        await bench.tell(0, *known("bad"), *known("good"))
        assert [update.tutor_id for update in await bench.after(0)] == ["good"]
        assert bench.counts.counted["unpublished"] == 1
        await bench.after(5)
        assert bench.counts.counted["unpublished"] == 1, "and not again and again"
    late = [await bench.after(REFRESH_SECONDS / 20) for _ in range(21)]
    assert "bad" in {update.tutor_id for published in late for update in published}


async def test_what_each_of_many_facts_raises_is_no_facts_fault_and_each_of_a_few_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def stored(fact: Any) -> Any:
        raise KeyError

    monkeypatch.setattr(stored_facts, "stored", stored)
    few = [*known("t1"), *known("t2")]
    assert len(few) < SURELY_OURS
    await bench.tell(0, *few)
    refused = dict(bench.letters.by_place)
    assert refused
    with pytest.raises(KeyError):
        await bench.tell(0, *few * SURELY_OURS)
    assert bench.letters.by_place == refused


async def test_many_facts_of_which_each_raises_something_else_are_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """One failure of ours would look alike in all of them."""

    def stored(fact: Any) -> Any:
        raise (KeyError if fact.tutor_id == "t0" else ZeroDivisionError)

    monkeypatch.setattr(stored_facts, "stored", stored)
    await bench.tell(0, *(fact for number in range(SURELY_OURS) for fact in known(f"t{number}")))
    assert bench.counts.counted["dead_letters", "facts", "merge"] == SURELY_OURS


async def test_the_queue_of_what_is_due_stays_as_short_as_the_list_of_tutors(bench: Bench):
    for second in range(300):
        await bench.tell(second, *known("t1"), *held("t2"))
        assert len(await bench.after(1)) == 2
    (shard,) = bench.aggregate.shards.values()
    assert len(shard.due) <= 4
    published = [await bench.after(REFRESH_SECONDS / 100) for _ in range(101)]
    # Each once when it has settled and once or twice in its turn, and not once for every time it was put off.
    assert 4 <= sum(map(len, published)) <= 6


class SlowClock(fakes.Clock):
    """Five milliseconds pass between two looks at it."""

    def __call__(self) -> int:
        self.now_us += 5_000
        return self.now_us


async def test_a_tick_computes_for_a_bounded_time_and_more_news_than_that_holds_up_nobody(bench: Bench):
    await bench.tell(0, *held("ripening", NOW_US + SECOND_US, "s1"))
    await bench.after(0)
    bench.aggregate.clock = bench.clock = SlowClock(NOW_US + SECOND_US // 2)
    published: list[list[str]] = []
    for tick in range(30):
        await bench.tell(1 + tick, *(fact for n in range(10) for fact in known(f"t{tick}-{n}")))
        published.append([update.tutor_id for update in await bench.after(0)])
    assert all(1 <= len(of_tick) <= 8 for of_tick in published)
    assert sum(of_tick.count("ripening") for of_tick in published) == 1
    news = [tutor_id for of_tick in published for tutor_id in of_tick if tutor_id != "ripening"]
    told = [f"t{tick}-{n}" for tick in range(30) for n in range(10)]
    assert news == told[: len(news)]  # who has waited longest goes first


async def test_as_of_never_goes_back_whatever_the_clock_does(bench: Bench):
    bench.noted = Assignment(log_end=0, committed=0, last_as_of_us=NOW_US + 40 * SECOND_US)  # a predecessor's clock
    await bench.tell(0, *known("t1"))
    (first,) = await bench.after(0)
    assert first.as_of_us == NOW_US + 40 * SECOND_US
    (second,) = await bench.after(REFRESH_SECONDS + 41)
    bench.clock.now_us -= 3600 * SECOND_US
    await bench.tell(1, *known("t2"))
    (third,) = await bench.after(0)
    assert first.fence < second.fence < third.fence
    assert third.as_of_us >= second.as_of_us


async def test_news_go_out_at_once_although_a_predecessors_clock_was_ahead(bench: Bench):
    ahead_us = NOW_US + 600 * SECOND_US
    bench.noted = Assignment(log_end=0, committed=0, last_as_of_us=ahead_us)
    await bench.tell(0, *known("t1"))
    (first,) = await bench.after(0)
    await bench.tell(1, *known("t1"))
    (second,) = await bench.after(1)
    assert first.as_of_us == second.as_of_us == ahead_us  # it never goes back
    assert first.fence < second.fence
    bench.clock.now_us -= 3600 * SECOND_US  # and when this worker's own is put back
    await bench.tell(2, *known("t1"))
    assert [update.fence for update in await bench.after(1)] == [(second.epoch, second.position + 1, ahead_us)]


async def test_a_record_that_the_broker_does_not_take_stops_the_worker(bench: Bench):
    failures: list[BaseException] = []
    bench.aggregate.on_failure = failures.append
    bench.broker.holding = True
    feeding = asyncio.create_task(bench.tell(0, *known("t1")))
    await turns()
    bench.broker.confirm()
    await feeding
    await bench.after(0)
    ((confirmation, _),) = bench.broker.unconfirmed
    confirmation.set_exception(ConnectionError("gone"))
    await asyncio.sleep(0)
    assert [str(failure) for failure in failures] == ["gone"]


async def test_the_clock_is_compared_with_the_brokers_where_that_gives_records_their_time(bench: Bench):
    bench.broker.holding = True
    feeding = asyncio.create_task(bench.tell(0, *known("t1")))
    await turns()
    bench.broker.confirm()
    await feeding
    for stamped_by, noted in (
        (CREATE_TIME, {}),
        (APPEND_TIME, {("clock_skew_seconds",): pytest.approx(6.0, abs=0.001)}),
    ):
        bench.aggregate.shards[0].tell("t1", 0, bench.clock.now_us)
        await bench.after(1)
        ((confirmation, _),) = bench.broker.unconfirmed
        behind_ms = bench.clock.now_us // 1000 - 6000
        confirmation.set_result(Record("metrics", 0, 0, None, timestamp=behind_ms, timestamp_type=stamped_by))
        bench.broker.unconfirmed.clear()
        await asyncio.sleep(0)
        assert bench.counts.gauges == noted


async def test_a_partition_that_left_is_neither_published_nor_answered_from(bench: Bench):
    await bench.tell(0, *known("t1"))
    assert await bench.after(0)
    await fakes.assign(bench.table, bench.broker, [])
    with pytest.raises(Revoked):
        bench.aggregate.current(0, "t1")
    assert not await bench.after(3600)
    assert not bench.aggregate.shards


def live(tutor_id: str, bench: Bench, session_id: str = "s9") -> list[Fact]:
    """A session that was said and sent just now."""
    now_us = bench.clock.now_us
    made = told(validated("sessions", session_payload(session_id, tutor_id, now_us - DAY_US, now_us)))
    return [msgspec.structs.replace(fact, time_ms=now_us // 1000) for fact in made]


async def settled(bench: Bench, seconds: float) -> dict[str, bool]:
    return {update.tutor_id: update.is_settled for update in await bench.after(seconds)}


async def test_figures_are_settled_a_while_after_history_has_flowed_in_and_are_told_then(bench: Bench):
    await bench.tell(0, *known("t1"))
    bench.clock.now_us += 40 * SECOND_US  # what an assignment begins with is over
    await bench.tell(1, *live("t1", bench))
    assert await settled(bench, 1) == {"t1": True}
    old = told(validated("sessions", session_payload("s2", "t1", bench.clock.now_us - DAY_US, NOW_US - DAY_US)))
    await bench.tell(2, *(msgspec.structs.replace(fact, time_ms=bench.clock.now_us // 1000) for fact in old))
    assert await settled(bench, 1) == {"t1": False}
    assert await settled(bench, 28) == {}
    assert await settled(bench, 1.5) == {"t1": True}, "without any further event"


async def test_who_is_behind_is_behind_with_everybody(bench: Bench):
    await bench.tell(0, *known("t1"), *known("t2"))
    bench.clock.now_us += 40 * SECOND_US
    late = [msgspec.structs.replace(f, time_ms=f.time_ms - 31_000) for f in live("t1", bench)]
    await bench.tell(1, *live("t2", bench), *late)
    assert await settled(bench, 1) == {"t1": False, "t2": False}
