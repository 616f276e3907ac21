"""One worker process: started, stopped, killed, frozen, and asked over HTTP, as an operator would.

A worker dies with the test run, however that ends; what it printed stays in its log until the run's temporary
directory goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutormax_streams.embedded.server import HOST, free_port

START_SECONDS = 120.0
STOP_SECONDS = 30.0  # what is promised of SIGTERM under load
METRICS_SECONDS = 20.0  # whoever asks for a figure would take silence for 0
POLL_SECONDS = 0.1
REASONS = (
    "stopped by a failure",
    "tutormax-streams: ",
    "Timeout (",
)  # of the worker's last line; of an endless opening
OURS = ("TUTORMAX_", "KAFKA_", "POSTGRES_", "REDIS_")

# PR_SET_PDEATHSIG outlives the execv. Not by preexec_fn, which must not be used where there are threads.
DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tutormax_streams", *arguments]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of this run without its settings, and the settings given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return {**inherited, "TUTORMAX_LOG_FORMAT": "console", "PYTHONFAULTHANDLER": "1", **given}


class Worker:
    """A replica with a name, a port and a data directory of its own, which outlive its processes."""

    def __init__(
        self, name: str, home: Path, given: Mapping[str, str], program: Sequence[str] = tuple(command("worker"))
    ) -> None:
        self.name = name
        self._program = program
        self.data = home / f"{name}-data"
        self.log = home / f"{name}.log"
        self.port = free_port()
        self._environment = environment(
            {
                **given,
                "TUTORMAX_INSTANCE_ID": name,
                "TUTORMAX_DATA_DIR": str(self.data),
                "TUTORMAX_WEB_HOST": HOST,
                "TUTORMAX_WEB_PORT": str(self.port),
            }
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at_line = 0
        self._told_to_end = False
        self.expects_to_crash = False  # by a crash point; whoever asked for it starts it again
        self.unseen: list[tuple[int, str]] = []  # code and reason of endings by itself that a kill came too late for

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"worker {self.name} was never started"
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def crashed(self) -> bool:
        """It ended by itself."""
        return self._process is not None and not self.running and not self._told_to_end and not self.expects_to_crash

    def start(self, **changes: str) -> None:
        """Begin to start; see `until_ready`. `changes` replace settings for this process alone."""
        assert not self.running
        self._told_to_end = False
        with self.log.open("ab") as log:
            self._started_at_line = len(self.log.read_text(errors="replace").splitlines())
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, *self._program],
                env={**self._environment, **changes},
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def change(self, **settings: str) -> None:
        """Replace settings from the next start on."""
        self._environment |= settings

    async def until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it says of itself that it is ready."""
        await self.until(lambda report: report["ready"], seconds)

    async def until(self, told: Any, seconds: float = START_SECONDS) -> dict[str, Any]:
        """Wait for a health report of which `told` is true."""
        deadline = time.monotonic() + seconds
        report: dict[str, Any] | None = None
        while time.monotonic() < deadline:
            assert self.running, f"worker {self.name} ended with {self.process.poll()}:\n{self.last_words()}"
            report = await asyncio.to_thread(self.health)
            if report is not None and told(report):
                return report
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError(f"worker {self.name} still says {report} after {seconds} s:\n{self.last_words()}")

    def health(self) -> dict[str, Any] | None:
        """What /readyz answers; None while nothing does."""
        answer = self.get("/readyz")
        return None if answer is None else json.loads(answer)

    def get(self, path: str, seconds: float = 5.0) -> bytes | None:
        """The body of any answer; None while there is none."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=seconds) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            return error.read()
        except OSError:
            return None

    def metric(self, name: str, **labels: str) -> float:
        """A counter or gauge from /metrics, summed over the labels not given; 0 where there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in (self.get("/metrics", METRICS_SECONDS) or b"").decode().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] in (f"tutormax_{name}", f"tutormax_{name}_total") and all(
                label in series for label in wanted
            ):
                total += float(value)
        return total

    async def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; the exit code, or an AssertionError when it takes too long."""
        if not self.running:
            return self.process.wait()
        self._told_to_end = True
        self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # prints where every thread stands
            self.process.wait()
            raise AssertionError(f"worker {self.name} drains for over {seconds} s:\n{self.last_words()}") from None

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        if self.crashed:
            self.unseen.append((self.process.wait(), self.last_reason()))
        self._told_to_end = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Delete all its local state."""
        assert not self.running
        shutil.rmtree(self.data, ignore_errors=True)

    def last_reason(self) -> str:
        """The newest line of its log that says why it ended; "" if there is none since it was last started."""
        lines = self.log.read_text(errors="replace").splitlines()
        said = [line for line in lines[self._started_at_line :] if any(word in line for word in REASONS)]
        return said[-1].strip() if said else ""

    def last_words(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
