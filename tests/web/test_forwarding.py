"""Who asks for a tutor that another worker holds: one hop, one deadline, and rows where that leads nowhere."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from yarl import URL

from models.metrics import WindowInputs, WindowMetrics, metrics_updated, window_metrics
from tests.web.test_access import KEY, STAFF, Users, signed
from tutormax_streams.postgres.stored_figures import StoredFigures, StoredTutor
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web.access import Access
from tutormax_streams.web.answers import DECIMALS, WINDOWS
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.guard import Limiter, guard
from tutormax_streams.web.lookups import FORWARD_SECONDS, HOPS, Lookups
from tutormax_streams.web.owners import NotHere, Owners

NOW_US = 1_764_504_000_500_000
BEARER = {"Authorization": f"Bearer {signed({'sub': str(STAFF.user_id)})}"}
PATIENCE_SECONDS = 20.0  # of who asks: what never ends shows as a failure
ROW = dict.fromkeys(DECIMALS, 0) | {"performance_tier": "Strong", "sessions_completed": 7}


class Elsewhere:
    """Owners that hold nothing, and say who does; with `profiles` by tutor they hold every tutor."""

    url_of_owner: URL | None = None
    profiles: dict[str, str] | None = None

    def current(self, tutor_id: str) -> Any:
        if self.profiles is None:
            raise NotHere
        windows = {
            name: window_metrics(name, name, WindowInputs(), "normalized", login_known=False) for name in WINDOWS
        }
        name = self.profiles.get(tutor_id)
        return metrics_updated(tutor_id, windows, as_of_us=NOW_US, epoch=1, position=1, tutor_name=name)

    def trend(self, tutor_id: str, window: str, instants_us: list[int]) -> list[WindowMetrics]:
        return [self.current(tutor_id).windows[window] for _ in instants_us]

    def url(self, tutor_id: str) -> URL | None:
        return self.url_of_owner


class Rows:
    """Committed: all of t1, of t3 nothing but who it is, of t4 one window."""

    async def tutors(self, tutor_ids: list[str]) -> dict[str, StoredTutor]:
        at_us = NOW_US - 1_500_000
        stored = [
            StoredTutor(
                tutor_id, name, "active", at_us if windows else None, dict.fromkeys(windows, ROW),
                dict.fromkeys(windows, at_us),
            )
            for tutor_id, name, windows in (("t1", "Ada", WINDOWS), ("t3", "Sue", ()), ("t4", "Bea", ("7day",)))
        ]  # fmt: skip
        return {tutor.tutor_id: tutor for tutor in stored if tutor.tutor_id in tutor_ids}

    async def prediction(self, tutor_id: str) -> None:
        return None


class Worker:
    """As much of one as lookups need. `heard`: the header of each request that came, None where it had none."""

    def __init__(self) -> None:
        self.owners = Elsewhere()
        self.heard: list[str | None] = []
        self.telemetry = Telemetry()
        owners, stored = cast(Owners, self.owners), cast(StoredFigures, Rows())
        self.users = Users()
        access = Access(KEY, self.users)
        self.lookups = Lookups(owners, stored, access.vouch, lambda: NOW_US, self.telemetry)
        app = web.Application(middlewares=[guard(access, Limiter(0), lambda: NOW_US, Cors())])
        for name in ("metrics", "performance", "trends"):
            app.router.add_get(f"/tutors/{{tutor_id}}/{name}", self._counted(getattr(self.lookups, name)))
        self.server = TestServer(app)

    def _counted(self, handle: Any) -> Callable[[web.Request], Any]:
        async def counted(request: web.Request) -> web.StreamResponse:
            self.heard.append(request.headers.get(HOPS))
            answer: web.StreamResponse = await handle(request, request.match_info["tutor_id"])
            return answer

        return counted

    async def ask(self, path: str, **headers: str) -> tuple[int, dict[str, Any], float]:
        """Status, body, seconds."""
        began = time.monotonic()
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            ClientSession() as client,
            client.get(self.server.make_url(path), headers=BEARER | headers) as response,
        ):
            return response.status, json.loads(await response.read()), time.monotonic() - began


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers, each of which takes the other for the owner of everything."""
    async with AsyncExitStack() as stack:
        one, other = Worker(), Worker()
        for worker in (one, other):
            await stack.enter_async_context(worker.server)
            stack.push_async_callback(worker.lookups.close)
        one.owners.url_of_owner, other.owners.url_of_owner = other.server.make_url("/"), one.server.make_url("/")
        yield one, other


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"])
async def test_an_owner_that_never_answers_costs_its_deadline_and_no_more(pair: tuple[Worker, Worker], begins: bytes):
    """It takes the connection, and perhaps begins an answer."""
    worker, _ = pair
    came: list[bytes] = []
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(begins)
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        worker.owners.url_of_owner = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        answers = await asyncio.gather(
            *(worker.ask(f"/tutors/t1/{path}") for path in ("metrics", "performance", "metrics?max_age=1", "trends")),
            *(worker.ask(f"/tutors/t2/{path}") for path in ("metrics", "performance", "trends")),
        )
        ended.set()
    (status, metrics, _), (also, performance, _), (too_old, _, _), (no_history, _, _), *unknown = answers
    assert (status, metrics["source"], metrics["age_seconds"]) == (200, "database", 1.5)
    assert metrics["metrics"]["sessions_completed"] == 7
    assert (also, performance["source"], performance["performance_tier"]) == (200, "database", "Strong")
    assert (too_old, no_history) == (503, 503), "rows are 1.5 s old, and nobody else has the history"
    assert [status for status, _, _ in unknown] == [503] * 3, "it may be in the stream and not committed yet"
    assert len(came) == len(answers), "each asks the owner once"
    for _, _, seconds in answers:
        assert FORWARD_SECONDS - 0.1 < seconds < FORWARD_SECONDS + 2, "the deadline, and the rest on a busy machine"


