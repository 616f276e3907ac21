"""Our own tables, in the schema `tutormax_streams`: what waits for its parent, what is to be announced, and the fences.

They never refer to the platform's tables: a foreign key would hang triggers on those. Layouts are storage: a change
raises `SIDE_TABLES_VERSION` and comes with statements that bring older ones along.
"""

from __future__ import annotations

from typing import Final, LiteralString

SIDE_TABLES_VERSION: Final = 3

SIDE_TABLES: Final[tuple[LiteralString, ...]] = (
    "CREATE SCHEMA IF NOT EXISTS tutormax_streams",
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.layout (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        version integer NOT NULL
    )
    """,
    # Records without their parent, greatest version of each only (`parking`). `id` is the home id: of feedback the
    # session's. `payload` is the packed `models.events.Enriched`; `refused` says why PostgreSQL would not take it,
    # `refused_as` is the reason's code, and `untold_since` is set until the dead letter is known to be written.
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
        refused_as text,
        untold_since timestamptz,
        PRIMARY KEY (kind, id)
    )
    """,
    # Layout 1 had neither. First of all statements about this table: it takes the greatest lock at once.
    """
    ALTER TABLE tutormax_streams.parked
        ADD COLUMN IF NOT EXISTS refused_as text, ADD COLUMN IF NOT EXISTS untold_since timestamptz
    """,
    "CREATE INDEX IF NOT EXISTS parked_by_tutor ON tutormax_streams.parked (tutor_id)",
    # Rows that had been parked, written and not yet announced on `persisted` (`announcing`). Layout 1 had none of it.
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.unannounced (
        kind text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL,
        tutor_id text NOT NULL,
        version_us bigint NOT NULL,
        written_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (kind, id)
    )
    """,
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
    # What alerts have said of each tutor, and what they have yet to say (`alerting`); JSON of `models.alerts`. Layout 2
    # had neither.
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.announced (
        tutor_id text COLLATE "C" PRIMARY KEY,
        payload bytea NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS tutormax_streams.alert_outbox (
        tutor_id text COLLATE "C" NOT NULL,
        sequence bigint NOT NULL,
        payload bytea NOT NULL,
        born_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tutor_id, sequence)
    )
    """,
)
