"""Our own tables, in the schema `tutormax_streams`: what waits for its parent, and the fences.

They never refer to the platform's tables: a foreign key would hang triggers on those. Layouts are storage: a change
raises `SIDE_TABLES_VERSION` and comes with statements that bring older ones along.
"""

from __future__ import annotations

from typing import Final, LiteralString

SIDE_TABLES_VERSION: Final = 1

SIDE_TABLES: Final[tuple[LiteralString, ...]] = (
    "CREATE SCHEMA IF NOT EXISTS tutormax_streams",
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.layout (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        version integer NOT NULL
    )
    """,
    # Records without their parent, greatest version of each only (`parking`). `id` is the home id: of feedback the
    # session's. `payload` is the packed `models.events.Enriched`; `refused` says why PostgreSQL would not take it.
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.parked (
        kind text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        version_us bigint NOT NULL,
        digest bytea NOT NULL,
        tutor_id text NOT NULL,
        student_id text,
        payload bytea NOT NULL,
        refused text,
        parked_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (kind, id)
    )
    """,
    "CREATE INDEX IF NOT EXISTS parked_by_tutor ON tutormax_streams.parked (tutor_id)",
    # Metrics of tutors whose row has not arrived, greatest fence of each only. `payload` is the record's JSON.
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.parked_metrics (
        tutor_id text COLLATE "C" PRIMARY KEY,
        epoch bigint NOT NULL,
        position bigint NOT NULL,
        as_of timestamptz NOT NULL,
        facts_partition integer NOT NULL,
        payload bytea NOT NULL,
        parked_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    # The fence under which a tutor's three current rows were written; compared in the order epoch, position, as_of.
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.metric_fences (
        tutor_id text COLLATE "C" PRIMARY KEY,
        epoch bigint NOT NULL,
        position bigint NOT NULL,
        as_of timestamptz NOT NULL,
        facts_partition integer NOT NULL
    )
    """,
)
