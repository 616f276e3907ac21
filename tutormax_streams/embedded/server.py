"""What all embedded servers share: a directory of their own, a port, a guarded process, and start, stop and kill."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, NamedTuple, Self, TypeVar

HOST = "127.0.0.1"
GUARD = Path(__file__).with_name("guard.py")
# Below every usual range of ephemeral ports. From that range an outgoing connection could take the port while the
# server restarts; a client that retries a closed local port there can even connect to itself.
PORTS = range(15_000, 32_000)
BLOCK_PORTS = 50
LOG_TAIL_LINES = 3


class EmbeddedError(Exception):
    """An embedded server cannot be had or did not start; the message is one sentence for a person."""


class Owner(NamedTuple):
    """The system user a server runs as."""

    uid: int
    gid: int


class _Ports:
    """The ports of this process: whole blocks that are its own for as long as it lives.

    A port is often chosen long before a server listens on it, and a server that is down for a while wants its own port
    back, so that nobody listens there now says too little where several processes start servers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[int, socket.socket | None] = {}  # by the first port of a block
        self._next: Iterator[int] = iter(())

    def one(self) -> int | None:
        """A port of our blocks that was not given out yet; None when there is none."""
        with self._lock:
            port = next(self._next, None)
            if port is None:
                self._next = iter(self._another_block())
                port = next(self._next, None)
            return port

    def begin_anew(self) -> None:
        """Give out all ports of our blocks once more."""
        with self._lock:
            self._next = iter([first + at for first in self._claims for at in range(BLOCK_PORTS)])

    def _another_block(self) -> range:
        firsts = PORTS[::BLOCK_PORTS]
        for first in random.SystemRandom().sample(firsts, len(firsts)):
            if first not in self._claims:
                with contextlib.suppress(OSError):
                    self._claims[first] = _claim(first)
                    return range(first, first + BLOCK_PORTS)
        return range(0)


def _claim(first: int) -> socket.socket | None:
    """Something that only one process can hold; OSError if another one does.

    An abstract socket needs no file, goes with its process and is seen exactly as far as ports are. Only Linux has them:
    elsewhere two processes may choose the same port, as they could anyhow.
    """
    if sys.platform != "linux":
        return None
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0tutormax-streams/ports/{first}")
    except OSError:
        claim.close()
        raise
    return claim


_ports = _Ports()


def free_port() -> int:
    """A port of `PORTS` on which nobody listens on 127.0.0.1 now, and that no other process is given while we live."""
    for _ in range(2):
        while (port := _ports.one()) is not None:
            if is_free(port):
                return port
        _ports.begin_anew()
    raise EmbeddedError(f"no free port was found between {PORTS.start} and {PORTS.stop} on {HOST}.")


def is_free(port: int) -> bool:
    """True if nobody listens on that port of 127.0.0.1 now."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


class Server(ABC):
    """One embedded server: `start`, `stop` or `kill`, `start` again on the same data and port, `close`.

    The directory is a fresh temporary one, removed by `close` (or by the guard when our process is gone). All methods
    block; from asyncio call them through `asyncio.to_thread`. Not thread-safe.
    """

    kind: ClassVar[str]
    keeps_data: ClassVar[bool] = True  # over a restart
    stop_signal: ClassVar[int] = signal.SIGTERM
    grace_seconds: ClassVar[float] = 20.0
    start_seconds: ClassVar[float] = 60.0

    def __init__(self) -> None:
        self.port = free_port()
        self._home: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self.pid: int | None = None

    @classmethod
    @abstractmethod
    def why_not(cls) -> str | None:
        """Why this kind cannot run on this machine, as a sentence; None when it can."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What runs, for people: product, version and where it came from."""

    @abstractmethod
    def _prepare(self, home: Path) -> None:
        """Make what the server needs on disk; called once, in a new empty directory."""

    @abstractmethod
    def _command(self, home: Path) -> Sequence[str]:
        """The command line that serves in the foreground."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """True once the server answers a request; False or OSError while it does not."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    def _owner(self) -> Owner | None:
        return None

    @property
    def log_path(self) -> Path:
        """What the server prints; there once it was started."""
        if self._home is None:
            raise EmbeddedError(f"{self.description} was not started yet, so it has no log.")
        return self._home / "server.log"

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def start(self) -> None:
        """Start and return once the server answers requests; EmbeddedError if it does not."""
        if self.running:
            return
        reason = self.why_not()
        if reason is not None:
            raise EmbeddedError(reason)
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix=f"tutormax-{self.kind}-"))
            try:
                self._prepare(self._home)
            except BaseException:
                self.close()
                raise
        self._guard = self._spawn(self._home)
        try:
            self._await_ready(self._guard)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop in order (SIGKILL after the grace) and keep the data; nothing happens if it does not run."""
        self._end(b"s")

    def kill(self) -> None:
        """SIGKILL, as a crash would; the data stays as it is."""
        self._end(b"k")

    def close(self) -> None:
        """Stop and remove everything."""
        try:
            self.stop()
        finally:
            if self._home is not None:
                shutil.rmtree(self._home, ignore_errors=True)
                self._home = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(self, home: Path) -> subprocess.Popen[bytes]:
        owner = self._owner()
        order = {
            "command": list(self._command(home)),
            "log": str(self.log_path),
            "directory": str(home),
            "environment": dict(self._environment()),
            "user": owner.uid if owner else None,
            "group": owner.gid if owner else None,
            "stop_signal": int(self.stop_signal),
            "grace_seconds": self.grace_seconds,
            "remove": str(home),
        }
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is ours to handle, in our order
        )
        assert guard.stdout is not None
        assert guard.stderr is not None
        line = guard.stdout.readline()
        if not line:
            detail = guard.stderr.read().decode(errors="replace").strip().splitlines()
            guard.wait()
            raise EmbeddedError(f"{self.description} could not be started: {detail[-1] if detail else 'no message'}.")
        self.pid = int(line)
        return guard

    def _await_ready(self, guard: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while True:
            if guard.poll() is not None:
                raise EmbeddedError(f"{self.description} ended while starting: {self._last_words()}")
            with contextlib.suppress(OSError):
                if self._is_ready():
                    return
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.description} did not answer within {self.start_seconds:.0f} s: {self._last_words()}"
                )
            time.sleep(0.05)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = [line for line in self.log_path.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return " / ".join(lines[-LOG_TAIL_LINES:])
        return "it printed nothing."

    def _end(self, order: bytes) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        with guard, contextlib.suppress(BrokenPipeError):  # the server may have ended by itself
            os.write(guard.stdin.fileno(), order)
        self.pid = None


_Kind = TypeVar("_Kind", bound=type[Server])


def first_available(kinds: Sequence[_Kind]) -> _Kind:
    """The first kind that can run here; EmbeddedError with every kind's reason if none can."""
    reasons = []
    for kind in kinds:
        reason = kind.why_not()
        if reason is None:
            return kind
        reasons.append(reason)
    raise EmbeddedError(" ".join(reasons))


def answer(command: Sequence[str], *, timeout_seconds: float, owner: Owner | None = None) -> str:
    """Run a helper command to its end and give back what it printed; EmbeddedError with its last line if it fails."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
            cwd="/",
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"{name} did not end within {timeout_seconds:.0f} s.") from error
    except OSError as error:
        raise EmbeddedError(f"{name} could not be run: {error}.") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise EmbeddedError(f"{name} failed with exit code {done.returncode}: {lines[-1] if lines else 'no message'}")
    return done.stdout
