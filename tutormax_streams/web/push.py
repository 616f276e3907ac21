"""Changes pushed to browsers: Server-Sent Events at `/events`, and the platform's WebSocket at `/ws/dashboard`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import faust
import orjson
from aiohttp import WSMsgType, hdrs, web

from agents.ports import SinkUnavailable
from tutormax_streams.web import alert_messages
from tutormax_streams.web.answers import naive
from tutormax_streams.web.cors import Cors
from tutormax_streams.web.feed import Feed, Listener, Message
from tutormax_streams.web.guard import HEADERS, staff_only
from tutormax_streams.web.patience import Shared

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 15.0
LONGEST_WRITE_SECONDS: Final = 10.0
MOST_CLIENT_BYTES: Final = 4096
LONGEST_SECONDS: Final = 15 * 60.0  # then the client comes back, and is asked again who it is
TOTALS_SECONDS: Final = 1.0  # all sockets are reset at once, and each wants totals then

Totals = Callable[[], Awaitable[dict[str, Any]]]


class Push:
    """The handlers. `totals` gives the payload of `analytics_update`; `clock` microseconds since 1970."""

    def __init__(self, feed: Feed, totals: Totals, clock: Callable[[], int], cors: Cors) -> None:
        self._feed = feed
        self._cors = cors
        self._totals = totals
        self._known_totals = Shared(TOTALS_SECONDS, self._ask_totals)
        self._clock = clock
        self._texts = lru_cache(maxsize=64)(self._made)  # written once for all sockets

    async def events(self, request: web.Request) -> web.StreamResponse:
        """`GET /events`: `metrics`, `tier`, `alert` and `reset`, as they happen; `Last-Event-ID` goes on where it left off."""
        staff_only(request)
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response  # what is written is dropped, so nobody would notice that the client has gone
        async with self._feed.listen(request.headers.get("Last-Event-ID")) as listener:
            try:
                await asyncio.wait_for(response.write(b"retry: 2000\n\n"), LONGEST_WRITE_SECONDS)
                async for message in _messages(listener):
                    await asyncio.wait_for(response.write(_sse(message)), LONGEST_WRITE_SECONDS)
                await asyncio.wait_for(response.write_eof(), LONGEST_WRITE_SECONDS)
            except (ConnectionError, TimeoutError):
                _hang_up(request)
        return response

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """`GET /ws/dashboard`: the platform's messages as JSON texts; `ping` is answered by an `analytics_update`."""
        staff_only(request)
        self._known_origin(request)
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MOST_CLIENT_BYTES)
        await socket.prepare(request)
        async with self._feed.listen() as listener:
            telling = asyncio.create_task(self._tell(socket, listener, request))
            try:
                await self._send(socket, "analytics_update", await self._known_totals())
                async for received in socket:
                    if received.type is WSMsgType.TEXT and received.data == "ping":
                        await self._send(socket, "analytics_update", {"pong": True})
            except (ConnectionError, TimeoutError):
                pass  # gone, or does not read
            finally:
                telling.cancel()
                await _close(socket, request)
        return socket

    async def _tell(self, socket: web.WebSocketResponse, listener: Listener, request: web.Request) -> None:
        try:
            async for message in _messages(listener):
                if message is None:
                    continue  # the protocol has a heartbeat of its own
                if message.event == "reset":
                    await self._send(socket, "analytics_update", await self._known_totals())
                for text in self._texts(message):
                    await asyncio.wait_for(socket.send_str(text), LONGEST_WRITE_SECONDS)
        except (ConnectionError, TimeoutError):
            pass  # gone, or does not read
        except Exception:  # whatever it was: open and told nothing, it would look like a quiet day
            logger.exception("a socket is closed, it cannot be told what changes")
        await _close(socket, request)

    def _known_origin(self, request: web.Request) -> None:
        """Browsers send cookies with sockets that other pages open, and ask nobody before."""
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host and not self._cors.allows(origin):
            raise web.HTTPForbidden

    async def _ask_totals(self) -> dict[str, Any]:
        try:
            return await self._totals()
        except SinkUnavailable as away:  # what it says names hosts and users: that is for the log
            logger.info("PostgreSQL does not answer: %s", away)
            return {"unavailable": "PostgreSQL does not answer"}

    def _made(self, message: Message) -> tuple[str, ...]:
        return tuple(self._text(kind, data) for kind, data in _platform_messages(message))

    def _text(self, kind: str, data: dict[str, Any]) -> str:
        return orjson.dumps({"type": kind, "data": data, "timestamp": naive(self._clock())}).decode()

    async def _send(self, socket: web.WebSocketResponse, kind: str, data: dict[str, Any]) -> None:
        await asyncio.wait_for(socket.send_str(self._text(kind, data)), LONGEST_WRITE_SECONDS)


async def _close(socket: web.WebSocketResponse, request: web.Request) -> None:
    closing = asyncio.ensure_future(socket.close())
    await asyncio.wait(
        {closing}, timeout=LONGEST_WRITE_SECONDS
    )  # it may end as if cancelled: aiohttp's writes share one wait
    closing.cancel()
    _hang_up(request)


def _hang_up(request: web.Request) -> None:
    """A connection that is only closed stays for as long as its client does not read what was written before."""
    if request.transport is not None:
        request.transport.abort()


def _platform_messages(message: Message) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a change is to the platform's front end: type and data of its messages."""
    if message.event == "metrics":
        data = orjson.loads(message.data)
        who = {"tutor_id": data["tutor_id"], "tutor_name": data["tutor_name"]}
        when = data["as_of"].removesuffix("Z")
        for window, row in data["windows"].items():
            yield "metrics_update", {**who, "window": window, "calculation_date": when, **row}
    elif message.alert is not None:
        yield "alert", alert_messages.platform_alert(message.alert)
        if task := alert_messages.platform_intervention(message.alert):
            yield "intervention", task


async def _messages(listener: Listener) -> AsyncIterator[Message | None]:
    """What to tell, and None when nothing was for a while; ends when the listener is dropped or has long been here."""
    ends_at = time.monotonic() + LONGEST_SECONDS
    dropped = asyncio.ensure_future(listener.dropped.wait())
    try:
        while not dropped.done() and time.monotonic() < ends_at:
            getting = asyncio.ensure_future(listener.queue.get())
            await asyncio.wait({getting, dropped}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
            else:
                getting.cancel()
                if not dropped.done():
                    yield None
    finally:
        dropped.cancel()


def _sse(message: Message | None) -> bytes:
    if message is None:
        return b": still here\n\n"
    identity = f"id: {message.id}\n" if message.id else ""
    return f"{identity}event: {message.event}\ndata: ".encode() + message.data + b"\n\n"


def attach(app: faust.App, push: Push) -> None:
    """Serve both from `app`'s web server."""

    @app.page("/events", name="events")
    async def events(_: Any, request: Any) -> Any:
        return await push.events(request)

    @app.page("/ws/dashboard", name="socket")
    async def socket(_: Any, request: Any) -> Any:
        return await push.socket(request)
