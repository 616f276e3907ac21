"""Reads what PostgreSQL holds back as events, page by page, for a rebuild; and counts for the checks before it.

Pages follow the primary key, so a load that was interrupted goes on after the last key it has seen, whatever was
written meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from psycopg.sql import SQL, Composed, Identifier

from models.events import Event
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.kinds import KINDS, Kind
from tutormax_streams.postgres.parking import unpacked


@dataclass(frozen=True, slots=True)
class Page:
    """Consecutive rows of one table. `last` is the key to go on after; None when there are no more."""

    events: list[Event]
    unreadable: list[tuple[str, str]]  # primary key, and what is wrong with the row: another program wrote it
    last: str | None


class FencePosition(NamedTuple):
    """The furthest position in one partition of `facts` that rows were written under, within one epoch."""

    epoch: int
    facts_partition: int
    position: int
    as_of_us: int
    tutors: int


class Loader:
    """Reader of one database. Every method raises `SinkUnavailable` when it cannot answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, kind: str, after: str = "", limit: int = 1000, since_us: int | None = None) -> Page:
        """The next rows of a kind (`kinds.KINDS`) behind the primary key `after`.

        With `since_us` only what can still matter to a window: sessions that start or changed at or after it, their
        feedback, and tutor events from then on. Tutors always.
        """
        return await self._database.run(
            partial(_page, kind=KINDS[kind], after=after, limit=limit, since_us=since_us),
        )

    async def parked_page(self, after: str = "", limit: int = 1000) -> Page:
        """The next records that wait for a parent and so are in no table, behind the key `after` of such a page."""
        return await self._database.run(partial(_parked_page, after=after, limit=limit))

    async def counts(self, since_us: int | None = None) -> dict[str, int]:
        """Rows by kind, counted; with `since_us` as `page` would read them, and what is parked besides."""
        return await self._database.run(partial(_counts, since_us=since_us))

    async def fences(self) -> list[FencePosition]:
        """How far the fences reach, by epoch and partition of `facts`."""
        return await self._database.run(_fences)


# An id of the platform is never empty, so every key is behind "".
_SINCE: Final = {
    "tutor": SQL("true"),
    "session": SQL("greatest(row.scheduled_start, row.updated_at) >= {since}"),
    "feedback": SQL(
        "EXISTS (SELECT FROM sessions WHERE sessions.session_id = row.session_id"
        " AND greatest(sessions.scheduled_start, sessions.updated_at) >= {since})"
    ),
    "tutor_event": SQL("row.event_timestamp >= {since}"),
}


async def _page(connection: Connection, kind: Kind, after: str, limit: int, since_us: int | None) -> Page:
    found = await connection.execute(_page_query(kind, since_us), [after, limit], binary=True)
    rows = await found.fetchall()
    events: list[Event] = []
    unreadable: list[tuple[str, str]] = []
    for row in rows:
        try:
            events.append(kind.event_of(row))
        except (ValueError, TypeError) as error:
            unreadable.append((row[0], f"{type(error).__name__}: {error}"))
    return Page(events, unreadable, rows[-1][0] if len(rows) == limit else None)


def _page_query(kind: Kind, since_us: int | None) -> Composed:
    return SQL(
        "SELECT {columns} FROM {table} AS row WHERE row.{key} > %s AND {condition} ORDER BY row.{key} LIMIT %s"
    ).format(
        columns=kind.selected(),
        table=Identifier(kind.table),
        key=Identifier(kind.columns[0]),
        condition=_condition(kind, since_us),
    )


def _condition(kind: Kind, since_us: int | None) -> SQL | Composed:
    if since_us is None:
        return SQL("true")
    seconds, microseconds = divmod(since_us, 1_000_000)
    since = SQL("(to_timestamp({}) + {} * interval '1 microsecond')").format(seconds, microseconds)
    return _SINCE[kind.name].format(since=since)


async def _parked_page(connection: Connection, after: str, limit: int) -> Page:
    found = await connection.execute(
        """
        SELECT kind || ' ' || id, payload FROM tutormax_streams.parked
        WHERE (kind || ' ' || id) COLLATE "C" > %s ORDER BY (kind || ' ' || id) COLLATE "C" LIMIT %s
        """,
        [after, limit],
        binary=True,
    )
    rows = await found.fetchall()
    events: list[Event] = []
    unreadable: list[tuple[str, str]] = []
    for name, payload in rows:
        try:
            events.append(unpacked(payload).event)
        except msgspec.DecodeError as error:
            unreadable.append((name, f"{type(error).__name__}: {error}"))
    return Page(events, unreadable, rows[-1][0] if len(rows) == limit else None)


async def _counts(connection: Connection, since_us: int | None) -> dict[str, int]:
    counts = {}
    for kind in KINDS.values():
        found = await connection.execute(
            SQL("SELECT count(*) FROM {} AS row WHERE {}").format(Identifier(kind.table), _condition(kind, since_us))
        )
        counts[kind.name] = _only(await found.fetchone())
    if since_us is not None:
        found = await connection.execute("SELECT count(*) FROM tutormax_streams.parked")
        counts["parked"] = _only(await found.fetchone())
    return counts


async def _fences(connection: Connection) -> list[FencePosition]:
    found = await connection.execute(
        """
        SELECT epoch, facts_partition, max(position), max(as_of), count(*) FROM tutormax_streams.metric_fences
        GROUP BY epoch, facts_partition ORDER BY epoch, facts_partition
        """,
        binary=True,
    )
    return [FencePosition(*row) for row in await found.fetchall()]


def _only(row: tuple[Any, ...] | None) -> int:
    assert row is not None
    return int(row[0])
