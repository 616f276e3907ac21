"""The state of a deployment: what one worker says of itself, what is made of all of it, and who does not answer."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.types import TP

from agents.holding import Holding
from models.breaker import Breaker
from tests.web.test_access import KEY, STAFF, TUTOR, Users, signed
from tutormax_streams.backlog import Backlog
from tutormax_streams.batches.delivery import Position
from tutormax_streams.kafka import KafkaAway
from tutormax_streams.settings import Settings
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web import worker_state
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.deployment import Gone, Silent, deployment
from tutormax_streams.web.guard import USER, Limiter, guard
from tutormax_streams.web.health import Health
from tutormax_streams.web.lookups import HOPS
from tutormax_streams.web.members import FRESH_SECONDS, Members, url_of
from tutormax_streams.web.operations import GONE_SECONDS, PATH, Operations
from tutormax_streams.web.worker_state import PERIOD_SECONDS, WorkerState, quantile


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """What a worker knows, without a worker."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(worker_name="w1", web_url="http://w1:6066", **settings)
        self.apps: list[Any] = []
        self.health = Health()
        self.telemetry = Telemetry()
        self.recovery = Backlog("recovery of tables")
        self.backlog = Backlog("backlog")
        self.breakers = {"tutormax.sessions": Breaker()}
        self.holding: Holding | None = Holding(self.telemetry)
        self.held: Any = lambda: {3: False, 1: True}
        self.reasons: list[str] = []
        self.clock: Callable[[], int] = lambda: 0
        self.health.watch("stream", lambda: self.reasons)


def test_what_a_worker_says_of_itself():
    worker, clock = Worker(), Clock()
    state = WorkerState(worker, clock)
    worker.telemetry.set("clock_skew_seconds", -0.25)
    for name, labels in (("sink_retries", {"sink": "flush"}), ("parked", {"what": "metrics"}), ("fenced", {})):
        worker.telemetry.count(name, 2, **labels)
    worker.recovery.look(0.0, 400)
    worker.recovery.look(1.0, 300)
    clock.now += 12.5
    said = state.answer()
    assert {name: said[name] for name in ("name", "url", "roles", "uptime_seconds", "clock_skew_seconds")} == {
        "name": "w1", "url": "http://w1:6066", "roles": ["stream", "sink"], "uptime_seconds": 12.5,
        "clock_skew_seconds": -0.25,
    }  # fmt: skip
    assert said["tables"] == {"partitions": [1, 3], "serving": [1]}
    assert said["breakers"] == {"tutormax.sessions": "closed"}
    assert said["sink"] == {
        "waiting": [], "retries": 2, "parked": 2, "unparked": 0, "fenced": 2, "flushed_tutors": 0,
    }  # fmt: skip
    assert said["recovery"] == {
        "remaining_records": 300, "most_records": 400, "records_per_second": 100.0, "seconds_left": 3.0,
    }  # fmt: skip
    assert said["backlog"] is None
    assert said["readiness"] == {"stream": {"ready": True, "reasons": [], "seconds": None}}
    assert said["freshness"]["p50_seconds"] is None
    assert said["oldest_uncommitted_seconds"] == 0.0
    worker.held, worker.holding = None, None
    assert [state.answer()[name] for name in ("tables", "sink")] == [None, None]


def test_since_when_the_sink_waits():
    worker, clock = Worker(), Clock()
    state = WorkerState(worker, clock)
    assert worker.holding is not None
    worker.holding.reasons["flush"] = "connection refused"
    state.look()
    clock.now += 7
    state.look()
    assert state.answer()["sink"]["waiting"] == [{"sink": "flush", "reason": "connection refused", "seconds": 7.0}]
    del worker.holding.reasons["flush"]
    state.look()
    clock.now += 3
    worker.holding.reasons["flush"] = "again"
    state.look()
    assert state.answer()["sink"]["waiting"][0]["seconds"] == 0.0


def after_a_history(seconds: float) -> tuple[Worker, Clock, WorkerState]:
    """A worker that has taken in 100 events, each of them so old when its row was committed."""
    worker, clock = Worker(), Clock()
    state = WorkerState(worker, clock)
    for _ in range(100):
        worker.telemetry.observe("freshness", seconds)
    worker.telemetry.count("events", 100, topic="sessions", fate="accepted")
    return worker, clock, state


