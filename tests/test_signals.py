"""A worker that has not begun to work ends at the first signal, wherever that meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

IN_A_CALLBACK = """
import os, signal, time, weakref
from tutormax_streams import signals

class Thing: ...

signals.end_the_process()
thing = Thing()
watched = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.{name}), time.sleep(0.1)))
del thing  # what is raised in the callback is printed and ignored
print("went on")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_a_callback_whose_exceptions_are_ignored_is_obeyed(name: str):
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK.format(name=name)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
