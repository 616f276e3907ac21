"""A stream that nobody can read is not begun, and one that nobody reads is ended; what sockets are told of totals."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from agents.ports import SinkUnavailable
from tests.flow.driver import eventually
from tests.flow.streams import NeverReads
from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.settings import Settings
from tutormax_streams.web import push as push_module
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import RESET, Feed, Message
from tutormax_streams.web.guard import Limiter, guard
from tutormax_streams.web.push import Push

CHANGE = orjson.dumps(
    {"tutor_id": "t1", "tutor_name": "x" * 20_000, "as_of": "2026-01-31T12:00:00.000000Z", "windows": {"7day": {}}}
)


async def totals() -> dict[str, int]:
    return {}


class Totals:
    """Those of a database that takes its time."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None

    async def __call__(self) -> dict[str, int]:
        self.asked += 1
        await asyncio.sleep(0.05)
        if self.failure is not None:
            raise self.failure
        return {"total_tutors": self.asked}


@pytest.fixture
def database() -> Totals:
    return Totals()


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch, database: Totals) -> AsyncIterator[tuple[Feed, int]]:
    """A feed that stands and reads nothing by itself, and who serves it."""

    async def nothing(_: Feed) -> None: ...

    monkeypatch.setattr(Feed, "_read", nothing)
    monkeypatch.setattr(push_module, "LONGEST_WRITE_SECONDS", 0.2)
    monkeypatch.setattr(push_module, "TOTALS_SECONDS", 60.0)  # however slow the machine
    feed = Feed(Settings(), "metrics", "alerts", 1)
    feed._floor = (0, 0)
    push = Push(feed, database, lambda: 0, Cors())
    app = web.Application(middlewares=[guard(Access(KEY, Users()), Limiter(100), lambda: 0, Cors())])
    app.router.add_get("/events", push.events)
    app.router.add_get("/ws/dashboard", push.socket)
    async with TestServer(app) as server:
        assert server.port is not None
        yield feed, server.port
    await feed.close()


async def test_asked_for_its_head_alone_a_stream_ends_at_once():
    feed = Feed(Settings(kafka_bootstrap_servers="127.0.0.1:1"), "metrics", "alerts", 4)
    push = Push(feed, totals, lambda: 0, Cors())
    app = web.Application(middlewares=[guard(Access(KEY, Users()), Limiter(100), lambda: 0, Cors())])
    ended = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = await push.events(request)
        ended.set()
        return response

    app.router.add_get("/events", events)
    async with TestClient(TestServer(app)) as client:
        token = signed({"sub": str(STAFF.user_id)})
        answer = await client.head("/events", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        await asyncio.wait_for(ended.wait(), 3)
    await feed.close()


@pytest.mark.parametrize("path", ["/events", "/ws/dashboard"])
async def test_who_does_not_read_is_hung_up_on(served: tuple[Feed, int], path: str):
    """A close would wait for it: what is written then stands behind all the rest."""
    feed, port = served
    client = NeverReads(port, path, signed({"sub": str(STAFF.user_id)}))
    await eventually(lambda: feed._listeners)
    numbers = itertools.count(1)

    def is_hung_up_on() -> bool:
        feed._tell(Message("metrics", CHANGE, (next(numbers), 0)))
        return not client.is_held()

    await eventually(is_hung_up_on, every=0.001)
    await eventually(lambda: not feed._listeners)
    client.close()


@pytest.mark.parametrize("path", ["/events", "/ws/dashboard"])
async def test_who_has_long_been_here_comes_back_and_is_asked_again_who_it_is(
    served: tuple[Feed, int], monkeypatch: pytest.MonkeyPatch, path: str
):
    """A role that was taken away, or a token that has expired, ends what is told."""
    monkeypatch.setattr(push_module, "LONGEST_SECONDS", 0.2)
    monkeypatch.setattr(push_module, "HEARTBEAT_SECONDS", 0.3)
    feed, port = served
    bearer = {"Authorization": f"Bearer {signed({'sub': str(STAFF.user_id)})}"}
    async with ClientSession(headers=bearer) as client:
        if path == "/events":
            async with client.get(f"http://127.0.0.1:{port}{path}") as response:
                assert b"retry" in await asyncio.wait_for(response.read(), 5)
        else:
            async with client.ws_connect(f"http://127.0.0.1:{port}{path}") as ws:
                assert [message.type async for message in ws] == [WSMsgType.TEXT]
                assert ws.closed
    await eventually(lambda: not feed._listeners)


@asynccontextmanager
async def socket(port: int) -> AsyncIterator[ClientWebSocketResponse]:
    bearer = {"Authorization": f"Bearer {signed({'sub': str(STAFF.user_id)})}"}
    async with (
        ClientSession(headers=bearer) as client,
        client.ws_connect(f"http://127.0.0.1:{port}/ws/dashboard") as ws,
    ):
        yield ws


async def test_what_postgresql_says_of_hosts_and_users_is_not_told(served: tuple[Feed, int], database: Totals):
    database.failure = SinkUnavailable('connection to server at "10.0.0.5", port 5432 failed')
    async with socket(served[1]) as ws:
        told = await ws.receive_json(timeout=5)
    assert told["data"] == {"unavailable": "PostgreSQL does not answer"}


async def test_all_sockets_are_reset_and_the_database_is_asked_once(served: tuple[Feed, int], database: Totals):
    feed, port = served
    async with socket(port) as one, socket(port) as another, socket(port) as third:
        sockets = (one, another, third)
        for _ in range(2):
            told = [(await ws.receive_json(timeout=5))["data"] for ws in sockets]
            assert told == [{"total_tutors": 1}] * 3
            feed._tell(RESET)
        assert database.asked == 1


async def test_a_socket_that_cannot_be_told_a_change_is_closed(served: tuple[Feed, int]):
    feed, port = served
    async with socket(port) as ws:
        await ws.receive_json(timeout=5)
        feed._tell(Message("metrics", b"no JSON", (1, 0)))
        assert (await ws.receive(timeout=5)).type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
    await eventually(lambda: not feed._listeners)
