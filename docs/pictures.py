"""Draws docs/pictures/*.png, the pages as the demo shows them: `python -m docs.pictures [--minutes 6]`.

Starts the demo (a broker, a PostgreSQL, a worker, 300 tutors, live events), opens its pages in the machine's own Chromium
and leaves it open for some minutes, so that its charts and lists have something to show, and freshness is that of live
events, not of the history before (it looks back a minute). Nothing is painted by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, Page, expect

from tests.browser.chromium import launched
from tutormax_streams.simulation import FALLING_TUTOR_ID

PICTURES: Final = Path(__file__).parent / "pictures"
WIDE: Final = (1440, 1000)
PHONE: Final = (390, 844)
LOAD_SECONDS: Final = 300.0
LIVE_MS: Final = 60_000
LARGEST_BYTES: Final = 300_000
RATE: Final = 8.0  # events a second


@asynccontextmanager
async def demo() -> AsyncIterator[str]:
    """The address that signs in to the page of a demo whose history is loaded. RuntimeError if it ends before that."""
    command = [sys.executable, "-m", "tutormax_streams", "demo", "--rate", f"{RATE:g}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    reading: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            while line := (await process.stdout.readline()).decode():
                sys.stderr.write(line.partition("#token=")[0].rstrip() + "\n")
                if found := re.search(r"dashboard: (http\S+)", line):
                    break
            else:
                raise RuntimeError("the demo ended before its page could be opened")
        reading = asyncio.create_task(process.stdout.read())
        yield found[1]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()
        if reading is not None:
            await reading


async def signed_in(browser: Browser, address: str, size: tuple[int, int], theme: Literal["light", "dark"]) -> Page:
    context = await browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    page = await context.new_page()
    await page.goto(address, wait_until="domcontentloaded")
    await expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=LIVE_MS)
    await expect(page.locator("#tutors tr[data-id]").first).to_be_visible(timeout=LIVE_MS)
    return page


async def take(page: Page, name: str, height: int | None = None) -> None:
    """A picture of what the screen shows; with `height` of a screen so high. ValueError if it is too large a file."""
    if height is not None:
        size = page.viewport_size
        assert size is not None
        await page.set_viewport_size({"width": size["width"], "height": height})
        await page.wait_for_timeout(1_000)
    image = await page.screenshot(animations="disabled")
    if len(image) > LARGEST_BYTES:
        raise ValueError(f"{name}.png would have {len(image):,} bytes, more than {LARGEST_BYTES:,}")
    (PICTURES / f"{name}.png").write_bytes(image)
    sys.stderr.write(f"  {name}.png: {len(image):,} bytes\n")


async def draw(minutes: float) -> None:
    PICTURES.mkdir(exist_ok=True)
    async with demo() as address, launched() as browser:
        light = await signed_in(browser, address, WIDE, "light")
        dark = await signed_in(browser, address, WIDE, "dark")
        phone = await signed_in(browser, address, PHONE, "light")
        await asyncio.sleep(minutes * 60)
        await take(light, "dashboard-light")
        await take(dark, "dashboard-dark")
        await take(phone, "phone")
        await light.goto(f"{address.partition('#')[0]}#/tutor/{FALLING_TUTOR_ID}")
        await expect(light.locator("#tutor canvas").first).to_be_visible(timeout=LIVE_MS)
        await take(light, "tutor", height=1400)
        await dark.goto(address.partition("#")[0].replace("/dashboard", "/operations"))
        await expect(dark.locator("#connection")).to_have_attribute("data-state", "live", timeout=LIVE_MS)
        await expect(dark.locator("#partitions li").first).to_be_visible(timeout=LIVE_MS)
        await take(dark, "operations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="how long the page is open first; 6 by default")
    asyncio.run(draw(parser.parse_args().minutes))


if __name__ == "__main__":
    main()
