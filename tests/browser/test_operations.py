"""The page for the wall in a real browser: what it says of deployments that are well, in trouble or out of reach.

The states are made up and served by a plain server; that real workers tell such is for tests/flow.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, expect

from tests.browser.visits import PHONE, WIDE, Visit, visit
from tests.web.test_operations import OWNERS, said_by
from tutormax_streams.web.answers import naive
from tutormax_streams.web.deployment import Silent, deployment
from tutormax_streams.web.guard import HEADERS
from tutormax_streams.web.pages import STATIC

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

WAITS = {"sink": "flush", "reason": "connection refused", "seconds": 41.0}


def well() -> dict[str, Any]:
    workers = [
        said_by("w-a", [0, 1], url="http://a:6066"),
        said_by("w-b", [2, 3], url="http://b:6066", clock_skew_seconds=-0.04),
    ]
    return deployment(workers, [], OWNERS, 4)


def trouble() -> dict[str, Any]:
    unready = {"stream": {"ready": False, "reasons": ["tables are being recovered: 300 records to go"], "seconds": 7.0}}
    progress = {"remaining_records": 300, "most_records": 1200, "records_per_second": 60.0, "seconds_left": 5.0}
    letters = [{"topic": "sessions", "reason": "invalid", "count": 12, "recent": 5}]
    worker = said_by("w-a", [0, 1], url="http://a:6066", readiness=unready, recovery=progress, dead_letters=letters)
    worker["tables"]["serving"] = [0]
    worker["sink"]["waiting"] = [WAITS]
    owners = {partition: url for partition, url in OWNERS.items() if partition != 3}
    return deployment([worker], [Silent("http://b:6066", "w-b", 9.0)], owners, 4)


@dataclass(slots=True)
class Wall:
    """The server, and what it answers."""

    state: dict[str, Any] = field(default_factory=well)
    is_staff: bool = True
    status: int = 200
    address: str = ""

    async def whoami(self, request: web.Request) -> web.Response:
        if self.status == 401:
            return web.json_response({"success": False, "error": "Unauthorized"}, status=401)
        return web.json_response({"success": True, "user_id": 1, "full_name": "Grace", "is_staff": self.is_staff})

    async def operations(self, request: web.Request) -> web.Response:
        if self.status != 200:
            headers = {"Retry-After": "1"}
            return web.json_response({"success": False, "error": "no PostgreSQL"}, status=self.status, headers=headers)
        now = {"timestamp": naive(time.time_ns() // 1000)}
        return web.json_response({"success": True, "asked": "w-a", **now, **self.state})


@pytest_asyncio.fixture(loop_scope="module")
async def wall() -> AsyncIterator[Wall]:
    made = Wall()

    async def page(request: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "operations.html")

    async def headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(HEADERS)

    app = web.Application()
    app.on_response_prepare.append(headers)
    app.add_routes(
        [
            web.get("/operations", page),
            web.get("/operations/state", made.operations),
            web.get("/whoami", made.whoami),
            web.static("/static", STATIC),
        ]
    )
    server = TestServer(app)
    await server.start_server()
    made.address = str(server.make_url("")).rstrip("/")
    try:
        yield made
    finally:
        await server.close()


async def opened(here: Visit) -> None:
    await here.page.goto(f"{here.address}/operations", wait_until="domcontentloaded")


async def test_a_deployment_that_is_well_fits_one_line(browser: Browser, wall: Wall):
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        await expect(here.page.locator("#connection")).to_contain_text("Refreshed every 2 s")
        await expect(here.page.locator("#age")).to_contain_text("As w-a told at")
        await expect(here.page.locator("#owners li")).to_have_text(["Aw-a: 2", "Bw-b: 2"])
        await expect(here.page.locator("#partitions .who-owns")).to_have_text(["A", "A", "B", "B"])
        await expect(here.page.locator("#recovery")).to_contain_text("No tables are being recovered.")
        await expect(here.page.locator("#workers tr > :nth-child(8)")).to_have_text(["0.0", "0.0"])


async def test_trouble_is_said_in_words_and_in_every_panel(browser: Browser, wall: Wall):
    wall.state = trouble()
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#verdict-title")).to_have_text("3 things are wrong")
        await expect(here.page.locator("#problems .text")).to_have_text(
            [
                "w-b: no answer for 9 s",
                "1 of 4 partitions has no owner",
                "w-a, stream (7 s): tables are being recovered: 300 records to go",
                "5 events were refused in the last minutes",
            ]
        )
        cells = here.page.locator("#partitions li")
        for number, (letter, state) in enumerate(
            (("A", "serving"), ("A", "catching up"), ("B", "no answer"), ("\u2013", "no owner"))
        ):
            await expect(cells.nth(number).locator(".who-owns")).to_have_text(letter)
            assert await cells.nth(number).get_attribute("data-state") == state
        await expect(here.page.locator("#recovery")).to_contain_text("Recovery: 75 % done, about 5 s left")
        await expect(here.page.locator("#sink-state")).to_contain_text(
            "flush of w-a waits for PostgreSQL for 41 s: connection refused"
        )
        await expect(here.page.locator("#letters td")).to_have_text(["invalid", "5", "12"])
        await expect(here.page.locator("#workers tr").last).to_contain_text("no answer for 9 s")


async def test_a_refresh_changes_texts_and_replaces_nothing(browser: Browser, wall: Wall):
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        await here.page.evaluate(
            """() => {
                window.added = 0;
                new MutationObserver((changes) => {
                    for (const { addedNodes } of changes)
                        window.added += [...addedNodes].filter((node) => node.nodeType === 1).length;
                }).observe(document.body, { childList: true, subtree: true });
            }"""
        )
        wall.state["topics"]["tutormax.facts"]["lag_records"] = 4321
        await expect(here.page.locator("#topics")).to_contain_text("4,321")
        assert await here.page.evaluate("window.added") == 0
        wall.state = trouble()
        await expect(here.page.locator("#verdict-title")).to_have_text("3 things are wrong")
        wall.state = well()
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        await expect(here.page.locator("#problems li")).to_have_count(0)


async def test_a_worker_out_of_reach_is_said_with_since_when_and_comes_back(browser: Browser, wall: Wall):
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        await here.page.route("**/operations/state", lambda route: route.abort())
        await expect(here.page.locator("#verdict-title")).to_contain_text("The server cannot be reached since ")
        await expect(here.page.locator("#problems")).to_contain_text("What is shown below is")
        assert await here.violations() == []
        await here.page.unroute("**/operations/state")
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        here.errors.clear()  # the browser's own lines about the requests that were cut off


async def test_what_is_said_to_who_may_not_see_it(browser: Browser, wall: Wall):
    wall.is_staff = False
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#waiting")).to_contain_text("this page is for staff")
        await expect(here.page.locator("#wall")).to_be_hidden()
    wall.is_staff, wall.status = True, 401
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.get_by_label("Access token")).to_be_focused()
        assert await here.violations() == []
    wall.status = 503
    async with visit(browser, wall.address, None) as here:
        await opened(here)
        await expect(here.page.locator("#waiting")).to_contain_text("The server says: no PostgreSQL")
        wall.status = 200
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        here.errors.clear()  # the browser's own line about 503


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
async def test_everybody_can_read_it(browser: Browser, wall: Wall, size: tuple[int, int], theme: str):
    async with visit(browser, wall.address, None, size, theme) as here:
        await opened(here)
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        assert await here.violations() == []
        wall.state = trouble()
        await expect(here.page.locator("#verdict-title")).to_have_text("3 things are wrong")
        assert await here.violations() == []
        assert await here.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