async def test_who_is_not_known_is_known_of_the_owner_alone(pair: tuple[Worker, Worker]):
    """Whom no row names may be in the stream already, and who has no figures in a row may have some there."""
    worker, owner = pair
    for tutor_id in ("t2", "t3", "t4"):
        for path in ("metrics", "performance", "metrics?max_age=60"):
            status, body, _ = await worker.ask(f"/tutors/{tutor_id}/{path}")
            assert (status, body["success"]) == (503, False), (tutor_id, path, body)
    assert (await worker.ask("/tutors/t4/metrics?window=7day"))[0] == 200, "a row is a row"
    owner.owners.profiles = {"t1": "Ada"}
    for path in ("metrics", "performance", "trends"):
        assert (await worker.ask(f"/tutors/t2/{path}"))[0] == 404, "the owner has heard nothing of it, and no row has"
    status, body, _ = await worker.ask("/tutors/t3/metrics")
    assert (status, body["metrics"], body["tutor_name"]) == (200, None, "Sue"), "the platform's, and without a figure"


async def test_an_owner_need_not_know_who_asks(pair: tuple[Worker, Worker]):
    """The worker that was asked does, and PostgreSQL may be away."""
    one, owner = pair
    owner.users.away = True
    owner.owners.profiles = {"t1": "Ada"}
    assert (await one.ask("/tutors/t1/metrics"))[1]["source"] == "stream"
    assert owner.users.asked == 0
    assert (await owner.ask("/tutors/t1/metrics"))[0] == 503, "nobody vouches for who asks it"


async def test_two_workers_that_take_each_other_for_the_owner_ask_once(pair: tuple[Worker, Worker]):
    one, other = pair
    for path, expected in (("metrics", 200), ("performance", 200), ("trends", 503)):
        one.heard.clear()
        other.heard.clear()
        status, body, _ = await one.ask(f"/tutors/t1/{path}")
        assert (status, body.get("source")) == (expected, "database" if expected == 200 else None), body
        assert (one.heard, other.heard) == ([None], ["1"]), "one hop, and none back"
    assert [worker.telemetry.value("lookups", source="forwarded") for worker in pair] == [0, 0], "no answer, no forward"


@pytest.mark.parametrize("said", ["1", "", "0"])
@pytest.mark.parametrize("path", ["metrics", "performance", "trends"])
async def test_what_was_forwarded_is_asked_of_nobody_else(pair: tuple[Worker, Worker], path: str, said: str):
    """Not even of the rows: the worker that forwarded it has those, too, and knows what age will do."""
    one, other = pair
    status, body, _ = await one.ask(f"/tutors/t1/{path}", **{HOPS: said})
    assert (status, body["success"], other.heard) == (503, False, [])
    assert (one.heard, "source" in body) == ([said], False)


async def test_what_the_owner_refuses_is_refused_and_nobody_is_let_in_by_the_header(pair: tuple[Worker, Worker]):
    one, other = pair

    async def too_many(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == BEARER["Authorization"]
        return web.json_response({"of": str(request.rel_url)}, status=429, headers={"Retry-After": "7"})

    app = web.Application()
    app.router.add_get("/tutors/{tutor_id}/metrics", too_many)
    async with TestServer(app) as owner, ClientSession() as client:
        one.owners.url_of_owner = owner.make_url("/")
        url = one.server.make_url("/tutors/t1/metrics?window=7day")
        async with client.get(url, headers=BEARER) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")
            assert (await response.json())["of"] == "/tutors/t1/metrics?window=7day"
        async with client.get(url, headers={HOPS: "1"}) as response:
            assert response.status == 401
    assert other.heard == []


@pytest.mark.parametrize(
    "target", ["/tutors/{}/metrics?of=%2e&a=b%26c", "http://elsewhere/tutors/{}/metrics?of=%2e&a=b%26c"]
)
@pytest.mark.parametrize("named", ["..", "%2e%2E", "a%2Fb"])
async def test_the_owner_is_asked_for_what_was_asked_and_for_nothing_beside_it(
    pair: tuple[Worker, Worker], target: str, named: str
):
    """Dots in a path lead nowhere, not even to what the owner shows everyone; a whole URL is as good as a path."""
    one, _ = pair

    async def any_path(request: web.Request) -> web.Response:
        return web.json_response(request.raw_path)

    app = web.Application()
    app.router.add_get("/{path:.*}", any_path)
    async with TestServer(app) as owner:
        one.owners.url_of_owner = owner.make_url("/")
        reader, writer = await asyncio.open_connection("127.0.0.1", one.server.port)
        head = f"Host: x\r\nAuthorization: {BEARER['Authorization']}\r\nConnection: close"
        writer.write(f"GET {target.format(named)} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2]) == f"/tutors/{named}/metrics?of=%2e&a=b%26c"
