"""Students arrive by no event, so whoever a session or feedback names is made up where the platform has no row.

In a short transaction of its own, ahead of the batch: students are shared by all writers, and nobody should hold their
rows for the length of a batch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import psycopg
from psycopg.sql import SQL, Identifier

from models.rows import STUDENT_COLUMNS, student_stub_row
from tutormax_streams.postgres.arrays import texts
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.errors import VALUE_ERRORS, Fault, fault, reason
from tutormax_streams.postgres.staging import Stage, prepared

STAGE: Final = Stage(
    "tutormax_staged_students",
    STUDENT_COLUMNS,
    (
        *("text", "text", "int8", "text", "text[]", "bool", "text", "bool", "timestamptz", "text"),
        *("timestamptz", "timestamptz"),
    ),
)

_MISSING: Final = """
SELECT wanted.student_id FROM unnest(%s::text[]) AS wanted (student_id)
WHERE NOT EXISTS (SELECT FROM students WHERE students.student_id = wanted.student_id)
"""
_INSERT: Final = SQL(
    """
    INSERT INTO students ({columns}) SELECT {columns} FROM pg_temp.tutormax_staged_students
    ORDER BY student_id COLLATE "C" ON CONFLICT DO NOTHING
    """
).format(columns=SQL(", ").join(map(Identifier, STUDENT_COLUMNS)))


async def ensure(database: Database, student_ids: Collection[str], now_us: int) -> dict[str, tuple[str, str]]:
    """Create who is missing. Returns the ids that can be nobody's, each with reason code and sentence."""
    if not student_ids:
        return {}
    impossible: dict[str, tuple[str, str]] = {}
    try:
        missing = await database.run(partial(_missing, student_ids=student_ids))
        if missing:
            await _insert(database, missing, now_us)
    except (psycopg.Error, *VALUE_ERRORS) as error:
        if fault(error) is not Fault.ROW:
            raise
        for student_id in sorted(student_ids):
            try:
                await _insert(database, [student_id], now_us)
            except (psycopg.Error, *VALUE_ERRORS) as own_error:
                if fault(own_error) is not Fault.ROW:
                    raise
                impossible[student_id] = reason(own_error)
    return impossible


async def _missing(connection: Connection, student_ids: Collection[str]) -> list[str]:
    found = await connection.execute(_MISSING, [texts(student_ids)])
    return [student_id for (student_id,) in await found.fetchall()]


async def _insert(database: Database, student_ids: Sequence[str], now_us: int) -> None:
    rows = [student_stub_row(student_id, now_us) for student_id in student_ids]

    async def work(connection: Connection) -> None:
        await STAGE.fill(connection, rows)
        await connection.execute(_INSERT)

    await database.transaction(work, before=prepared(STAGE))
