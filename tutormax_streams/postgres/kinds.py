"""The four kinds of entity that are persisted: their tables, stages and statements, generated from one description.

1. Entities are told apart by home id (contract §2.5): for feedback that is the session, not the feedback.
2. A row replaces the stored one only if its version time is strictly greater; equal times are settled in
   `records` by digest, and then written with `settle`, which admits equality.
3. A row whose parents are absent is left out, not refused. Both statements return the keys that were left out.
4. Rows go in the order of their key's bytes, so that two writers meet in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, LiteralString

from psycopg.sql import SQL, Composed, Identifier

from models import rows
from models.events import Event
from tutormax_streams.postgres.staging import Stage


@dataclass(frozen=True)
class Kind:
    """One kind of entity and how it is stored."""

    name: str
    table: LiteralString
    key: LiteralString  # column of the home id
    version: LiteralString  # column of the version time
    columns: tuple[str, ...]
    types: tuple[str, ...]  # of the stage; jsonb passes as text
    parents: tuple[tuple[LiteralString, LiteralString], ...]  # (column, table), the column named alike in both
    row_of: Callable[[Any], rows.Row]
    event_of: Callable[[Sequence[Any]], Event]
    json_columns: tuple[str, ...] = ()
    # Column that the upsert of an existing row leaves as it is; see `emails`.
    apart: LiteralString | None = None
    # Column that another entity's row may already hold; the staged value then gives way to this expression of the key.
    yields: tuple[LiteralString, LiteralString] | None = None

    @cached_property
    def stage(self) -> Stage:
        return Stage(f"tutormax_staged_{self.table}", self.columns, self.types)

    @cached_property
    def upsert(self) -> bytes:
        """Moves the stage on where the staged version is later; returns (key, given id) of what came out otherwise."""
        return self._upsert(SQL("<")).as_bytes()

    @cached_property
    def settle(self) -> bytes:
        """The same where it is later or equally late."""
        return self._upsert(SQL("<=")).as_bytes()

    @cached_property
    def stored(self) -> bytes:
        """Rows by keys, as `event_of` takes them; to be read in binary."""
        return (
            SQL("SELECT {columns} FROM {table} WHERE {key} = ANY(%s::text[])")
            .format(columns=self.selected(), table=Identifier(self.table), key=Identifier(self.key))
            .as_bytes()
        )

    @cached_property
    def key_position(self) -> int:
        return self.columns.index(self.key)

    @cached_property
    def version_position(self) -> int:
        return self.columns.index(self.version)

    def gave_way(self, stored: Sequence[Any]) -> bool:
        """Whether a stored row bears the substitute of an id that another entity's row holds."""
        return self.yields is not None and str(stored[self.columns.index(self.yields[0])]).startswith(_SUBSTITUTE)

    def selected(self) -> Composed:
        """The columns as `event_of` takes them."""
        return SQL(", ").join(
            SQL("{}::text").format(Identifier(column)) if column in self.json_columns else Identifier(column)
            for column in self.columns
        )

    def _upsert(self, beaten: SQL) -> Composed:
        yields = self.yields
        return SQL(
            """
            WITH moved AS (
                INSERT INTO {table} AS stored ({columns})
                SELECT {values} FROM pg_temp.{stage} AS staged
                WHERE {parents_exist}
                ORDER BY staged.{key} COLLATE "C"
                ON CONFLICT ({key}) DO UPDATE SET {assignments}
                WHERE stored.{version} {beaten} excluded.{version}
                RETURNING {key}{given}
            )
            SELECT staged.{key}, {answer} FROM pg_temp.{stage} AS staged LEFT JOIN moved ON moved.{key} = staged.{key}
            WHERE {odd}
            """
        ).format(
            table=Identifier(self.table),
            stage=Identifier(self.stage.name),
            key=Identifier(self.key),
            version=Identifier(self.version),
            beaten=beaten,
            columns=SQL(", ").join(map(Identifier, self.columns)),
            values=SQL(", ").join(map(self._staged_value, self.columns)),
            parents_exist=SQL(" AND ").join(
                SQL("EXISTS (SELECT FROM {parent} AS parent WHERE parent.{column} = staged.{column})").format(
                    parent=Identifier(parent), column=Identifier(column)
                )
                for column, parent in self.parents
            )
            if self.parents
            else SQL("true"),
            assignments=SQL(", ").join(
                SQL("{0} = excluded.{0}").format(Identifier(column))
                for column in self.columns
                if column not in (self.key, self.apart)
            ),
            given=SQL(", {}").format(Identifier(yields[0])) if yields else SQL(""),
            answer=SQL("moved.{}").format(Identifier(yields[0])) if yields else SQL("NULL"),
            odd=SQL("moved.{0} IS DISTINCT FROM staged.{0}").format(Identifier(yields[0]))
            if yields
            else SQL("moved.{} IS NULL").format(Identifier(self.key)),
        )

    def _staged_value(self, column: str) -> Composed:
        value = SQL("staged.{}").format(Identifier(column))
        if column in self.json_columns:
            return SQL("{}::jsonb").format(value)
        if self.yields and column == self.yields[0]:
            return SQL(
                "CASE WHEN EXISTS (SELECT FROM {table} AS other WHERE other.{column} = staged.{column}"
                " AND other.{key} <> staged.{key}) THEN {substitute} ELSE {value} END"
            ).format(
                table=Identifier(self.table),
                column=Identifier(column),
                key=Identifier(self.key),
                substitute=SQL(self.yields[1]),
                value=value,
            )
        return value


