"""Doors: small TCP proxies between a worker and a server that can be cut, stalled or slowed.

They run in a thread of their own, so that what the driver computes never slows what passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from tutormax_streams.embedded.server import HOST, free_port

CHUNK_BYTES = 1 << 16


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without a goodbye."""
    linger = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


class Switchboard:
    """A thread with an event loop for some doors."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="switchboard", daemon=True)
        self._thread.start()
        self.doors: list[Door] = []

    def door(self, target: int, port: int | None = None) -> Door:
        """A new door to local port `target`, open."""
        door = Door(self._loop, target, port or free_port())
        asyncio.run_coroutine_threadsafe(door.listen(), self._loop).result(10)
        self.doors.append(door)
        return door

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        """Close all doors, and wait for who still passes or is just coming in: a loop must not be closed under them."""
        for door in self.doors:
            await door.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
            await asyncio.sleep(0)  # connections that were accepted before are handed over by now


class Door:
    """One proxy. The methods for tests may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int, port: int) -> None:
        self.port = port
        self._target = target
        self._loop = loop
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._delay_seconds = 0.0

    # -- for tests --------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Break every connection, and every new one."""
        self._in_loop(self._cut)

    def stall(self) -> None:
        """Connections stay, and nothing passes."""
        self._in_loop(self._passing.clear)

    def slow(self, seconds: float) -> None:
        """Whatever goes to the server takes this long."""

        def slow() -> None:
            self._delay_seconds = seconds

        self._in_loop(slow)

    def mend(self) -> None:
        """As at the beginning; what was stalled goes on."""
        self._in_loop(self._mend)

    def _in_loop(self, what: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(what)

    # -- in the loop ------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def close(self) -> None:
        """Whoever is inside comes to an end by itself."""
        self._server.close()
        self._mend()
        self._cut()

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._open:
            reset(writer)

    def _mend(self) -> None:
        self._is_cut, self._delay_seconds = False, 0.0
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            reset(writer)
            return
        try:
            from_server, to_server = await asyncio.open_connection(HOST, self._target)
        except OSError:  # as if we were not there: the server does not listen
            reset(writer)
            return
        ends = {writer, to_server}
        if self._is_cut:
            for end in ends:
                reset(end)
            return
        self._open |= ends
        pumps = [
            asyncio.ensure_future(self._pump(reader, to_server, is_inward=True)),
            asyncio.ensure_future(self._pump(from_server, writer, is_inward=False)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= ends
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in ends:
                end.close()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_inward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                if is_inward and self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
