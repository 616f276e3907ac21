"""A stream that nobody can read is not begun, and one that nobody reads is ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.flow.driver import eventually
from tests.flow.streams import NeverReads
from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.settings import Settings
from tutormax_streams.web import push as push_module
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import Feed, Message
from tutormax_streams.web.guard import Limiter, guard
from tutormax_streams.web.push import Push

CHANGE = orjson.dumps(
    {"tutor_id": "t1", "tutor_name": "x" * 20_000, "as_of": "2026-01-31T12:00:00.000000Z", "windows": {"7day": {}}}
)


async def totals() -> dict[str, int]:
    return {}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Feed, int]]:
    """A feed that stands and reads nothing by itself, and who serves it."""

    async def nothing(_: Feed) -> None: ...

    monkeypatch.setattr(Feed, "_read", nothing)
    monkeypatch.setattr(push_module, "LONGEST_WRITE_SECONDS", 0.2)
    feed = Feed(Settings(), "metrics", "alerts", 1)
    feed._floor = (0, 0)
    push = Push(feed, totals, lambda: 0, Cors())
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
