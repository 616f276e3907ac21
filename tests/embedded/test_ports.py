"""Ports of embedded servers: nobody is given one that somebody else chose, whether or not a server listens there yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutormax_streams.embedded import server
from tutormax_streams.embedded.server import BLOCK_PORTS, PORTS, free_port

MANY = 1_000  # of 17,000: chosen at random, some would meet
CHOOSING = f"""
from tutormax_streams.embedded.server import free_port
print(*(free_port() for _ in range({MANY})), flush=True)
input()
"""


def test_no_port_is_given_out_twice():
    ports = [free_port() for _ in range(MANY)]
    assert len(set(ports)) == MANY
    assert all(port in PORTS for port in ports)


def test_processes_side_by_side_never_choose_the_same_port():
    """Nobody listens on any of them."""
    processes = [
        subprocess.Popen([sys.executable, "-c", CHOOSING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    chosen: list[str] = []
    for process in processes:
        assert process.stdout is not None
        chosen += process.stdout.readline().split()
    for process in processes:
        process.communicate("\n")
        assert process.returncode == 0
    assert len(set(chosen)) == len(chosen) == len(processes) * MANY


def test_ports_begin_anew_when_no_other_block_is_to_be_had(monkeypatch: pytest.MonkeyPatch):
    few = range(33_000, 33_000 + 2 * BLOCK_PORTS)  # nobody else's
    monkeypatch.setattr(server, "PORTS", few)
    ports = server._Ports()
    assert sorted(iter(ports.one, None)) == list(few)
    assert ports.one() is None
    ports.begin_anew()
    assert sorted(iter(ports.one, None)) == list(few)
