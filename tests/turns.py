"""Waiting for what goes on in the same event loop: by its turns, for time passes on a busy machine without any."""

from __future__ import annotations

import asyncio

TURNS = 100
SOON_SECONDS = 30.0  # within which something must have come that takes milliseconds where nothing else is done


async def turns(count: int = TURNS) -> None:
    """Let everything go on that does not wait for time, a thread or a peer."""
    for _ in range(count):
        await asyncio.sleep(0)
