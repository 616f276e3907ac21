"""Clients of a worker's streams: one that listens, and one that never reads."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from tests.flow.processes import Worker
from tests.flow.users import STAFF, token
from tutormax_streams.embedded.server import HOST

ESTABLISHED = "01"


class Event(NamedTuple):
    """A Server-Sent Event. `id` is empty where nobody can go on from."""

    id: str
    kind: str
    data: dict[str, Any]


class Stream:
    """What has come so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.told: Counter[str] = Counter()  # metrics by tutor
        self.is_open = asyncio.Event()

    @property
    def last_id(self) -> str:
        """Which a browser would send along when it comes back; empty if there was none."""
        return next((event.id for event in reversed(self.events) if event.id), "")

    def since(self, id_: str) -> list[Event]:
        """What came behind the event of this id."""
        place = [event.id for event in self.events].index(id_)
        return self.events[place + 1 :]

    def metrics(self, tutor_id: str) -> list[Event]:
        return [event for event in self.events if event.kind == "metrics" and event.data["tutor_id"] == tutor_id]

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Until the stream ends."""
        fields: dict[str, str] = {}
        async for line in response.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            self.is_open.set()
            if name:
                fields[name] = value
            elif "event" in fields:
                event = Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                self.events.append(event)
                if event.kind == "metrics":
                    self.told[event.data["tutor_id"]] += 1
            if not name:
                fields = {}


@asynccontextmanager
async def listening(worker: Worker, last_id: str = "", *, comes_back: bool = False) -> AsyncIterator[Stream]:
    """`/events` of a worker, from now on or from behind `last_id`; one that `comes_back` when it was hung up on goes on
    where it was, as a browser does: on a busy machine we, too, may read too slowly."""
    stream = Stream()

    async def listen() -> None:
        since = last_id
        while True:
            headers = {"Authorization": f"Bearer {token(STAFF)}"} | ({"Last-Event-ID": since} if since else {})
            async with client.get(f"http://{HOST}:{worker.port}/events", headers=headers) as response:
                assert response.status == 200
                await stream.read(response)
            if not comes_back:
                return
            since = stream.last_id

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as client:
        reading = asyncio.create_task(listen())
        opening = asyncio.create_task(stream.is_open.wait())
        try:
            await asyncio.wait((reading, opening), timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert opening.done(), reading.exception() if reading.done() else "nothing came"
            yield stream
        finally:
            opening.cancel()
            reading.cancel()


class NeverReads:
    """Asks for a stream, and leaves what comes where it is."""

    def __init__(self, port: int, path: str, token: str) -> None:
        upgrade = (
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}\r\n"
        )
        self._port = port
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect((HOST, port))
        asked = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        self._socket.sendall(f"{asked}{upgrade if path.startswith('/ws') else ''}\r\n".encode())

    def is_held(self) -> bool:
        """Whether the worker still has its end; what it wrote waits in the kernel in any case."""
        ends = f":{self._port:04X}", f":{self._socket.getsockname()[1]:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return any(line[3] == ESTABLISHED and line[1].endswith(ends[0]) and line[2].endswith(ends[1]) for line in lines)

    def close(self) -> None:
        self._socket.close()


def resident_bytes(worker: Worker) -> int:
    pages = int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1])
    return pages * 4096
