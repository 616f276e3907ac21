"""Named points between two steps that a crash must be able to part; inert unless a test asks for a crash.

With TUTORMAX_CRASH_POINT=name:occurrence:milliseconds in the environment the process kills itself (SIGKILL) that long
after it has come to that point for that time; in between, only whoever stands at the point stands still. A fourth part
says what happens there instead: `stall`, and whoever stands there awaits what never comes; `block`, and the thread
sleeps for ever; `spin`, and it is busy for ever. The variable is read once, at import, and is no setting: it exists for
tests alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

POINTS: Final = (
    "changelog sent",  # and not confirmed
    "hop sent",  # to the next step's topic, and not confirmed
    "one output of enrich sent",  # and not the other
    "letter sent",  # and its record's offset not committed
    "rows not announced",  # but committed
    "alerts not told",  # but committed
    "rows committed",  # announced too, and the offsets not
    "offsets committed",
    "recovering",  # in the middle of a changelog
    "rebalancing",  # old partitions closed, new ones not open
)
WEDGE_POINTS: Final = (
    "fetching",  # in the consumer's thread
    "committing",  # before the commit is asked for
)
FOREVER_SECONDS = 1e6


async def happen(how: str) -> None:
    """What befalls whoever stands at the point."""
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stall":
            await asyncio.get_running_loop().create_future()
        case "block":
            time.sleep(FOREVER_SECONDS)  # noqa: ASYNC251 - that is the fault
        case "spin":
            while True:
                pass
        case _:
            raise ValueError(f"nothing happens by {how!r}")


def _crasher(wanted: str) -> Callable[[str], Awaitable[None]]:
    name, occurrence, milliseconds, *how = wanted.split(":")
    if name not in POINTS + WEDGE_POINTS:
        raise ValueError(f"{name!r} is no crash point; there are {', '.join(POINTS + WEDGE_POINTS)}")
    left = int(occurrence)

    async def reached(point: str) -> None:
        nonlocal left
        if point == name:
            left -= 1
            if left == 0:
                await asyncio.sleep(int(milliseconds) / 1000)  # what was handed to the client may reach the broker
                await happen(how[0] if how else "kill")

    return reached


async def _inert(point: str) -> None:
    pass


_WANTED = os.environ.get("TUTORMAX_CRASH_POINT")
reached: Callable[[str], Awaitable[None]] = _crasher(_WANTED) if _WANTED else _inert
"""Say that the process is at a point. Awaited once for a batch, not for an event."""
