"""Temporary tables that batches pass through: rows are copied in binary, then one statement moves them on.

A stage belongs to its session, is empty at the start of every transaction and knows nothing of keys or rules; its
columns are wider than the platform's, so that what does not fit is refused by the final statement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from psycopg.sql import SQL, Identifier

from tutormax_streams.postgres.database import Connection
from tutormax_streams.postgres.instants import POSTGRES_EPOCH_US


class Stage:
    """One temporary table. `types` are PostgreSQL types; `timestamptz` values are given as int µs since 1970."""

    def __init__(self, name: str, columns: Sequence[str], types: Sequence[str]) -> None:
        self.name = name
        self.columns = tuple(columns)
        # A timestamptz is sent as an int8 counted from PostgreSQL's own epoch (`instants`).
        self._wire_types = ["int8" if type_ == "timestamptz" else type_ for type_ in types]
        self._on_the_wire = _on_the_wire(types)
        table = Identifier(name)
        definitions = SQL(", ").join(
            SQL("{} {}").format(Identifier(column), _type(type_)) for column, type_ in zip(columns, types, strict=True)
        )
        self._create = SQL("CREATE TEMPORARY TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS").format(
            table, definitions
        )
        self._copy = SQL("COPY pg_temp.{} FROM STDIN (FORMAT BINARY)").format(table).as_bytes()
        self._clear = SQL("TRUNCATE pg_temp.{}").format(table).as_bytes()

    async def create(self, connection: Connection) -> None:
        """Make the table on this session, where it does not exist."""
        await connection.execute(self._create)

    async def fill(self, connection: Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Hold exactly these rows, in column order, until the transaction ends. Raises what a value that cannot be
        sent raises (`errors.VALUE_ERRORS`)."""
        if self.name in connection.stages_filled:
            await connection.execute(self._clear)
        connection.stages_filled |= {self.name}
        on_the_wire = self._on_the_wire
        async with connection.cursor() as cursor, cursor.copy(self._copy) as copy:
            copy.set_types(self._wire_types)
            # As `copy.write_row` does, but for a coroutine for each row.
            pack, send = copy.formatter.write_row, copy.writer.write
            for row in rows:
                if packed := pack(on_the_wire(row)):
                    await send(packed)


def prepared(*stages: Stage) -> Callable[[Connection], Awaitable[None]]:
    """Makes stages on a session that has none yet. To be run ahead of a transaction: a rollback would undo it."""

    async def prepare(connection: Connection) -> None:
        for stage in stages:
            if stage.name not in connection.stages_ready:
                await stage.create(connection)
                connection.stages_ready |= {stage.name}

    return prepare


def _on_the_wire(types: Sequence[str]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Compiled for these columns, as a named tuple is: a third of the time that a loop takes."""
    values = (
        f"None if row[{position}] is None else row[{position}] - {POSTGRES_EPOCH_US}"
        if type_ == "timestamptz"
        else f"row[{position}]"
        for position, type_ in enumerate(types)
    )
    compiled: Callable[[Sequence[Any]], Sequence[Any]] = eval(f"lambda row: ({', '.join(values)},)")  # noqa: S307
    return compiled


# No int4: psycopg cuts what does not fit into one, silently. An int8 is refused by the column it is moved on to.
_TYPES: Final = {"text", "text[]", "int8", "float8", "bool", "bytea", "timestamptz"}


def _type(name: str) -> SQL:
    if name not in _TYPES:
        raise ValueError(f"no stage column may have the type {name!r}")
    return SQL(name)
