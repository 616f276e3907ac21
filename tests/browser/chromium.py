"""The machine's own Chromium, driven by Playwright. Nothing is ever downloaded: install-chromium.sh installs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "NO CHROMIUM: run tests/browser/install-chromium.sh, or set CHROMIUM to the path of one"


def executable() -> str | None:
    """Its path; None where there is none."""
    named = os.environ.get("CHROMIUM")
    return next((path for name in ([named] if named else NAMES) if (path := shutil.which(name))), None)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A browser without a window. RuntimeError where there is none to start."""
    path = executable()
    if path is None:
        raise RuntimeError(MISSING)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to be root with one
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=[*root, "--disable-gpu"])
        try:
            yield browser
        finally:
            await browser.close()
