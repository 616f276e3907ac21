"""What clients are told of changes, and where they may go on: the feed over records that are handed to it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from models import alerts
from models.metrics import WindowInputs, encode, metrics_updated, window_metrics
from tests.web.test_alert_messages import CRITICAL
from tutormax_streams.settings import Settings
from tutormax_streams.web import feed as feed_module
from tutormax_streams.web.answers import WINDOWS
from tutormax_streams.web.feed import MOST_RECORDS, QUEUE, Feed, Listener, Message, Standings
from tutormax_streams.web.push import _messages

GOOD, BAD = WindowInputs(scheduled=1, on_time=1, ratings=1, rating_sum=5), WindowInputs(scheduled=1, rescheduled=1)


def record(position: int, inputs: WindowInputs = GOOD, tutor: str = "t1", name: str | None = "Ada") -> bytes:
    windows = {window: window_metrics(window, window, inputs, "normalized", login_known=False) for window in WINDOWS}
    return encode(metrics_updated(tutor, windows, as_of_us=position, epoch=1, position=position, tutor_name=name))


class Played:
    """A feed that reads nothing by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def nothing(_: Feed) -> None: ...

        monkeypatch.setattr(Feed, "_read", nothing)
        self.feed = Feed(Settings(), "metrics", "alerts", 2)
        self.positions = [0, 0]
        self.standings = Standings()

    def begin(self) -> None:
        """The log's end as of the start has been reached."""
        self.feed._floor, self.feed._newest = tuple(self.positions), self.positions

    def take(self, partition: int, value: bytes | None, key: bytes = b"t1") -> None:
        self.positions[partition] += 1
        self.feed._take(key, value, self.standings, self.positions)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def told(listener: Listener) -> list[Message]:
    return [listener.queue.get_nowait() for _ in range(listener.queue.qsize())]


def kinds(messages: list[Message]) -> list[str]:
    return [message.event for message in messages]


async def test_what_was_there_before_is_no_change_and_what_comes_after_is(played: Played):
    async with played.feed.listen() as listener:
        played.take(0, record(1))
        played.begin()
        assert told(listener) == []
        played.take(0, record(2))
        (message,) = told(listener)
        data: dict[str, Any] = json.loads(message.data)
        assert (message.event, message.id) == ("metrics", "2.0")
        assert (data["tutor_id"], data["tutor_name"], set(data["windows"])) == ("t1", "Ada", set(WINDOWS))
        assert data["windows"]["7day"]["avg_rating"] == 5.0


async def test_alerts_are_told_while_the_feed_still_reads_what_was_there(played: Played):
    async with played.feed.listen() as listener:
        played.feed._take_alert(alerts.encode(CRITICAL), [0, 1])
        (message,) = told(listener)
        assert (message.event, message.id) == ("alert", ""), "nobody can go on from here yet"


async def test_a_change_of_tier_is_told_and_a_record_that_is_behind_is_not(played: Played):
    played.begin()
    async with played.feed.listen() as listener:
        played.take(0, record(5))
        played.take(1, record(6, BAD))
        assert kinds(told(listener)[1:]) == ["metrics", "tier"]
        played.take(0, record(5))  # a zombie's
        played.take(0, b"rubbish")
        played.take(0, record(7, name=None))
        assert told(listener) == []
        played.take(0, None)
        played.take(0, record(1))
        assert kinds(told(listener)) == ["metrics"], "a tutor who comes again has no tier to change from"


async def test_a_client_goes_on_where_it_left_off_even_within_a_record(played: Played):
    played.begin()
    async with played.feed.listen() as first:
        for number, inputs in enumerate((GOOD, GOOD, BAD, GOOD), start=1):
            played.take(number % 2, record(number, inputs))
        seen = told(first)
    assert kinds(seen) == ["metrics", "metrics", "metrics", "tier", "metrics", "tier"]
    last_id = ""
    for number, message in enumerate(seen, start=1):
        last_id = message.id or last_id
        if not last_id:
            continue
        async with played.feed.listen(last_id) as again:
            missed = told(again)
        assert missed[-len(seen[number:]) :] == seen[number:] if seen[number:] else not missed
        assert len(missed) - len(seen[number:]) <= 1, "at most the other half of its record comes once more"


