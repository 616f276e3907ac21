"""The README's first screen, typed as written into a terminal, in a clean clone, with an empty home and environment.

`make newcomer` runs it. It takes the time of all tests, so `make test`, which is one of the commands, leaves it out.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from models.rows import TIER_NAMES

pytestmark = pytest.mark.timeout(3600)

ROOT = Path(__file__).parents[2]
FIRST_SCREEN = (ROOT / "README.md").read_text().split("\n## ")[0]
COMMANDS = [line.split("#")[0].strip() for line in FIRST_SCREEN.split("```sh\n")[1].split("```")[0].splitlines()]
ONCE = "make demo ARGS=--once"
PATH = "/usr/local/bin:/usr/bin:/bin"

RIGHT_SECONDS = 120.0  # from the packages' installation to right rows
FALL_SECONDS = 60.0  # as promised; the first bad session comes after 4 s, and each takes the tutor further
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x1b]*\x1b\\")
TIER = "|".join(TIER_NAMES)
FALLEN = re.compile(rf"last 7 days: .*?(?:{TIER}) → (?:{TIER})")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """An empty home with a clean clone of what is committed; a PostgreSQL run by another user may pass through."""
    home = Path(tempfile.mkdtemp(prefix="newcomer-"))
    home.chmod(0o711)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(home / "clone")], check=True)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def heed_ctrl_c() -> None:
    """Who starts these tests in the background of a shell hands down that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def typed(place: Path, command: str) -> pexpect.spawn[str]:
    """`command` in a terminal of 150 columns."""
    return pexpect.spawn(
        "/bin/sh",
        ["-c", command],
        cwd=str(place / "clone"),
        env={"HOME": str(place), "PATH": PATH, "TERM": "xterm-256color", "TMPDIR": str(place)},
        dimensions=(50, 150),
        encoding="utf-8",
        timeout=3600,
        preexec_fn=heed_ctrl_c,
    )


def test_the_first_screen_names_two_commands():
    assert COMMANDS == ["make demo", "make test"]
    assert f"`{ONCE}`" in FIRST_SCREEN


def test_the_demo_once_is_right_in_two_minutes(place: Path):
    terminal = typed(place, ONCE)
    terminal.expect("up in")  # the packages are installed, and the servers are there
    begun = time.monotonic()
    terminal.expect(r"rows right after")
    assert time.monotonic() - begun < RIGHT_SECONDS
    terminal.expect("no differences")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_the_demo_goes_on_live_with_a_tutor_who_falls_until_ctrl_c(place: Path):
    terminal = typed(place, COMMANDS[0])
    terminal.expect("Ctrl-C ends it")
    processes = psutil.Process(terminal.pid).children(recursive=True)
    assert len(processes) >= 4, "a broker, a PostgreSQL and their guards were never seen"
    screen = ""
    begun = time.monotonic()

    def fallen() -> bool:
        nonlocal screen
        screen = (screen + terminal.read_nonblocking(65536, timeout=30))[-200_000:]
        return FALLEN.search(ANSI.sub("", screen)) is not None

    until(fallen, FALL_SECONDS, "a tutor who falls")
    assert time.monotonic() - begun < FALL_SECONDS
    assert "/dashboard" in ANSI.sub("", screen), "no link to the page"
    terminal.sendintr()
    words = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0 or terminal.signalstatus == signal.SIGINT, words  # the shell and make got it too
    assert "Traceback" not in words
    assert "Error" not in words
    until(lambda: not any(map(psutil.Process.is_running, processes)), 15.0, "the end of all processes")


def test_the_tests_pass(place: Path):
    terminal = typed(place, COMMANDS[1])
    words = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0, words[-20_000:]


def until(come: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < deadline, f"no {what} in {seconds:.0f} s"
        time.sleep(0.2)
