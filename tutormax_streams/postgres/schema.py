"""Creates what is missing in the database and says in sentences what is wrong with what is there.

The platform's tables are created only where they do not exist, and never altered.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString

from psycopg import AsyncConnection, errors

from models import rows
from tutormax_streams.postgres.platform_tables import PLATFORM_TABLES
from tutormax_streams.postgres.side_tables import SIDE_TABLES, SIDE_TABLES_VERSION

_ADVISORY_KEY: Final = 0x7475746F726D6178  # "tutormax": workers that start together create things one after another
_MINIMUM_SERVER: Final = 130000

_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "tutors": rows.TUTOR_COLUMNS,
    "students": rows.STUDENT_COLUMNS,
    "sessions": rows.SESSION_COLUMNS,
    "student_feedback": rows.FEEDBACK_COLUMNS,
    "tutor_events": rows.TUTOR_EVENT_COLUMNS,
    "tutor_performance_metrics": rows.METRIC_COLUMNS,
}
_KEYS: Final[tuple[tuple[str, str], ...]] = (
    ("tutors", "tutor_id"),
    ("tutors", "email"),
    ("students", "student_id"),
    ("sessions", "session_id"),
    ("student_feedback", "feedback_id"),
    ("student_feedback", "session_id"),
    ("tutor_events", "event_id"),
    ("tutor_performance_metrics", "metric_id"),
)
_SIDE_NAMES: Final = [
    f"tutormax_streams.{name}"
    for name in ("layout", "parked", "unannounced", "parked_metrics", "metric_fences", "announced", "alert_outbox")
]
_TEXT_COLUMNS: Final = {
    "tutors": ("status", "behavioral_archetype"),
    "sessions": ("session_type",),
    "tutor_performance_metrics": ("window", "performance_tier"),
}
_MIGRATE_HINT: Final = "run the platform's migrations, or `tutormax-streams database ensure` for a database of its own"
_GRANT_HINT: Final = "GRANT USAGE ON SCHEMA tutormax_streams and GRANT ALL ON ALL TABLES in it to the user"
_ENSURE_HINT: Final = "run `tutormax-streams database ensure`"


async def ensure_platform_tables(connection: AsyncConnection[Any]) -> list[str]:
    """Create those of the platform's tables that do not exist; returns their names. Safe when several do it at once."""
    created = []
    async with connection.transaction():
        await _lock(connection)
        present = await _present(connection, PLATFORM_TABLES)
        for table, statements in PLATFORM_TABLES.items():
            if table not in present:
                for statement in statements:
                    await connection.execute(statement)
                created.append(table)
    return created


async def ensure_side_tables(connection: AsyncConnection[Any]) -> None:
    """Create our schema and what is missing of its tables, and bring older layouts along; a later one is left alone.
    Idempotent, and safe when several do it at once."""
    async with connection.transaction():
        await _lock(connection)
        found = await _layout_version(connection)
        if found is not None and found > SIDE_TABLES_VERSION:
            return  # `check` says what to do
        if found == SIDE_TABLES_VERSION and not await _missing_side_tables(connection):
            return  # so that a user who may create nothing may ask
        for statement in SIDE_TABLES:
            await connection.execute(statement)
        await connection.execute(
            "INSERT INTO tutormax_streams.layout (version) VALUES (%s)"
            " ON CONFLICT (single) DO UPDATE SET version = excluded.version",
            [SIDE_TABLES_VERSION],
        )


async def check(connection: AsyncConnection[Any]) -> list[str]:
    """What keeps this application from working on this database, one sentence each with the way out; [] if nothing."""
    problems = await _server_problems(connection)
    missing = set(_COLUMNS) - await _present(connection, _COLUMNS)
    if missing:
        names = ", ".join(sorted(missing))
        problems.append(f"The platform's tables {names} do not exist, or this user may not see them: {_MIGRATE_HINT}.")
    for table in _COLUMNS.keys() - missing:
        problems += await _table_problems(connection, table)
    for table, column in _KEYS:
        if table not in missing and not await _is_unique(connection, table, column):
            problems.append(f"{table}.{column} is not unique, and upserts need it to be: {_MIGRATE_HINT}.")
    return problems + await _side_table_problems(connection)