@pytest.mark.parametrize("last_id", ["rubbish", "1", "1.2.3", "-1.0", "0.0", "3.5", "9.9"])
async def test_who_asks_for_what_is_not_remembered_loads_everything_anew(played: Played, last_id: str):
    """Or for what lies behind the end: the topic was made anew."""
    played.positions = [3, 3]
    played.begin()
    played.take(1, b"rubbish")
    async with played.feed.listen(last_id) as listener:
        assert kinds(told(listener)) == ["reset"]


async def test_who_missed_too_much_loads_everything_anew(played: Played):
    played.begin()
    for number in range(1, QUEUE):
        played.take(0, record(number))
    async with played.feed.listen("0.0") as listener:
        assert kinds(told(listener)) == ["reset"]
        assert not listener.dropped.is_set()


async def test_what_is_forgotten_moves_the_floor(played: Played, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(feed_module, "REMEMBERED", 3)
    played.feed._messages = type(played.feed._messages)(maxlen=3)
    played.begin()
    for number in range(1, 6):
        played.take(0, record(number))
    async with played.feed.listen("2.0") as listener:
        assert [message.id for message in told(listener)] == ["3.0", "4.0", "5.0"]
    async with played.feed.listen("1.0") as listener:
        assert kinds(told(listener)) == ["reset"]


async def test_a_slow_client_is_dropped_and_nobody_waits_for_it(played: Played):
    played.begin()
    async with played.feed.listen() as slow, played.feed.listen() as quick:
        for number in range(1, QUEUE + 2):
            played.take(0, record(number))
            told(quick)
        assert slow.dropped.is_set()
        assert not quick.dropped.is_set()


async def test_reading_begins_again_for_who_comes_right_after_it_was_stopped(played: Played):
    async with played.feed.listen():
        pass
    played.feed._stop()
    async with played.feed.listen():
        assert played.feed._reading is not None
        assert not played.feed._reading.cancelling()
    await played.feed.close()


class Consumer:
    """Kafka for one partition of each topic: nothing in them but what `batches` gives, one after the other."""

    def __init__(self, *batches: dict[TopicPartition, list[Any]]) -> None:
        self._batches = list(batches)
        self.at = dict.fromkeys((METRICS, ALERTS), 0)

    def assign(self, tps: list[TopicPartition]) -> None: ...

    def seek(self, tp: TopicPartition, position: int) -> None: ...

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {METRICS: 1, ALERTS: 0}

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {METRICS: 0}

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        if not self._batches:
            await asyncio.sleep(3600)
        return self._batches.pop(0)


METRICS, ALERTS = TopicPartition("metrics", 0), TopicPartition("alerts", 0)


async def test_a_listener_that_came_before_the_feed_stands_is_told_to_load_anew(monkeypatch: pytest.MonkeyPatch):
    """What changed while the log was read up to its end as of the start was not told, so that is to be looked up."""
    played = Played(monkeypatch)
    feed = Feed(Settings(), "metrics", "alerts", 1)
    old, new = (SimpleNamespace(offset=at, key=b"t1", value=record(at + 1)) for at in (0, 1))
    async with feed.listen() as listener:
        following = asyncio.create_task(feed._follow(Consumer({METRICS: [old]}, {METRICS: [new]})))
        assert (await asyncio.wait_for(listener.queue.get(), 5)).event == "reset"
        assert (await asyncio.wait_for(listener.queue.get(), 5)).event == "metrics"
        following.cancel()
    assert played.feed is not feed


async def test_a_client_that_reads_at_once_is_not_dropped_in_a_burst_and_one_that_does_not_is(
    monkeypatch: pytest.MonkeyPatch,
):
    """A fetch may hold thousands of records, and they come in batches without a pause."""
    monkeypatch.setattr(feed_module, "GIVE_WAY_SECONDS", 0.5)  # on a machine that does much else
    played = Played(monkeypatch)
    feed = Feed(Settings(), "metrics", "alerts", 1)
    first, *burst = (SimpleNamespace(offset=at, key=b"t1", value=record(at + 1)) for at in range(3_001))
    batches = [[first], *(burst[at : at + MOST_RECORDS] for at in range(0, len(burst), MOST_RECORDS))]
    async with feed.listen() as prompt, feed.listen() as slow:
        following = asyncio.create_task(feed._follow(Consumer(*({METRICS: batch} for batch in batches))))
        read = 0
        async for message in _messages(prompt):
            await asyncio.sleep(0)  # writing takes turns of the loop too
            read += message is not None and message.event == "metrics"
            if read == len(burst):
                break
        assert read == len(burst)
        assert not prompt.dropped.is_set()
        assert slow.dropped.is_set()
        following.cancel()
    assert played.feed is not feed