def test_freshness_and_dead_letters_are_those_of_the_last_minutes():
    worker, clock, state = after_a_history(50.0)
    worker.telemetry.count("dead_letters", 4, topic="sessions", reason="invalid")
    for _ in range(int(PERIOD_SECONDS) + 60):
        clock.now += 1
        state.look()
    for _ in range(10):
        worker.telemetry.observe("freshness", 0.4)
    worker.telemetry.count("events", 30, topic="sessions", fate="accepted")
    worker.telemetry.count("events", 10, topic="feedback", fate="accepted_with_warnings")
    worker.telemetry.count("events", 2, topic="feedback", fate="dead_letter")
    worker.telemetry.count("dead_letters", 1, topic="sessions", reason="invalid")
    worker.telemetry.count("dead_letters", 2, topic="feedback", reason="not_json")
    said = state.answer()
    assert said["freshness"]["events"] == 40, "and not how many rows they came to"
    assert 0.25 < said["freshness"]["p50_seconds"] < said["freshness"]["p99_seconds"] <= 0.5
    assert PERIOD_SECONDS <= said["freshness"]["period_seconds"] <= PERIOD_SECONDS + 20
    assert said["dead_letters"] == [
        {"topic": "feedback", "reason": "not_json", "count": 2, "recent": 2},
        {"topic": "sessions", "reason": "invalid", "count": 5, "recent": 1},
    ]


def test_what_a_history_took_is_out_of_the_last_minute_when_the_minute_is_over():
    worker, clock, state = after_a_history(20.0)
    assert state.answer()["freshness"]["last_minute"]["events"] == 100
    for second in range(1, 91):
        clock.now += 1
        state.look()
        worker.telemetry.observe("freshness", 0.4)
        worker.telemetry.count("events", topic="sessions", fate="accepted")
        said = state.answer()["freshness"]
        assert said["last_minute"]["period_seconds"] <= 60
        assert said["last_minute"]["events"] <= 61 or second <= 60
    assert said["p50_seconds"] > 10, "of the last five minutes"
    assert (said["events"], said["last_minute"]["p50_seconds"] < 1) == (190, True)
    assert 50 <= said["last_minute"]["period_seconds"] == said["last_minute"]["events"] - 1
    other = said_by("b", [0], freshness=said)
    older = said_by("a", [1])  # says nothing of its last minute
    together = deployment([older, other], [], OWNERS, 4)["freshness"]
    del said["last_minute"]["buckets"]
    assert (together["events"], together["last_minute"]) == (890, said["last_minute"])


def test_what_nobody_delivers_has_an_age_all_the_same(monkeypatch: pytest.MonkeyPatch):
    stalled = Position(5, 5, 9, 0, None, behind_seconds=40.0)
    slow = Position(5, 9, 9, 1, 1_000, behind_seconds=3.0)
    consumer = SimpleNamespace(
        batch_topics=["stalled", "slow"], positions=lambda: {TP("stalled", 0): stalled, TP("slow", 0): slow}
    )
    monkeypatch.setattr(worker_state, "batch_consumer", lambda app: consumer)
    worker = Worker()
    worker.apps, worker.clock = [object()], lambda: 8_000_000
    said = WorkerState(worker, Clock()).answer()
    assert {topic: (lag["lag_records"], lag["lag_seconds"]) for topic, lag in said["topics"].items()} == {
        "stalled": (4, 40.0), "slow": (4, 7.0),
    }  # fmt: skip
    assert said["oldest_uncommitted_seconds"] == 40.0


def test_quantiles_lie_in_their_buckets():
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, float("inf"): 0.0}, 0.5) is None
    assert quantile({1.0: 0.0, 2.0: 10.0, float("inf"): 10.0}, 0.5) == 1.5
    assert quantile({1.0: 0.0, 2.0: 10.0, float("inf"): 20.0}, 0.99) == 2.0, "no more is known of what took longer"


# -- all workers together ---------------------------------------------------------------------------------------------


