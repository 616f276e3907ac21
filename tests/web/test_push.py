"""A stream that nobody can read is not begun."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.settings import Settings
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import Feed
from tutormax_streams.web.guard import Limiter, guard
from tutormax_streams.web.push import Push


async def totals() -> dict[str, int]:
    return {}


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
