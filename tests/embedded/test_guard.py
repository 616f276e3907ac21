"""The guard of an embedded server leaves nothing behind, at whatever moment its parent dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tutormax_streams.embedded.server import GUARD


def order(home: Path, command: list[str]) -> str:
    """What a guard is told, in a directory that is to go with the server."""
    home.mkdir()
    return json.dumps(
        {
            "command": command,
            "log": str(home / "server.log"),
            "directory": str(home),
            "environment": {},
            "user": None,
            "group": None,
            "stop_signal": int(signal.SIGTERM),
            "grace_seconds": 5.0,
            "remove": str(home),
        }
    )


@pytest.mark.parametrize("command", [["sleep", "60"], ["true"]], ids=["the server runs", "the server ends by itself"])
@pytest.mark.parametrize("hears", [True, False], ids=["and it is read", "and nobody reads it"])
def test_a_parent_that_died_while_the_guard_began(tmp_path: Path, command: list[str], hears: bool):
    home = tmp_path / "home"
    reading, writing = os.pipe()
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), order(home, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if hears else writing,
        stderr=subprocess.PIPE,
    )
    os.close(reading)
    os.close(writing)
    assert guard.stdin is not None
    guard.stdin.close()
    guard.wait(10)
    assert not home.exists()


def test_the_directory_stays_while_the_parent_lives(tmp_path: Path):
    home = tmp_path / "home"
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", str(GUARD), order(home, ["true"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    guard.wait(10)
    assert (home / "server.log").exists(), "its last words are for the parent"
    guard.communicate()
