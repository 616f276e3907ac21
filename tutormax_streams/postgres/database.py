"""Connections to PostgreSQL on which no wait is endless: a few sessions, opened on demand, each piece of work under a
deadline and undone when its caller is cancelled.

Why not a pool library: when the server is away it retries in the background on a back-off of its own and answers
"timeout"; here the caller learns the reason at once, the sink's own back-off rules, and a cancelled caller is rid of
its connection within `ABANDON_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import conninfo as conninfo_parts
from psycopg.pq import TransactionStatus

from tutormax_streams.postgres import instants
from tutormax_streams.postgres.errors import Fault, SinkUnavailable, fault, sentence

logger = logging.getLogger(__name__)

T = TypeVar("T")

ABANDON_SECONDS: Final = 3.0
"""Longest time that cancelling a piece of work takes, the server frozen included: partitions that leave wait no longer than 5 s."""

CLASH_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Deadlines:
    """Limits in seconds; each is reported as `SinkUnavailable` when it passes."""

    connect: float = 5.0
    statement: float = 20.0  # one statement, enforced by the server
    lock: float = 5.0  # waiting for one lock, enforced by the server
    work: float = 30.0  # everything from asking for a connection to the commit, enforced here


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """One session. `timestamptz` is read and written as int µs since 1970 in binary statements (`instants`)."""

    opened_at: float = 0.0
    stages_ready: frozenset[str] = frozenset()  # names of the `staging` tables made on this session
    stages_filled: frozenset[str] = frozenset()  # of those, the ones filled in the current transaction


Work = Callable[[Connection], Awaitable[T]]


class Database:
    """Up to `size` sessions to one database. Safe for concurrent tasks of one event loop."""

    def __init__(
        self,
        conninfo: str,
        *,
        size: int = 4,
        deadlines: Deadlines | None = None,
        application_name: str = "tutormax-streams",
        max_age_seconds: float = 1800.0,
    ) -> None:
        self.deadlines = deadlines or Deadlines()
        self._conninfo = _conninfo(conninfo, self.deadlines, application_name)
        self._session_settings = _session_settings(self.deadlines)
        self._max_age_seconds = max_age_seconds
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._abandoning: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect once. Raises `SinkUnavailable` when the server cannot be reached; a later `run` tries again."""
        await self.ping()

    async def close(self) -> None:
        """Close idle sessions and wait for abandoned ones. Work still running keeps its session until it ends."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
        if self._abandoning:
            await asyncio.wait(self._abandoning, timeout=ABANDON_SECONDS)

    async def ping(self) -> None:
        """Raises `SinkUnavailable` unless the server answers a query."""
        await self.run(_ping)

    async def transaction(self, work: Work[T], *, before: Work[None] | None = None, seconds: float | None = None) -> T:
        """`work` in one transaction, committed before the return. Clashes with other writers are repeated, so `work`
        must not change anything but the database. `before` prepares the session ahead of the transaction.

        Raises:
            SinkUnavailable: nothing was written (or, if the connection broke during the commit itself, perhaps all).
            psycopg.Error or a value error: `fault()` is ROW or BUG; nothing was written.
        """

        async def in_transaction(connection: Connection) -> T:
            if before is not None:
                await before(connection)
            connection.stages_filled = frozenset()
            async with connection.transaction():
                return await work(connection)

        for attempt in range(1, CLASH_ATTEMPTS + 1):
            try:
                return await self.run(in_transaction, seconds=seconds)
            except psycopg.Error as error:
                if fault(error) is not Fault.CLASH:
                    raise
                if attempt == CLASH_ATTEMPTS:
                    raise SinkUnavailable(f"other writers kept interfering: {sentence(error)}") from error
                logger.info("a transaction met another writer's and is repeated: %s", sentence(error))
                await asyncio.sleep(random.uniform(0.01, 0.05) * attempt)
        raise AssertionError("unreachable")

    async def run(self, work: Work[T], *, seconds: float | None = None) -> T:
        """`work` on a session in autocommit mode, within `seconds` (default: `Deadlines.work`).

        A cancelled or overdue work is cancelled on the server, its session closed, and thereby its transaction
        rolled back, within `ABANDON_SECONDS`. Errors as for `transaction`, and CLASH besides.
        """
        limit = self.deadlines.work if seconds is None else seconds
        try:
            async with asyncio.timeout(limit), self._slots:
                return await self._run(work)
        except TimeoutError as error:
            raise SinkUnavailable(f"PostgreSQL did not finish within {limit:g} s") from error
        except (psycopg.Error, OSError) as error:
            if fault(error) is Fault.INFRASTRUCTURE:
                raise SinkUnavailable(sentence(error)) from error
            raise

    async def _run(self, work: Work[T]) -> T:
        connection = await self._checkout()

        async def worked() -> T:
            if not connection.opened_at:
                await self._configure(connection)
            return await work(connection)

        # In a task of its own: psycopg answers a cancellation by waiting for the server, up to ten seconds.
        task = asyncio.create_task(worked())
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            abandoning = asyncio.create_task(_abandon(connection, task))
            self._abandoning.add(abandoning)
            abandoning.add_done_callback(self._abandoning.discard)
            await asyncio.shield(abandoning)
            raise
        error = task.exception()
        if error is not None and fault(error) is Fault.INFRASTRUCTURE:
            # Even where the session survived (a statement out of time, a stale plan): a fresh one starts clean.
            await connection.close()
        await self._release(connection)
        return task.result()

    async def _checkout(self) -> Connection:
        oldest = time.monotonic() - self._max_age_seconds
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.opened_at > oldest:
                return connection
            await connection.close()
        if self._closed:
            raise SinkUnavailable("the connection to PostgreSQL was closed by this worker")
        # Never prepared: a plan made while a table was empty would scan it for ever. (Not by plan_cache_mode, which
        # would have the server plan each of its foreign-key checks anew, at twice the cost of all the rest.)
        return await Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    async def _configure(self, connection: Connection) -> None:
        instants.register(connection)
        settings = self._session_settings
        await connection.execute(_APPLY_SETTINGS, [list(settings), list(settings.values())])
        connection.opened_at = time.monotonic()

    async def _release(self, connection: Connection) -> None:
        status = connection.pgconn.transaction_status
        if self._closed or status != TransactionStatus.IDLE:
            await connection.close()
        else:
            self._idle.append(connection)


# Only what this server knows: an unknown name would refuse the whole session.
_APPLY_SETTINGS: Final = """
SELECT set_config(wanted.name, wanted.value, false)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) JOIN pg_settings AS known ON known.name = wanted.name
"""


def _session_settings(deadlines: Deadlines) -> Mapping[str, str]:
    def milliseconds(seconds: float) -> str:
        return str(max(1, round(seconds * 1000)))

    return {
        "TimeZone": "UTC",
        "statement_timeout": milliseconds(deadlines.statement),
        "lock_timeout": milliseconds(deadlines.lock),
        "idle_in_transaction_session_timeout": milliseconds(deadlines.work),
        "jit": "off",
    }


def _conninfo(conninfo: str, deadlines: Deadlines, application_name: str) -> str:
    defaults: dict[str, Any] = {
        "application_name": application_name,
        "client_encoding": "UTF8",
        "connect_timeout": max(1, round(deadlines.connect)),
        # A peer that vanished without a word is noticed within ten seconds.
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    return conninfo_parts.make_conninfo(**{**defaults, **conninfo_parts.conninfo_to_dict(conninfo)})


MOST_ROUND_TRIP_SECONDS: Final = 1.0


async def clock_skew(database: Database, clock: Callable[[], int]) -> float | None:
    """Seconds by which `clock` (µs since 1970) is ahead of PostgreSQL's, right to half a second; None where it is away
    or slow to answer."""

    async def ask(connection: Connection) -> float | None:
        asked, began = clock(), time.monotonic()
        cursor = await connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
        row = await cursor.fetchone()
        trip = time.monotonic() - began
        assert row is not None
        return (asked - row[0]) / 1e6 + trip / 2 if trip <= MOST_ROUND_TRIP_SECONDS else None

    try:
        return await database.run(ask, seconds=2 * MOST_ROUND_TRIP_SECONDS)
    except SinkUnavailable:
        return None  # those who write say so


async def _ping(connection: Connection) -> None:
    await connection.execute("SELECT 1")


async def _abandon(connection: Connection, task: asyncio.Task[Any]) -> None:
    """End `task`, which is using `connection`, and the session with it, in bounded time."""
    # First ask the server to stop: a session that waits for a lock does not notice that its client has gone.
    with contextlib.suppress(Exception):
        await connection.cancel_safe(timeout=ABANDON_SECONDS / 3)
    # Then hang up. The descriptor stays open until the task has let go of it, so nobody else can be given its number.
    _hang_up(connection)
    await asyncio.wait({task}, timeout=ABANDON_SECONDS / 3)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=ABANDON_SECONDS / 3)
    with contextlib.suppress(Exception):
        await connection.close()
    if task.done() and not task.cancelled():
        task.exception()  # seen: the caller is told of its cancellation instead


def _hang_up(connection: Connection) -> None:
    with contextlib.suppress(OSError, psycopg.Error):
        duplicate = socket.socket(fileno=os.dup(connection.pgconn.socket))
        with duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
