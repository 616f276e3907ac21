"""What the page says while there is nothing to show, while its worker is dead, and of what happened before it came."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.browser.served import one_worker
from tests.browser.visits import PHONE, WIDE, visit
from tests.flow.driver import Deployment, eventually
from tests.flow.judge import rows
from tests.oracle import DAY_US
from tests.samples import feedback_payload, session_payload, tutor_payload

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

SOON_MS = 60_000  # on a machine that does much else


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bare(
    browser: Browser, kafka: str, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployment]:
    """One worker over an empty database; the tests bring what they need, in the order in which they stand here."""
    with one_worker(kafka, postgres, tmp_path_factory.mktemp("states")) as deployment:
        await deployment.workers[0].until_ready()
        yield deployment


def address_of(deployment: Deployment) -> str:
    return f"http://127.0.0.1:{deployment.workers[0].port}"


async def session(deployment: Deployment, name: str, tutor_id: str = "t1") -> None:
    now_us = time.time_ns() // 1000
    await deployment.tell(("sessions", session_payload(name, tutor_id, now_us - DAY_US, now_us)))


async def test_a_platform_without_tutors_says_so_until_the_first_one_comes(browser: Browser, bare: Deployment):
    async with visit(browser, address_of(bare)) as here:
        await here.open()
        await expect(here.page.get_by_text("No tutors yet")).to_be_visible()
        await expect(here.page.locator("#connection")).to_have_attribute("data-state", "live")
        await expect(here.page.locator("#alerts-hint")).to_have_text("No alerts since this page was opened.")
        await expect(here.page.locator("#changes-hint")).to_contain_text("No tier has changed")
        for width, height in (WIDE, PHONE):
            await here.page.set_viewport_size({"width": width, "height": height})
            assert await here.violations() == [], width
            assert await here.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        now_us = time.time_ns() // 1000
        await bare.tell(("tutors", tutor_payload("t1", now_us - DAY_US)))
        await session(bare, "s1")
        await expect(here.row("t1")).to_be_visible(timeout=SOON_MS)
        await expect(here.page.get_by_text("No tutors yet")).to_be_hidden()
        await bare.tell(("tutors", tutor_payload("t2", now_us - DAY_US)))

        async def newcomer_is_shown() -> bool:
            """Who presses the button finds it; a page that nobody works in presses it itself, now and then."""
            await session(bare, "s3", "t2")
            await here.page.evaluate("document.querySelector('.again:not([hidden])')?.click()")
            return bool(await here.row("t2").is_visible())

        await eventually(newcomer_is_shown, every=1)


async def test_alerts_that_stand_are_shown_to_who_comes_later_and_no_more_once_they_are_cleared(
    browser: Browser, bare: Deployment
):
    now_us = time.time_ns() // 1000
    await bare.tell(("feedback", feedback_payload("f1", "s1", "t1", 1, now_us)))
    await eventually(lambda: rows(bare.database, "SELECT * FROM tutormax_streams.announced WHERE tutor_id = 't1'"))
    async with visit(browser, address_of(bare), size=PHONE) as here:
        panel = here.page.get_by_role("region", name="Alerts")
        alert = panel.get_by_role("listitem").filter(has_text="Rating 1 stars")
        stood = re.compile(r"1 stood at \d\d:\d\d:\d\d\. No alerts since")

        async def is_shown() -> bool:
            """To who comes now; it is raised once figures are settled, and who was here then has heard it as news."""
            await here.open()
            await here.page.reload()
            await here.live()
            return bool(await alert.count()) and stood.search(await panel.inner_text()) is not None

        await eventually(is_shown, seconds=SOON_MS / 1000)
        await expect(alert).to_contain_text(re.compile(r"Critical Tutor t1 \d\d:\d\d:\d\d"))
        await expect(panel).to_contain_text(stood)
        assert await here.violations() == []
        await here.page.evaluate("location.hash = '#/tutor/t1'")
        await here.page.evaluate("location.hash = '#/'")
        await expect(alert).to_have_count(1)
        now_us = time.time_ns() // 1000
        await bare.tell(("feedback", feedback_payload("f1", "s1", "t1", 5, now_us)))
        await expect(alert.locator("s")).to_be_visible(timeout=SOON_MS)
        await here.page.reload()
        await here.live()
        await expect(panel).to_contain_text("No alerts since this page was opened.")
        await expect(panel.get_by_role("listitem")).to_have_count(0)


async def test_a_dead_worker_is_said_and_its_return_is_seen(browser: Browser, bare: Deployment):
    (worker,) = bare.workers
    async with visit(browser, address_of(bare)) as here:
        await here.open()
        await here.live()
        before = int(await here.figure("t1", "sessions_completed").inner_text())
        worker.kill()
        connection, banner = here.page.locator("#connection"), here.page.locator("#banner")
        await expect(connection).to_have_text("Connecting", timeout=SOON_MS)
        await expect(banner).to_contain_text("The server cannot be reached", timeout=SOON_MS)
        await expect(here.row("t1")).to_be_visible()  # what is known stays
        assert await here.violations() == []
        worker.start()
        await worker.until_ready()
        await session(bare, "s2")
        await expect(connection).to_have_text("Live", timeout=SOON_MS)
        await expect(banner).to_be_empty(timeout=SOON_MS)
        await expect(here.figure("t1", "sessions_completed")).to_have_text(str(before + 1), timeout=SOON_MS)
        here.errors.clear()  # the browser's own lines about requests that nobody answered


async def test_axe_finds_nothing_in_the_documents_and_on_the_wall_of_a_telephone(browser: Browser, bare: Deployment):
    for path, sign in (("/docs", "#main h2"), ("/operations", "#partitions li")):
        async with visit(browser, address_of(bare), size=PHONE) as here:
            await here.page.goto(here.address + path)
            await expect(here.page.locator(sign).first).to_be_visible()
            for theme in ("light", "dark"):
                await here.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
                assert await here.violations() == [], (path, theme)
                wider = await here.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wider <= 0, f"{path}: {wider} px beyond a telephone"
