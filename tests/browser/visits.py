"""One visit of a browser to a worker's dashboard, and everything that must never happen in any."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.flow.users import STAFF, token
from tutormax_streams.web.guard import COOKIE

WIDE, PHONE = (1440, 900), (390, 844)
EXPECTED_MS = 10_000
DENIED = ("401 (", "403 (")  # the browser's own line for a request that the server refused; tests ask for such


@dataclass(slots=True)
class Visit:
    """A page, and what it did."""

    page: Page
    address: str
    requests: list[str] = field(default_factory=list)  # URLs
    errors: list[str] = field(default_factory=list)

    async def open(self, fragment: str = "#/") -> None:
        await self.page.goto(f"{self.address}/dashboard{fragment}", wait_until="domcontentloaded")

    def row(self, tutor_id: str):
        return self.page.locator(f'#tutors tr[data-id="{tutor_id}"]')

    def figure(self, tutor_id: str, figure: str):
        return self.row(tutor_id).locator(f'[data-figure="{figure}"]')

    async def live(self) -> None:
        """Wait until the stream of changes is open and the table is filled."""
        await expect(self.page.locator("#connection")).to_have_attribute("data-state", "live", timeout=EXPECTED_MS)
        await expect(self.page.locator("#tutors tbody tr").first).to_be_visible(timeout=EXPECTED_MS)

    async def violations(self) -> list[str]:
        """What axe-core finds against accessibility; nothing is excluded."""
        found = (await Axe().run(self.page)).response["violations"]
        return [f"{one['id']}: {node['html'][:160]} {node['failureSummary']}" for one in found for node in one["nodes"]]


@asynccontextmanager
async def visit(
    browser: Browser, address: str, user_id: int | None = STAFF, size: tuple[int, int] = WIDE, theme: str = "light"
) -> AsyncIterator[Visit]:
    """Ends with an AssertionError where the page asked another host for anything, or wrote an error to its console."""
    context: BrowserContext = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if theme == "dark" else "light"
    )
    try:
        if user_id is not None:
            await context.add_cookies([{"name": COOKIE, "value": token(user_id), "url": address}])
        page = await context.new_page()
        page.set_default_timeout(EXPECTED_MS)
        here = Visit(page, address)
        page.on("request", lambda request: here.requests.append(request.url))
        page.on("pageerror", lambda error: here.errors.append(str(error)))
        page.on("console", lambda said: here.errors.append(said.text) if said.type in ("error", "warning") else None)
        yield here
        strange = [url for url in here.requests if not url.startswith((f"{address}/", "data:"))]
        assert not strange, f"requests to another host: {strange}"
        errors = [text for text in here.errors if not any(status in text for status in DENIED)]
        assert not errors, errors
    finally:
        await context.close()
