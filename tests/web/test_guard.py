"""What every request passes: limits, headers, the shape of refusals; a real server without a stream behind it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.web.access import Access
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.guard import COOKIE, HEADERS, MOST_REQUEST_BYTES, USER, VOUCH, Limiter, guard, is_encrypted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_and_refills_steadily():
    clock = Clock()
    limiter = Limiter(60, clock)
    assert [limiter.wait_seconds(1) for _ in range(60)] == [0.0] * 60
    assert limiter.wait_seconds(1) == 1.0
    assert limiter.wait_seconds(2) == 0.0, "each subject has its own"
    clock.now = 2.5
    assert [limiter.wait_seconds(1) for _ in range(3)] == [0.0, 0.0, 0.5]
    clock.now = 1000.0
    assert [limiter.wait_seconds(1) for _ in range(61)][-2:] == [0.0, 1.0]
    assert not any(Limiter(0, clock).wait_seconds(1) for _ in range(1000))


def test_who_speaks_tls_with_a_proxy_speaks_tls():
    plain, proxied = (
        make_mocked_request("GET", "/", headers=headers) for headers in ({}, {"X-Forwarded-Proto": "HTTPS"})
    )
    assert (is_encrypted(plain), is_encrypted(proxied)) == (False, True)


async def name(request: web.Request) -> web.Response:
    return web.Response(text=str(request[USER].full_name))


async def broken(request: web.Request) -> web.Response:
    raise ValueError("with a secret in it")


async def big(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


@pytest.fixture
async def client():
    middleware = guard(Access(KEY, Users()), Limiter(3), lambda: 1_764_504_000_000_000, Cors())
    app = web.Application(middlewares=[middleware], client_max_size=10)
    app.add_routes([web.get("/name", name), web.get("/broken", broken), web.post("/big", big), web.get("/livez", big)])
    async with TestClient(TestServer(app)) as client:
        yield client


BEARER = {"Authorization": f"Bearer {signed({'sub': str(STAFF.user_id)})}"}


async def test_a_token_in_a_header_or_in_the_cookie_lets_in(client: TestClient[web.Request, web.Application]):
    assert await (await client.get("/name", headers=BEARER)).text() == "Grace"
    cookie = {"Cookie": f"{COOKIE}={BEARER['Authorization'].removeprefix('Bearer ')}"}
    assert await (await client.get("/name", headers=cookie)).text() == "Grace"
    refused = await client.get("/name")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert (await client.get("/livez")).status == 200


async def test_every_answer_has_the_headers_and_every_refusal_the_shape(
    client: TestClient[web.Request, web.Application], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.CRITICAL)
    found = [
        await client.get("/nowhere", headers=BEARER),
        await client.post("/name", headers=BEARER),
        await client.get("/broken", headers=BEARER),
    ]
    assert [answer.status for answer in found] == [404, 405, 500]
    for answer in found:
        assert await answer.json() == {
            "success": False,
            "error": (await answer.json())["error"],
            "timestamp": "2025-11-30T12:00:00",
        }
        assert "secret" not in await answer.text()
    assert found[1].headers["Allow"] == "GET,HEAD"
    for answer in [*found, await client.get("/livez")]:
        assert {header: answer.headers[header] for header in HEADERS} == HEADERS


async def test_too_many_and_too_large_requests_are_refused(client: TestClient[web.Request, web.Application]):
    assert (await client.post("/big", headers=BEARER, data=b"x" * 10)).status == 200
    assert (await client.post("/big", headers=BEARER, data=b"x" * 11)).status == 413
    await client.get("/name", headers=BEARER)
    refused = await client.get("/name", headers=BEARER)
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) == 20
    assert (await client.get("/livez")).status == 200


async def test_who_is_vouched_for_is_let_in_and_counted_by_the_worker_that_was_asked(
    client: TestClient[web.Request, web.Application],
):
    vouched = {VOUCH: Access(KEY, Users()).vouch(STAFF)}
    for _ in range(5):
        assert (await client.get("/name", headers=vouched)).status == 200
    assert [(await client.get("/name", headers=BEARER)).status for _ in range(4)] == [200, 200, 200, 429]
    assert (await client.get("/name", headers={VOUCH: f"{vouched[VOUCH]}x"})).status == 401
    assert (await client.get("/name", headers={VOUCH: BEARER["Authorization"].removeprefix("Bearer ")})).status == 401
    assert (await client.get("/name", headers={"Authorization": f"Bearer {vouched[VOUCH]}"})).status == 401


async def endless(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def lasting(request: web.Request) -> web.Response:
    await asyncio.sleep(0.5)
    return web.Response(text="all of it")


async def test_a_request_that_takes_too_long_is_given_up_and_told_so():
    """Whether the handler is slow or the client is with its body; streams bound themselves."""
    middleware = guard(Access(KEY, Users()), Limiter(100), lambda: 0, Cors(), most_seconds=0.2)
    app = web.Application(middlewares=[middleware])
    app.add_routes([web.get("/slow", endless), web.post("/big", big), web.get("/events", lasting)])

    async def dripping() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x"
            await asyncio.sleep(0.1)

    async with TestClient(TestServer(app)) as client:
        for asked in (client.get("/slow", headers=BEARER), client.post("/big", headers=BEARER, data=dripping())):
            began = time.monotonic()
            answer = await asked
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert (await answer.json())["error"] == "this took too long"
            assert time.monotonic() - began < 3
        assert await (await client.get("/events", headers=BEARER)).text() == "all of it"


async def test_a_body_that_is_too_large_is_refused_before_anybody_reads_it(
    client: TestClient[web.Request, web.Application],
):
    body = b"x" * (MOST_REQUEST_BYTES + 1)
    for path in ("/livez", "/name"):
        answer = await client.request("GET", path, data=body, headers={"Authorization": f"Bearer {signed({})}"})
        assert answer.status == 413
        assert (await answer.json())["success"] is False
