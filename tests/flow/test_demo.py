"""The demo as a newcomer runs it, without a terminal; and that nothing outlives it, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.cookiejar import CookieJar
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urldefrag

import psutil
import pytest

pytestmark = pytest.mark.slow

SMALL = ("--tutors", "20", "--days", "30")
LONGEST_SECONDS = 240.0
TRICKLE_SECONDS = 20.0


class Showing:
    """A demo process, and every process that it ever started."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.log = home / "output"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tutormax_streams", "demo", *options],
                env={**os.environ, "TMPDIR": str(home), "KAFKA_BOOTSTRAP_SERVERS": "nowhere.invalid:9092"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads yet
            )
        self._seen: dict[int, psutil.Process] = {}

    def look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._seen.setdefault(child.pid, child)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def until_says(self, words: str) -> None:
        self._until(lambda: words in self.output, words)
        assert self.process.poll() is None, f"it ended by itself:\n{self.output}"

    def until_ended(self) -> int:
        self._until(lambda: self.process.poll() is not None, "the end")
        return self.process.wait()

    def _until(self, come: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while not come():
            self.look()
            assert time.monotonic() < deadline, f"no {what!r} in {LONGEST_SECONDS} s:\n{self.output}"
            time.sleep(0.1)

    def assert_nothing_is_left(self, seconds: float = 15.0) -> None:
        assert len(self._seen) >= 4, "a broker, a PostgreSQL and their guards were never seen"
        deadline = time.monotonic() + seconds
        while True:
            alive = [process for process in self._seen.values() if lives(process)]
            left = [path.name for path in self.home.iterdir() if path != self.log]
            if not alive and not left:
                return
            assert time.monotonic() < deadline, f"left over: {alive} {left}\n{self.output}"
            time.sleep(0.2)


def lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended between the two questions
        return False


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for temporary files that a PostgreSQL run by another user may pass through."""
    directory = Path(tempfile.mkdtemp(prefix="demo-test-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_once_loads_judges_and_says_what_it_found(home: Path):
    showing = Showing(home, "--once", *SMALL)
    assert showing.until_ended() == 0, showing.output
    for figures in (
        r"30 days of 20 tutors: [\d,]+ events, rows right after [\d.]+ s",
        r"history +[\d,]+ events in [\d.]+ s: [\d,]+ events/s",
        r"live +[\d,]+ events in 10 s: freshness p50 [\d.]+ s, p99 [\d.]+ s",
        r"rows +20 tutors, [\d,]+ sessions, [\d,]+ feedback, [\d,]+ tutor-events, 60 metrics",
        r"dead letters +0",
        r"audit +60 rows of metrics computed again in SQL: no differences",
    ):
        assert re.search(figures, showing.output), showing.output
    showing.assert_nothing_is_left()


def first_figures(stream: IO[bytes]) -> dict[str, Any]:
    """The first tutor's figures that a stream of events tells."""
    deadline, kind = time.monotonic() + TRICKLE_SECONDS, b""
    for line in stream:
        assert time.monotonic() < deadline, f"no figures in {TRICKLE_SECONDS} s"
        name, _, value = line.rstrip().partition(b": ")
        if (name, kind) == (b"data", b"metrics"):
            figures: dict[str, Any] = json.loads(value)
            return figures
        kind = value if name == b"event" else kind
    raise AssertionError("the stream has ended")


def visited(link: str) -> dict[str, Any]:
    """The dashboard's totals, as the page at this link gets them: it trades what the fragment holds for a cookie, and sees
    live figures."""
    page, fragment = urldefrag(link)
    base = page.removesuffix("/dashboard")
    (token,) = parse_qs(fragment)["token"]
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(page, timeout=10) as response:
        assert b"<title>Tutor performance</title>" in response.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        browser.open(f"{base}/dashboard/analytics", timeout=10)
    bearer = {"Authorization": f"Bearer {token}"}
    with browser.open(urllib.request.Request(f"{base}/session", method="POST", headers=bearer), timeout=10) as response:
        assert response.status == 204
    with browser.open(f"{base}/whoami", timeout=10) as response:
        who = json.load(response)
        assert (who["full_name"], who["is_staff"]) == ("Demo viewer", True)
    with browser.open(f"{base}/events", timeout=TRICKLE_SECONDS) as response:
        told = first_figures(response)
        assert (told["tutor_id"][:6], set(told["windows"])) == ("tutor_", {"7day", "30day", "90day"})
    with browser.open(f"{base}/dashboard/analytics", timeout=10) as response:
        totals: dict[str, Any] = json.load(response)
        return totals


def test_its_link_signs_in_and_ctrl_c_ends_it_in_peace(home: Path):
    showing = Showing(home, "--tutors", "5", "--days", "3")
    showing.until_says("live events")
    (link,) = re.findall(r"^  dashboard: (http\S+)$", showing.output, re.MULTILINE)
    assert visited(link)["total_tutors"] == 5
    showing.process.send_signal(signal.SIGINT)
    assert showing.until_ended() == 0, showing.output
    assert "Traceback" not in showing.output
    showing.assert_nothing_is_left()


def test_nothing_is_left_when_it_is_stopped_while_it_starts(home: Path):
    showing = Showing(home, *SMALL)
    showing.until_says("up in")
    showing.process.send_signal(signal.SIGTERM)
    assert showing.until_ended() == 0, showing.output
    assert "Traceback" not in showing.output
    showing.assert_nothing_is_left()


def test_nothing_is_left_when_it_is_killed(home: Path):
    showing = Showing(home, *SMALL)
    showing.until_says("published")
    showing.look()
    showing.process.kill()
    showing.process.wait()
    showing.assert_nothing_is_left()