async def _server_problems(connection: AsyncConnection[Any]) -> list[str]:
    problems = []
    version, encoding, replica, read_only, temporary = await _one(
        connection,
        """
        SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
            current_setting('default_transaction_read_only')::bool,
            has_database_privilege(current_database(), 'TEMPORARY')
        """,
    )
    if version < _MINIMUM_SERVER:
        problems.append(f"PostgreSQL {version // 10000} is too old: use 13 or later (15 is what is tested).")
    if encoding != "UTF8":
        problems.append(f"The database is encoded in {encoding}: texts need UTF8; create the database anew.")
    if replica or read_only:
        problems.append("The database is read-only (a replica?): point the application at the primary.")
    elif not temporary:
        problems.append("This user may not create temporary tables: GRANT TEMPORARY ON DATABASE … TO the user.")
    return problems


async def _table_problems(connection: AsyncConnection[Any], table: str) -> list[str]:
    problems = []
    found = await connection.execute(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    types = dict(await found.fetchall())
    absent = [column for column in _COLUMNS[table] if column not in types]
    if absent:
        problems.append(f"{table} lacks the columns {', '.join(absent)}: {_MIGRATE_HINT}.")
    problems += [
        f"{table}.{column} is a {types[column]}, not a VARCHAR of member names: {_MIGRATE_HINT}."
        for column in _TEXT_COLUMNS.get(table, ())
        if types.get(column, "text") not in ("character varying", "text")
    ]
    (granted,) = await _one(
        connection,
        "SELECT has_table_privilege(to_regclass(%s), 'SELECT') AND has_table_privilege(to_regclass(%s), 'INSERT')"
        " AND has_table_privilege(to_regclass(%s), 'UPDATE')",
        table,
        table,
        table,
    )
    if not granted:
        problems.append(
            f"This user may not read and write {table}: GRANT SELECT, INSERT, UPDATE ON {table} TO the user."
        )
    return problems


async def _side_table_problems(connection: AsyncConnection[Any]) -> list[str]:
    try:
        version = await _layout_version(connection)
    except errors.InsufficientPrivilege:
        return [f"This user may not read our tables: {_GRANT_HINT}."]
    if version is None:
        return [f"Our tables in the schema tutormax_streams are missing: {_ENSURE_HINT}."]
    if version < SIDE_TABLES_VERSION:
        older = f"this program brings it to layout {SIDE_TABLES_VERSION}: {_ENSURE_HINT}"
        return [f"Our tables in the schema tutormax_streams have layout {version}, {older}."]
    if version > SIDE_TABLES_VERSION:
        known = f"this program knows {SIDE_TABLES_VERSION}: run the program that made them"
        return [f"Our tables in the schema tutormax_streams have layout {version}, {known}."]
    if missing := await _missing_side_tables(connection):
        return [f"Our tables {', '.join(sorted(missing))} are missing: {_ENSURE_HINT}."]
    found = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE NOT has_table_privilege(name::regclass, 'SELECT')"
        " OR NOT has_table_privilege(name::regclass, 'INSERT') OR NOT has_table_privilege(name::regclass, 'UPDATE')"
        " OR NOT has_table_privilege(name::regclass, 'DELETE')",
        [_SIDE_NAMES],
    )
    denied = [name for (name,) in await found.fetchall()]
    return [f"This user may not read and write {', '.join(denied)}: {_GRANT_HINT}."] if denied else []


async def _missing_side_tables(connection: AsyncConnection[Any]) -> set[str]:
    return set(_SIDE_NAMES) - await _present(connection, _SIDE_NAMES)


async def _layout_version(connection: AsyncConnection[Any]) -> int | None:
    if not await _present(connection, ["tutormax_streams.layout"]):
        return None
    found = await connection.execute("SELECT version FROM tutormax_streams.layout")
    row = await found.fetchone()
    return None if row is None else int(row[0])


async def _is_unique(connection: AsyncConnection[Any], table: str, column: str) -> bool:
    (unique,) = await _one(
        connection,
        """
        SELECT EXISTS (
            SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = to_regclass(%s) AND a.attname = %s AND i.indisunique AND i.indnkeyatts = 1
                AND i.indpred IS NULL AND i.indisvalid
        )
        """,
        table,
        column,
    )
    return bool(unique)


async def _present(connection: AsyncConnection[Any], names: Any) -> set[str]:
    found = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL", [list(names)]
    )
    return {name for (name,) in await found.fetchall()}


async def _lock(connection: AsyncConnection[Any]) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ADVISORY_KEY])


async def _one(connection: AsyncConnection[Any], query: LiteralString, *values: Any) -> tuple[Any, ...]:
    found = await connection.execute(query, list(values))
    row = await found.fetchone()
    assert row is not None
    return tuple(row)
