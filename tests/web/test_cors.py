"""Who of other origins is told what, and whose socket is opened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.settings import Settings
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import Feed
from tutormax_streams.web.guard import COOKIE, USER, Limiter, guard
from tutormax_streams.web.push import Push

LISTED, FOREIGN = "https://platform.example.org", "https://evil.example.org"
TOKEN = signed({"sub": str(STAFF.user_id)})
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

Client = TestClient[web.Request, web.Application]
Serve = Callable[..., AbstractAsyncContextManager[Client]]


async def name(request: web.Request) -> web.Response:
    return web.Response(text=str(request[USER].full_name))


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    return response


async def totals() -> dict[str, int]:
    return {"total_tutors": 3}


@pytest.fixture
def serve() -> Serve:
    """A server with the guard, and a client of it."""

    @asynccontextmanager
    async def begin(*origins: str) -> AsyncIterator[Client]:
        cors = Cors(origins)
        feed = Feed(Settings(kafka_bootstrap_servers="127.0.0.1:1"), "metrics", "alerts", 4)
        push = Push(feed, totals, lambda: 0, cors)
        app = web.Application(middlewares=[guard(Access(KEY, Users()), Limiter(100), lambda: 0, cors)])
        app.on_response_prepare.append(cors.on_prepare)
        app.add_routes([web.get("/name", name), web.get("/stream", stream), web.get("/ws", push.socket)])
        try:
            async with TestClient(TestServer(app)) as client:
                yield client
        finally:
            await feed.close()

    return begin


def told(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize("path", ["/name", "/stream", "/nowhere"])
async def test_a_listed_origin_is_named_and_no_other(serve: Serve, path: str):
    async with serve(LISTED, "http://localhost:3000") as client:
        allowed = await client.get(path, headers={**BEARER, "Origin": LISTED})
        assert told(allowed) == {
            "Access-Control-Allow-Origin": LISTED,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        refused = await client.get("/name", headers={"Origin": LISTED})
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, LISTED), "pages may read why"
        for origin in (FOREIGN, "null", f"{LISTED}.evil.example.org", LISTED.upper(), "http://platform.example.org"):
            answer = await client.get(path, headers={**BEARER, "Origin": origin})
            assert told(answer) == {}, origin
            assert answer.headers["Vary"] == "Origin"
        assert told(await client.get(path, headers=BEARER)) == {}


async def test_a_preflight_needs_no_token_and_tells_what_may_come(serve: Serve):
    async with serve(LISTED) as client:
        answer = await client.options("/name", headers={**PREFLIGHT, "Origin": LISTED})
        assert answer.status == 204
        assert told(answer) == {
            "Access-Control-Allow-Origin": LISTED,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
            "Access-Control-Max-Age": "600",
            "Access-Control-Expose-Headers": "Retry-After",
        }
        assert answer.headers["Vary"] == "Origin"
        foreign = await client.options("/name", headers={**PREFLIGHT, "Origin": FOREIGN})
        assert (foreign.status, told(foreign)) == (401, {})
        assert (await client.options("/nowhere", headers={**PREFLIGHT, "Origin": LISTED})).status == 401
        assert (await client.options("/name", headers={"Origin": LISTED})).status == 401, "not a preflight"


async def test_without_the_setting_nothing_is_said(serve: Serve):
    async with serve() as client:
        answer = await client.get("/name", headers={**BEARER, "Origin": LISTED})
        assert (answer.status, told(answer), answer.headers.get("Vary")) == (200, {}, None)
        assert (await client.options("/name", headers={**PREFLIGHT, "Origin": LISTED})).status == 401


async def test_a_socket_is_opened_for_our_own_pages_and_listed_ones_only(serve: Serve):
    cookie = {"Cookie": f"{COOKIE}={TOKEN}"}
    async with serve(LISTED) as client:
        for origin in (FOREIGN, "null", "https://platform.example.org.evil.example.org"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await client.ws_connect("/ws", headers={**cookie, "Origin": origin})
        own = f"http://{client.host}:{client.port}"
        for headers in ({"Origin": own}, {"Origin": LISTED}, {}):
            async with client.ws_connect("/ws", headers={**cookie, **headers}) as socket:
                assert (await socket.receive_json(timeout=5))["data"] == {"total_tutors": 3}
    async with serve() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await client.ws_connect("/ws", headers={**cookie, "Origin": LISTED})


def test_the_setting_takes_origins_and_says_what_is_none():
    assert Settings.model_validate(
        {"web_cors_origins": "https://a.example.org, http://Localhost:3000,,"}
    ).web_cors_origins == (
        "https://a.example.org",
        "http://localhost:3000",
    )
    assert Settings.model_validate({"web_cors_origins": ""}).web_cors_origins == ()
    with pytest.raises(ValueError, match="name each origin: with"):
        Settings.model_validate({"web_cors_origins": "https://a.example.org,*"})
    for wrong in (
        "a.example.org",
        "https://a.example.org/",
        "https://*.example.org",
        "null",
        "https://a:443",
        "http://u@a",
    ):
        with pytest.raises(ValueError, match="is no origin: write https://host"):
            Settings.model_validate({"web_cors_origins": wrong})