def said_by(name: str, partitions: list[int], **changes: Any) -> dict[str, Any]:
    """What a worker without troubles says."""
    ready = {"ready": True, "reasons": [], "seconds": None}
    return {
        "name": name,
        "url": f"http://{name}:6066",
        "roles": ["stream", "sink"],
        "versions": {"tutormax-streams": "0.1.0"},
        "uptime_seconds": 4000.0,
        "started": True,
        "readiness": {"stream": dict(ready), "sink": dict(ready)},
        "topics": {
            "tutormax.sessions": {"partitions": partitions[:1], "lag_records": 3, "lag_seconds": 0.5},
            "tutormax.facts": {"partitions": partitions, "lag_records": 10, "lag_seconds": 0.25},
        },
        "oldest_uncommitted_seconds": 0.5,
        "tables": {"partitions": partitions, "serving": partitions},
        "freshness": {"buckets": [[0.5, 40], [1, 90], [None, 100]], "events": 700, "period_seconds": 300.0},
        "recovery": None,
        "backlog": None,
        "dead_letters": [{"topic": "tutormax.sessions", "reason": "invalid", "count": 7, "recent": 0}],
        "sink": {"waiting": [], "retries": 1, "parked": 2, "unparked": 1, "fenced": 0, "flushed_tutors": 50},
        "breakers": {"tutormax.sessions": "closed"},
        "clock_skew_seconds": 0.01,
        **copy.deepcopy(changes),
    }


OWNERS = {0: "http://a:6066", 1: "http://a:6066", 2: "http://b:6066", 3: "http://b:6066"}


def texts(answer: dict[str, Any]) -> list[str]:
    return [problem["text"] for problem in answer["problems"]]


def test_without_troubles_all_is_well_and_figures_are_put_together():
    answer = deployment([said_by("b", [2, 3]), said_by("a", [0, 1])], [], OWNERS, 4)
    assert (answer["all_well"], answer["problems"]) == (True, [])
    assert [worker["name"] for worker in answer["workers"]] == ["a", "b"]
    assert [(entry["partition"], entry["owner"], entry["state"]) for entry in answer["partitions"]] == [
        (0, "a", "serving"), (1, "a", "serving"), (2, "b", "serving"), (3, "b", "serving"),
    ]  # fmt: skip
    assert answer["topics"]["tutormax.facts"] == {
        "partitions": 4, "lag_records": 20, "lag_seconds": 0.25, "breaker": None,
    }  # fmt: skip
    assert answer["topics"]["tutormax.sessions"]["breaker"] == "closed"
    assert answer["freshness"].pop("last_minute")["events"] == 0
    assert answer["freshness"] == {"p50_seconds": 0.6, "p99_seconds": 1.0, "events": 1400, "period_seconds": 300.0}
    assert answer["dead_letters"] == [{"topic": "tutormax.sessions", "reason": "invalid", "count": 14, "recent": 0}]
    assert answer["sink"] == {
        "workers": 2, "waiting": [], "retries": 2, "parked": 4, "unparked": 2, "fenced": 0, "flushed_tutors": 100,
    }  # fmt: skip
    assert answer["recovery"] is None


def test_a_worker_that_does_not_answer_is_named_with_what_it_holds():
    answer = deployment([said_by("a", [0, 1])], [Silent("http://b:6066", None, 12.34)], OWNERS, 5)
    assert answer["workers"][1] == {"url": "http://b:6066", "answers": False, "name": None, "silent_seconds": 12.3}
    assert [entry["state"] for entry in answer["partitions"]] == [
        "serving", "serving", "no answer", "no answer", "no owner",
    ]  # fmt: skip
    assert texts(answer) == ["http://b:6066: no answer for 12 s", "1 of 5 partitions has no owner"]
    assert not answer["all_well"]
    named = deployment([said_by("a", [0, 1])], [Silent("http://b:6066", "b", 1.0)], OWNERS, 4)
    assert (named["workers"][1]["name"], named["partitions"][3]["owner"]) == ("b", "b")
    assert texts(named) == ["b: no answer for 1 s"]


def test_a_worker_that_has_left_is_told_for_a_while():
    answer = deployment([said_by("a", [0, 1, 2, 3])], [], {}, 4, [Gone("b", 34.4)])
    assert answer["problems"] == [{"level": "odd", "text": "b left 34 s ago"}]
    assert [worker["name"] for worker in answer["workers"]] == ["a"]


def test_a_worker_without_tables_finds_owners_in_what_the_others_say():
    sink = said_by("s", [], roles=["sink"], tables=None)
    answer = deployment([sink, said_by("a", [0, 1, 2, 3], roles=["stream"], sink=None)], [], {}, 4)
    assert [entry["owner"] for entry in answer["partitions"]] == ["a"] * 4
    assert answer["all_well"]