# The feedback id of a session whose own is another's already: 50 characters at most, and the same for every version.
_SUBSTITUTE: Final = "session-"
_SUBSTITUTE_FEEDBACK_ID: Final[LiteralString] = (
    "'session-' || left(encode(sha256(convert_to(staged.session_id, 'UTF8')), 'hex'), 40)"
)

TUTOR: Final = Kind(
    name="tutor",
    table="tutors",
    key="tutor_id",
    version="updated_at",
    columns=rows.TUTOR_COLUMNS,
    types=(
        *("text", "text", "text", "timestamptz", "text", "text[]", "text", "text", "float8", "text"),
        *("timestamptz", "timestamptz"),
    ),
    parents=(),
    row_of=rows.tutor_row,
    event_of=rows.tutor_of,
    apart="email",
)
SESSION: Final = Kind(
    name="session",
    table="sessions",
    key="session_id",
    version="updated_at",
    columns=rows.SESSION_COLUMNS,
    types=(
        *("text", "text", "text", "int8", "timestamptz", "timestamptz", "int8", "text", "text", "bool", "bool", "int8"),
        *("float8", "bool", "bool", "timestamptz", "timestamptz"),
    ),
    parents=(("tutor_id", "tutors"), ("student_id", "students")),
    row_of=rows.session_row,
    event_of=rows.session_of,
)
FEEDBACK: Final = Kind(
    name="feedback",
    table="student_feedback",
    key="session_id",
    version="submitted_at",
    columns=rows.FEEDBACK_COLUMNS,
    types=(
        *("text", "text", "text", "text", "int8", "bool", "int8", "int8", "int8", "int8", "int8", "bool", "text[]"),
        *("text", "timestamptz", "timestamptz"),
    ),
    parents=(("session_id", "sessions"), ("tutor_id", "tutors"), ("student_id", "students")),
    row_of=rows.feedback_row,
    event_of=rows.feedback_of,
    yields=("feedback_id", _SUBSTITUTE_FEEDBACK_ID),
)
TUTOR_EVENT: Final = Kind(
    name="tutor_event",
    table="tutor_events",
    key="event_id",
    version="event_timestamp",
    columns=rows.TUTOR_EVENT_COLUMNS,
    types=("text", "text", "text", "timestamptz", "text", "timestamptz"),
    parents=(("tutor_id", "tutors"),),
    row_of=rows.tutor_event_row,
    event_of=rows.tutor_event_of,
    json_columns=("metadata",),
)

KINDS: Final = {kind.name: kind for kind in (TUTOR, SESSION, FEEDBACK, TUTOR_EVENT)}
"""By name, in foreign-key order."""
