"""The simulated platform: deterministic, acceptable to our own parser, and visibly uneven."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from models.fates import Accepted
from models.parsing import Parser
from tests.oracle import Oracle, Payload
from tutormax_streams.simulation import FALLING_TUTOR_ID, Record, Trickle, encode, history

NOW = datetime(2026, 11, 23, 15, 4, 5, tzinfo=UTC)
KIND = {"tutors": "tutor", "sessions": "session", "feedback": "feedback", "tutor-events": "tutor_event"}
KNOWN_AT = {
    "tutors": "updated_at",
    "sessions": "updated_at",
    "feedback": "submitted_at",
    "tutor-events": "event_timestamp",
}
TIERS = {"Exemplary", "Strong", "Developing", "Needs Attention", "At Risk"}


def us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def known_at(record: Record) -> datetime:
    return datetime.fromisoformat(record.payload[KNOWN_AT[record.topic]])


def trickled(seconds: int, tutors: int = 50) -> list[Record]:
    return Trickle(seed=1, tutors=tutors, start=NOW).due(NOW + timedelta(seconds=seconds))


def judged(records: list[Record], now: datetime) -> Oracle:
    payloads: dict[str, list[Payload]] = {topic: [] for topic in KIND}
    for record in records:
        payloads[record.topic].append(record.payload)
    return Oracle(payloads, us(now))


def test_the_same_seed_tells_the_same_story_and_another_seed_another() -> None:
    assert list(history(1, 20, 10, NOW)) == list(history(1, 20, 10, NOW))
    assert list(history(1, 20, 10, NOW)) != list(history(2, 20, 10, NOW))
    assert trickled(30) == trickled(30)


@pytest.mark.parametrize("live", [False, True])
def test_our_parser_accepts_everything_without_a_warning(live: bool) -> None:
    records = trickled(120) if live else list(history(3, 60, 30, NOW))
    parser, now = Parser(), NOW + timedelta(seconds=120 if live else 0)
    for topic, _, value in map(encode, records):
        fate = parser.parse(KIND[topic], value, us(now))
        assert isinstance(fate, Accepted), fate
        assert fate.warnings == (), value


def test_nothing_is_known_before_it_happened_and_all_of_it_in_order() -> None:
    records = list(history(1, 30, 20, NOW))
    leading = list(itertools.takewhile(lambda record: record.topic == "tutors", records))
    assert len(leading) == 30
    times = [known_at(record) for record in records[30:]]
    assert times == sorted(times)
    assert times[-1] <= NOW
    assert times[0] >= NOW - timedelta(days=22)


def test_history_has_the_platforms_proportions() -> None:
    counts = Counter(record.topic for record in history(1, 100, 90, NOW))
    assert counts["tutors"] == 100
    assert 10_000 < counts["sessions"] < 25_000
    assert 0.75 < counts["feedback"] / counts["sessions"] < 0.85
    assert counts["tutor-events"] > 1_000


def test_the_population_spreads_over_all_five_tiers() -> None:
    oracle = judged(list(history(1, 100, 30, NOW)), NOW)
    tiers = Counter(oracle.metrics(tutor, us(NOW))["30day"]["performance_tier"] for tutor in oracle.tutors)
    assert set(tiers) == TIERS
    assert min(tiers.values()) >= 5


def test_one_tutor_falls_a_tier_within_a_minute() -> None:
    past = list(history(1, 50, 30, NOW))
    later = NOW + timedelta(seconds=45)
    before = judged(past, NOW).metrics(FALLING_TUTOR_ID, us(NOW))
    after = judged(past + trickled(45), later).metrics(FALLING_TUTOR_ID, us(later))
    assert before["7day"]["performance_tier"] == before["30day"]["performance_tier"] == "Exemplary"
    assert after["7day"]["performance_tier"] in {"Needs Attention", "At Risk"}
    assert after["30day"]["performance_tier"] in {"Needs Attention", "At Risk"}


def test_a_trickle_depends_on_time_alone_not_on_how_often_it_is_asked() -> None:
    often = Trickle(seed=1, tutors=50, start=NOW)
    steps = [often.due(NOW + timedelta(milliseconds=100 * step)) for step in range(601)]
    assert list(itertools.chain.from_iterable(steps)) == trickled(60)
    assert len(trickled(60)) == pytest.approx(60 * 20, rel=0.05)


def test_a_trickle_does_what_real_producers_do() -> None:
    records = trickled(300)
    assert {record.topic for record in records} == set(KIND)
    values = Counter(encode(record)[2] for record in records)
    assert sum(count - 1 for count in values.values()) > 20, "duplicates"
    tutors_of: dict[str, set[str]] = {}
    versions_of: dict[str, set[str]] = {}
    for record in records:
        if record.topic == "sessions":
            tutors_of.setdefault(record.key, set()).add(record.payload["tutor_id"])
            versions_of.setdefault(record.key, set()).add(record.payload["updated_at"])
    assert sum(len(tutors) > 1 for tutors in tutors_of.values()) > 20, "moves"
    assert sum(len(versions) > 1 for versions in versions_of.values()) > 100, "corrections"
    assert all(known_at(record) <= NOW + timedelta(seconds=300) for record in records)