def test_what_is_wrong_is_said_in_words_the_worst_first():
    unready = {"stream": {"ready": False, "reasons": ["the group is rebalancing"], "seconds": 12.0}}
    waiting = [{"sink": "flush", "reason": "connection refused", "seconds": 5.0}]
    recovery = {"remaining_records": 10, "most_records": 20, "records_per_second": 5.0, "seconds_left": 2.0}
    unknown = {**recovery, "records_per_second": -1.0, "seconds_left": None}
    backlog = {**recovery, "remaining_records": 90_000}
    letters = [{"topic": "tutormax.sessions", "reason": "invalid", "count": 9, "recent": 1}]
    late = {"tutormax.facts": {"partitions": [0], "lag_records": 90_000, "lag_seconds": 75.0}}
    a = said_by("a", [0, 1], readiness=unready, recovery=recovery, dead_letters=letters, topics=late)
    b = said_by("b", [2, 3], recovery=recovery, backlog=backlog, breakers={"tutormax.sessions": "open"})
    b |= {"versions": {"tutormax-streams": "0.2.0"}, "tables": {"partitions": [2, 3], "serving": [3]}}
    answer = deployment([a, b], [], OWNERS, 4)
    assert [(problem["level"], problem["text"]) for problem in answer["problems"]] == [
        ("bad", "a, stream (12 s): the group is rebalancing"),
        ("odd", "tutormax.facts is 75 s behind"),
        ("odd", "90,000 records wait"),
        ("odd", "1 event was refused in the last minutes"),
        ("odd", "workers run different versions: 0.1.0, 0.2.0"),
    ]
    assert answer["partitions"][2]["state"] == "catching up"
    assert answer["topics"]["tutormax.sessions"]["breaker"] == "open"
    assert answer["recovery"] == {
        "remaining_records": 20, "most_records": 40, "records_per_second": 10.0, "seconds_left": 2.0,
    }  # fmt: skip
    assert deployment([{**a, "recovery": unknown}, b], [], OWNERS, 4)["recovery"]["seconds_left"] is None
    held = deployment([{**a, "sink": {**a["sink"], "waiting": waiting}}], [], OWNERS, 4)
    assert held["sink"]["waiting"] == [{"worker": "a", **waiting[0]}]
    nobody = deployment([said_by("a", [0, 1, 2, 3], roles=["stream"], sink=None)], [], {}, 4)
    assert (nobody["sink"], texts(nobody)) == (
        None, ["no worker has the role sink: nothing is written to PostgreSQL"],
    )  # fmt: skip


# -- asking the others ------------------------------------------------------------------------------------------------


class Known:
    """The members of a deployment."""

    def __init__(self, *urls: str) -> None:
        self.members = set(urls)

    async def urls(self) -> set[str]:
        return self.members


@pytest.fixture
async def others():
    """Another worker, and one that answers nothing of use; what they were asked with."""
    asked: list[dict[str, str]] = []

    async def good(request: web.Request) -> web.Response:
        asked.append(dict(request.headers))
        return web.json_response({"success": True, "worker": said_by("b", [2, 3])})

    async def bad(request: web.Request) -> web.Response:
        return web.json_response({"worker": None} if "X" in request.headers else {"success": False}, status=200)

    servers = []
    for handle in (good, bad):
        app = web.Application()
        app.add_routes([web.get(PATH, handle)])
        servers.append(TestServer(app))
        await servers[-1].start_server()
    yield [str(server.make_url("")).rstrip("/") for server in servers], asked, servers
    for server in servers:
        await server.close()


