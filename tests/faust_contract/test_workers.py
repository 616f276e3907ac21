"""Two apps, each its own group, share one process and one uvloop; they stop together, in order and soon."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faust_contract.apps import committed, create_topics, publish

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 15.0


@asynccontextmanager
async def worker(kafka: str, *topics: str, fails_after: int = sys.maxsize) -> AsyncIterator[Process]:
    arguments = ["-m", "tests.faust_contract.two_apps", kafka, *topics, str(fails_after)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: Process, *wanted: str) -> None:
    """Wait until the worker has said all of this."""
    assert process.stdout is not None
    left = set(wanted)
    while left:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert line, f"ended without saying {sorted(left)}"
        left -= {sentence for sentence in left if sentence in line}  # Faust shows the cursor in between


async def test_two_apps_share_a_worker_on_uvloop_and_stop_on_a_signal(kafka: str, topic_prefix: str):
    first, second = f"{topic_prefix}first", f"{topic_prefix}second"
    await create_topics(kafka, 1, first, second)
    for topic, count in ((first, 3), (second, 2)):
        await publish(kafka, topic, [(0, b"x")] * count)
    async with worker(kafka, first, second) as process:
        await said(process, f"{first} 3 uvloop", f"{second} 2 uvloop")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(said(process, "stopped"), STOP_SECONDS)
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    assert await committed(kafka, first, first, 1) == {0: 3}
    assert await committed(kafka, second, second, 1) == {0: 2}


async def test_a_failure_of_one_app_stops_both_and_names_its_reason(kafka: str, topic_prefix: str):
    first, second = f"{topic_prefix}failing", f"{topic_prefix}beside"
    await create_topics(kafka, 1, first, second)
    await publish(kafka, first, [(0, b"x")] * 3)
    async with worker(kafka, first, second, fails_after=2) as process:
        await asyncio.wait_for(said(process, "crashed ValueError('too many')"), 30 + STOP_SECONDS)
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
        assert process.returncode != 0
    assert await committed(kafka, first, first, 1) == {0: None}
