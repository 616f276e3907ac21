"""Array literals come out of PostgreSQL as what went in."""

from __future__ import annotations

import pytest

from tutormax_streams.postgres.arrays import integers, octets, texts
from tutormax_streams.postgres.database import Connection, Database

TEXTS = [
    [],
    ["t1"],
    ["t1", "t2"],
    [""],
    ["", ""],
    ["NULL", "null"],
    ['a"b', "plain"],
    ["a\\b", '\\"', "\\"],
    ['","', '"', "{", "}", "{}", ","],
    [" leading", "trailing ", "two\nlines", "\t"],
    ["naïve", "数学", "🎓"],
]


async def back(database: Database, literal: str, type_: str) -> list[object]:
    async def work(connection: Connection) -> list[object]:
        found = await connection.execute(f"SELECT %s::{type_}[]".encode(), [literal])
        row = await found.fetchone()
        assert row is not None
        return list(row[0])

    return await database.run(work)


@pytest.mark.parametrize("values", TEXTS, ids=repr)
async def test_texts(database: Database, values: list[str]):
    assert await back(database, texts(values), "text") == values
    assert await back(database, texts(tuple(values)), "text") == values


async def test_integers_and_octets(database: Database):
    assert await back(database, integers([-(2**63), 0, 2**63 - 1]), "int8") == [-(2**63), 0, 2**63 - 1]
    assert await back(database, integers([]), "int8") == []
    values = [b"", bytes(range(256)), b'\\"']
    assert await back(database, octets(values), "bytea") == values
    assert await back(database, octets([]), "bytea") == []
