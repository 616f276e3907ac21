"""Crash points are inert by default, and part exactly the two steps that a test names."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutormax_streams.batches.crashpoints import POINTS, WEDGE_POINTS, reached

ROOT = Path(__file__).parents[2]
PASSES = """
import asyncio
from tutormax_streams.batches.crashpoints import reached

async def main():
    for number in range(5):
        await reached("letter sent")
        await reached("rows committed")
        print(number, flush=True)

asyncio.run(main())
"""


def passes(wanted: str | None) -> subprocess.CompletedProcess[str]:
    environ = {} if wanted is None else {"TUTORMAX_CRASH_POINT": wanted}
    return subprocess.run(
        [sys.executable, "-c", PASSES], env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_process_dies_at_the_point_for_that_time():
    ended = passes("rows committed:3:1")
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1"]


def test_nothing_happens_unless_asked():
    assert passes(None).returncode == 0

    async def pass_all() -> None:
        for point in POINTS + WEDGE_POINTS:
            await reached(point)

    asyncio.run(pass_all())


def test_an_unknown_point_is_an_error():
    ended = passes("nowhere:1:0")
    assert ended.returncode == 1
    assert "no crash point" in ended.stderr


@pytest.mark.parametrize("point", POINTS + WEDGE_POINTS)
def test_every_point_is_in_the_code_once_or_more(point: str):
    code = [path.read_text() for name in ("agents", "tutormax_streams") for path in ROOT.glob(f"{name}/**/*.py")]
    assert any(re.search(rf'await reached\("{point}"\)', text) for text in code)