async def test_all_others_are_asked_with_the_callers_token_and_none_of_them_twice(others: Any):
    (good, bad), asked, _ = others
    clock = Clock()
    worker = Worker()
    worker.held = lambda: {0: True, 1: True}
    owners = {0: "http://w1:6066", 1: "http://w1:6066", 2: good, 3: good}
    known: Any = Known("http://w1:6066", good, bad, "http://127.0.0.1:1")
    operations = Operations(WorkerState(worker), known, lambda: owners, 4, lambda: 1_764_504_000_000_000, clock)
    app = web.Application(middlewares=[guard(Access(KEY, Users()), Limiter(100), lambda: 0, Cors())])
    app.add_routes([web.get(PATH, operations.state)])
    bearer = {"Authorization": f"Bearer {signed({'sub': str(STAFF.user_id)})}"}
    async with TestClient(TestServer(app)) as client:
        began = time.monotonic()
        answer = await client.get(PATH, headers=bearer)
        assert time.monotonic() - began < 5
        body = await answer.json()
        assert (answer.status, body["asked"], body["timestamp"]) == (200, "w1", "2025-11-30T12:00:00")
        assert [(told["url"], told["answers"]) for told in body["workers"]] == [
            (good, True), ("http://w1:6066", True), ("http://127.0.0.1:1", False), (bad, False),
        ]  # fmt: skip
        assert [(entry["owner"], entry["state"]) for entry in body["partitions"]] == [
            ("w1", "serving"), ("w1", "serving"), ("b", "serving"), ("b", "serving"),
        ]  # fmt: skip
        assert (asked[0]["Authorization"], asked[0][HOPS]) == (bearer["Authorization"], "1")
        passed_on = await (await client.get(PATH, headers={**bearer, HOPS: "1"})).json()
        assert (passed_on["worker"]["name"], len(asked)) == ("w1", 1), "nobody else is asked"
        clock.now += 8
        known.members = {"http://w1:6066", good, bad}
        body = await (await client.get(PATH, headers=bearer)).json()
        assert [told["url"] for told in body["workers"]] == [good, "http://w1:6066", bad]
        tutor = {"Authorization": f"Bearer {signed({'sub': str(TUTOR.user_id)})}"}
        assert [(await client.get(PATH, headers=headers)).status for headers in ({}, tutor)] == [401, 403]
    await operations.close()


async def test_since_when_a_worker_has_not_answered(others: Any):
    (good, _), _, servers = others
    clock, members = Clock(), Known(good)
    known: Any = members
    worker = Worker()
    worker.held = lambda: dict.fromkeys(range(4), True)
    operations = Operations(WorkerState(worker), known, dict, 4, lambda: 0, clock)

    @web.middleware
    async def as_staff(request: web.Request, handler: Any) -> Any:
        request[USER] = STAFF
        return await handler(request)

    app = web.Application(middlewares=[as_staff])
    app.add_routes([web.get(PATH, operations.state)])
    async with TestClient(TestServer(app)) as client:
        assert [told["answers"] for told in (await (await client.get(PATH)).json())["workers"]] == [True, True]
        await servers[0].close()
        clock.now += 9
        silent = (await (await client.get(PATH)).json())["workers"][-1]
        assert silent == {"url": good, "answers": False, "name": "b", "silent_seconds": 9.0}
        members.members = set()
        assert texts(await (await client.get(PATH)).json()) == ["b left 9 s ago"]
        clock.now += GONE_SECONDS
        assert texts(await (await client.get(PATH)).json()) == []
    await operations.close()


async def test_a_worker_that_stops_answers_for_itself(others: Any):
    """Its web server outlives its client by a few requests."""
    (good, _), _, _ = others
    known: Any = Known(good)
    operations = Operations(WorkerState(Worker()), known, dict, 4, lambda: 0, Clock())
    assert await operations._ask(good, {}) is not None
    await operations.close()
    assert await operations._ask(good, {}) is None


def test_the_url_of_a_member_of_a_group():
    def metadata(user_data: bytes) -> bytes:
        return bytes(ConsumerProtocolMemberMetadata(1, ["tutormax.facts"], user_data).encode())

    assert url_of(metadata(b'{"assignment": {}, "url": "http://w1:6066"}')) == "http://w1:6066"
    assert [url_of(found) for found in (metadata(b""), metadata(b"[1]"), metadata(b'{"url": 3}'), b"", b"\x00")] == [
        None
    ] * 5


async def test_members_elsewhere_are_asked_for_now_and_then_and_remembered_while_their_group_rebalances():
    clock = Clock()
    members = Members(Settings(web_url="http://w1:6066"), [], clock)
    asked: list[str] = []
    told: dict[str, Any] = {
        "tutormax-stream": ["http://w1:6066", "http://w2:6066"],
        "tutormax-sink": ["http://s1:6066"],
    }

    async def described(group: str) -> Any:
        asked.append(group)
        if isinstance(told[group], Exception):
            raise told[group]
        return told[group]

    members._described = described  # type: ignore[method-assign]
    everybody = {"http://w1:6066", "http://w2:6066", "http://s1:6066"}
    assert await members.urls() == everybody
    assert await members.urls() == everybody
    assert sorted(asked) == ["tutormax-sink", "tutormax-stream"], "once each"
    told |= {"tutormax-stream": None, "tutormax-sink": KafkaAway("no broker")}
    clock.now += FRESH_SECONDS
    assert await members.urls() == everybody
    told["tutormax-sink"] = []
    clock.now += FRESH_SECONDS
    assert await members.urls() == everybody - {"http://s1:6066"}
