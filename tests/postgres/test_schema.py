"""Tables are created only where they are missing, and what is wrong is said in sentences."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.postgres.builders import rows
from tutormax_streams.postgres import schema

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
    "DROP TABLE tutormax_streams.parked": "tutormax_streams.parked",
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
