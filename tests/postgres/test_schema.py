"""Tables are created only where they are missing, and what is wrong is said in sentences."""

from __future__ import annotations

import asyncio

import msgspec
import psycopg
import pytest

from tests.postgres.builders import T, rows, session, tutor
from tutormax_streams.postgres import schema
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.errors import SinkUnavailable
from tutormax_streams.postgres.records import RecordWriter

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname = 'tutormax_streams'"


@pytest.fixture
def bare(empty_postgres: str) -> str:
    rows(
        empty_postgres,
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS tutormax_streams CASCADE",
    )
    return empty_postgres


async def connect(url: str) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(url, autocommit=True)


async def checked(url: str) -> list[str]:
    async with await connect(url) as connection:
        return await schema.check(connection)


async def ensured(url: str) -> None:
    async with await connect(url) as connection:
        await schema.ensure_platform_tables(connection)
        await schema.ensure_side_tables(connection)


async def test_an_empty_database_says_what_is_missing_and_is_right_afterwards(bare: str) -> None:
    problems = await checked(bare)
    assert any("student_feedback" in problem and "migrations" in problem for problem in problems)
    assert any("database ensure" in problem for problem in problems)
    await ensured(bare)
    assert await checked(bare) == []


async def test_ensuring_twice_and_at_once_is_ensuring_once(bare: str) -> None:
    await asyncio.gather(*(ensured(bare) for _ in range(6)))
    await ensured(bare)
    assert await checked(bare) == []


