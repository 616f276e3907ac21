"""The state of the whole deployment over HTTP, from any worker: its own, and that of all others, asked at once.

Who does not answer within `ASK_SECONDS` is listed as silent; nobody is waited for. The caller's own token goes along,
and a header says that the question was passed on, so that it is never passed on twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import faust
from aiohttp import web
from yarl import URL

from tutormax_streams.web.answers import naive
from tutormax_streams.web.asking import json_answer
from tutormax_streams.web.deployment import Gone, Silent, deployment
from tutormax_streams.web.guard import staff_only
from tutormax_streams.web.lookups import HOPS
from tutormax_streams.web.members import Members
from tutormax_streams.web.worker_state import WorkerState

logger = logging.getLogger(__name__)

PATH: Final = "/operations/state"
ASK_SECONDS: Final = 1.5
GONE_SECONDS: Final = 300.0  # for so long it is told that a worker has left


class Operations:
    """The handler. `owners` gives URLs by partition; `clock` microseconds since 1970, `monotonic` seconds."""

    def __init__(
        self,
        state: WorkerState,
        members: Members,
        owners: Callable[[], Mapping[int, str]],
        partitions: int,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._members = members
        self._owners = owners
        self._partitions = partitions
        self._clock = clock
        self._monotonic = monotonic
        self._answered: dict[str, tuple[float, str]] = {}  # when others last did, and their names
        self._client: aiohttp.ClientSession | None = None

    async def state(self, request: web.Request) -> web.Response:
        """`GET /operations/state`: of every worker, and what is wrong in words; of this one alone if it was passed on."""
        staff_only(request)
        own = self._state.answer()
        head = {"success": True, "timestamp": naive(self._clock())}
        if HOPS in request.headers:
            return json_answer({**head, "worker": own})
        passed = {name: request.headers[name] for name in ("Authorization", "Cookie") if name in request.headers}
        others = sorted((await self._members.urls()) - {own["url"]})
        told = dict(zip(others, await asyncio.gather(*(self._ask(url, passed) for url in others)), strict=True))
        states = [own, *(worker for worker in told.values() if worker)]
        silent, gone = self._missing(told)
        answer = deployment(states, silent, self._owners(), self._partitions, gone)
        return json_answer({**head, "asked": own["name"], **answer})

    def _missing(self, told: Mapping[str, Any]) -> tuple[list[Silent], list[Gone]]:
        """Who of those asked does not answer, and who answered lately and is known of no more."""
        now = self._monotonic()
        self._answered |= {url: (now, worker["name"]) for url, worker in told.items() if worker}
        self._answered = {
            url: (at, name) for url, (at, name) in self._answered.items() if url in told or now - at < GONE_SECONDS
        }
        silent = []
        for url in (url for url, worker in told.items() if not worker):
            at, name = self._answered.get(url, (None, None))
            silent.append(Silent(url, name, None if at is None else now - at))
        here = {worker["name"] for worker in told.values() if worker}  # one that came back may have another URL
        gone = [
            Gone(name, now - at) for url, (at, name) in self._answered.items() if url not in told and name not in here
        ]
        return silent, gone

    async def _ask(self, url: str, passed: dict[str, str]) -> dict[str, Any] | None:
        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_SECONDS))
        if self._client.closed:
            return None  # the worker stops, and its web server is the last to
        try:
            async with self._client.get(
                URL(url).with_path(PATH), headers={**passed, HOPS: "1"}, allow_redirects=False
            ) as response:
                if response.status != 200:
                    logger.info("the worker at %s answers %s", url, response.status)
                    return None
                worker = (await response.json())["worker"]
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as failure:
            logger.info("the worker at %s does not answer: %r", url, failure)
            return None
        # Under the name that the others know it by: partitions are found by it.
        return {**worker, "url": url} if isinstance(worker, dict) else None

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def attach(app: faust.App, operations: Operations, static: Path | None) -> None:
    """Serve it from `app`'s web server, and the page too where its files are."""

    @app.page(PATH, name="operations-state")
    async def state(_: Any, request: Any) -> Any:
        return await operations.state(request)

    if static is not None:

        @app.page("/operations", name="operations")
        async def page(_: Any, request: Any) -> Any:
            return web.FileResponse(static / "operations.html", headers={"Cache-Control": "no-cache"})
