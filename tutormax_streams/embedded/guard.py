"""The process between us and an embedded server: it ends the server when we end, however we end.

Run as ``python -I -S guard.py JSON`` with a pipe as standard input; imports only the standard library, so it starts in
milliseconds. It prints the server's process id and then obeys the pipe:

    b"s"         stop: the server's own stop signal, and SIGKILL when it takes longer than the grace
    b"k"         SIGKILL at once
    end of file  our parent is gone (SIGKILL included): stop as above, then remove the server's directory

The other direction is covered by PR_SET_PDEATHSIG on Linux: a guard that is killed takes the server along. The
guard, not the parent, sets it, because it fires at the end of the *thread* that forked, and the guard has only one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PARENT_POLL_SECONDS = 1.0  # only for parents that forked and so left a copy of the pipe's other end behind


def main(order: dict[str, Any]) -> int:
    parent = os.getppid()
    waker, wakened = os.pipe()
    os.set_blocking(wakened, False)
    signal.set_wakeup_fd(wakened)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)  # wakes us; treated like a parent that is gone
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def tie_to_guard() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(order["log"], "ab") as log:
        server = subprocess.Popen(
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=order["directory"],
            env={**os.environ, **order["environment"]},
            user=order["user"],
            group=order["group"],
            extra_groups=None if order["user"] is None else [],
            process_group=0,
            preexec_fn=tie_to_guard,  # after the change of user, which would clear it
        )
    with contextlib.suppress(BrokenPipeError):  # who was to read it died just now, as the pipe will tell
        print(server.pid, flush=True)

    told: bytes | None = None
    while server.poll() is None:
        readable, _, _ = select.select([0, waker], [], [], PARENT_POLL_SECONDS)
        noticed = os.read(waker, 64) if waker in readable else b""
        if 0 in readable:
            told = os.read(0, 1)
        elif signal.SIGTERM in noticed or os.getppid() != parent:
            told = b""
        else:
            continue
        if told == b"k":
            _signal_group(server.pid, signal.SIGKILL)
            server.wait()
        else:
            _stop(server, order["stop_signal"], order["grace_seconds"])
    if told is None and select.select([0], [], [], 0)[0]:  # it ended by itself, and our parent perhaps at the same time
        told = os.read(0, 1)
    if told == b"":
        shutil.rmtree(order["remove"], ignore_errors=True)
    return server.returncode


def _stop(server: subprocess.Popen[bytes], stop_signal: int, grace_seconds: float) -> None:
    server.send_signal(stop_signal)
    try:
        server.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        _signal_group(server.pid, signal.SIGKILL)
        server.wait()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


if __name__ == "__main__":
    sys.exit(min(abs(main(json.loads(sys.argv[1]))), 255))
