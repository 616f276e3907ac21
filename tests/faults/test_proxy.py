"""Doors close behind whoever stands in them."""

from __future__ import annotations

import gc
import socket
import time
from contextlib import ExitStack

import pytest

from tests.faults.proxy import Switchboard
from tutormax_streams.embedded.server import HOST

CONNECTIONS = 10


@pytest.mark.parametrize("stalled", [False, True])
def test_a_board_leaves_nothing_behind_that_was_not_ended(caplog: pytest.LogCaptureFixture, stalled: bool):
    with ExitStack() as ending, socket.create_server((HOST, 0)) as server:
        board = Switchboard()
        address = (HOST, board.door(server.getsockname()[1]).port)

        def connect() -> None:
            for _ in range(CONNECTIONS):
                ending.enter_context(socket.create_connection(address)).sendall(b"x")

        connect()
        time.sleep(0.2)
        if stalled:
            board.doors[0].stall()
        connect()  # some of these are still on their way in
        board.close()
        del board
        gc.collect()
    assert caplog.messages == []