async def test_tables_that_exist_are_not_touched(bare: str) -> None:
    rows(bare, "CREATE TABLE tutors (tutor_id varchar(50) PRIMARY KEY, name text)")
    async with await connect(bare) as connection:
        created = await schema.ensure_platform_tables(connection)
    assert "tutors" not in created
    assert "sessions" in created
    assert rows(bare, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'tutors'::regclass AND attnum > 0") == [(2,)]
    assert any("tutors lacks the columns" in problem for problem in await checked(bare))


MISTAKES = {
    "ALTER TABLE sessions DROP COLUMN engagement_score": "engagement_score",
    "DROP INDEX ix_student_feedback_session_id": "student_feedback.session_id is not unique",
    "DROP INDEX ix_tutors_email": "tutors.email is not unique",
    "CREATE TYPE state AS ENUM ('ACTIVE'); ALTER TABLE tutors ALTER status TYPE state USING 'ACTIVE'": "is a state",
    "UPDATE tutormax_streams.layout SET version = 99": "layout 99",
    "UPDATE tutormax_streams.layout SET version = 1": "layout 1, this program brings it to layout 3: run",
    "DROP TABLE tutormax_streams.parked": "tutormax_streams.parked",
    "DROP TABLE tutormax_streams.unannounced": "tutormax_streams.unannounced",
    "ALTER DATABASE {} SET default_transaction_read_only = on": "read-only",
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_each_mistake_is_named_and_nothing_else(mistake: str, bare: str) -> None:
    await ensured(bare)
    rows(bare, mistake.replace("{}", bare.rpartition("/")[2]))
    try:
        problems = await checked(bare)
    finally:
        with psycopg.connect(bare, autocommit=True, options="-c default_transaction_read_only=off") as connection:
            connection.execute(f"ALTER DATABASE {bare.rpartition('/')[2]} RESET default_transaction_read_only".encode())
    assert len(problems) == 1
    assert MISTAKES[mistake] in problems[0]
    assert problems[0].endswith(".")


# As the first layout made them; what is given here of it stays as it is.
LAYOUT_1 = """
CREATE SCHEMA tutormax_streams;
CREATE TABLE tutormax_streams.layout (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    version integer NOT NULL
);
CREATE TABLE tutormax_streams.parked (
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
);
CREATE INDEX parked_by_tutor ON tutormax_streams.parked (tutor_id);
CREATE TABLE tutormax_streams.parked_metrics (
    tutor_id text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    position bigint NOT NULL,
    as_of timestamptz NOT NULL,
    facts_partition integer NOT NULL,
    payload bytea NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE tutormax_streams.metric_fences (
    tutor_id text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    position bigint NOT NULL,
    as_of timestamptz NOT NULL,
    facts_partition integer NOT NULL
);
INSERT INTO tutormax_streams.layout (version) VALUES (1);
"""
PARKED_1 = """
INSERT INTO tutormax_streams.parked (kind, id, version_us, digest, tutor_id, student_id, payload, refused)
VALUES ('session', %s, %s, %s, %s, %s, %s, %s)
"""


async def test_an_installation_of_layout_1_is_brought_along_with_what_waits_in_it(bare: str) -> None:
    rows(bare, LAYOUT_1)
    for waiting, refused in ((session("s-1"), None), (session("s-2", "other"), "PostgreSQL refuses a value")):
        event = waiting.event
        payload = msgspec.msgpack.encode(waiting)
        key = (event.home_id, event.version_us, waiting.digest)
        rows(bare, PARKED_1, *key, event.tutor_id, "student_00042", payload, refused)
    async with await connect(bare) as connection:
        await schema.ensure_platform_tables(connection)
    (problem,) = await checked(bare)  # what keeps a worker of this release from starting
    assert "layout 1" in problem
    assert "database ensure" in problem
    await asyncio.gather(*(ensured(bare) for _ in range(3)))
    assert await checked(bare) == []
    async with Database(bare) as database:
        records = RecordWriter(database, lambda: T)
        assert (await records.untold(0, 10)).refused == []  # layout 1 told its refusals, or lost them
        await records.write([tutor(), tutor("other")])
        result = await records.retry_parked(10)  # makes the student up
        assert [row.id for row in result.owed.rows] == ["s-1"]
        assert (await records.untold(0, 10)).written == list(result.owed.rows)
    assert rows(bare, "SELECT id, refused FROM tutormax_streams.parked") == [("s-2", "PostgreSQL refuses a value")]


async def test_a_worker_that_found_layout_1_too_late_holds_until_it_is_brought_along(bare: str) -> None:
    """Of two workers one started while PostgreSQL was away, and did not see the layout."""
    rows(bare, LAYOUT_1)
    async with await connect(bare) as connection:
        await schema.ensure_platform_tables(connection)
    async with Database(bare) as database:
        records = RecordWriter(database, lambda: T)
        with pytest.raises(SinkUnavailable):
            await records.untold(0, 10)
        with pytest.raises(SinkUnavailable):
            await records.write([session()])
        await ensured(bare)
        assert (await records.write([session()])).parked == 1
        assert (await records.write([tutor()])).unparked == 1


async def test_a_table_of_ours_that_is_gone_is_made_again_and_a_later_layout_left_alone(bare: str) -> None:
    await ensured(bare)
    rows(bare, "DROP TABLE tutormax_streams.unannounced, tutormax_streams.parked")
    await ensured(bare)
    assert await checked(bare) == []
    rows(bare, "DROP TABLE tutormax_streams.unannounced; UPDATE tutormax_streams.layout SET version = 99")
    await ensured(bare)
    assert "layout 99" in (await checked(bare))[0]
    assert rows(bare, "SELECT to_regclass('tutormax_streams.unannounced')") == [(None,)]


async def test_a_user_without_rights_is_told_which(bare: str) -> None:
    await ensured(bare)
    rows(bare, "DROP ROLE IF EXISTS weak")
    rows(
        bare,
        "CREATE ROLE weak; GRANT USAGE ON SCHEMA public, tutormax_streams TO weak; GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak",
    )
    try:
        async with await connect(bare) as connection:
            await connection.execute("SET ROLE weak")
            problems = await schema.check(connection)
    finally:
        rows(bare, "DROP OWNED BY weak; DROP ROLE weak")
    assert any("GRANT SELECT, INSERT, UPDATE ON sessions" in problem for problem in problems)
    assert any("GRANT USAGE ON SCHEMA tutormax_streams" in problem for problem in problems)


async def test_the_platforms_tables_get_no_trigger_of_ours(bare: str) -> None:
    await ensured(bare)
    query = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'tutormax_streams'::regnamespace"
    assert rows(bare, query) == [(0,)]
    assert rows(bare, SCHEMAS) == [("tutormax_streams",)]
