"""The audit against rows of a living deployment."""

from __future__ import annotations

import time
from functools import partial

import psycopg

from models.metrics import decode
from tests.flow.driver import Deployment, eventually
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_payload
from tutormax_streams.audit import AuditResult, audit
from tutormax_streams.postgres.database import Database


async def look(living: Deployment) -> AuditResult:
    async with Database(living.database, size=1) as database:
        return await audit(database, "normalized", looks=2, wait_seconds=0.5)


async def is_settled(living: Deployment, tutor_id: str) -> bool:
    updates = [decode(record.value) for record in await living.read(living.topics.metrics)]
    return [update.is_settled for update in updates if update.tutor_id == tutor_id][-1:] == [True]


async def test_it_finds_the_row_that_was_altered_by_hand_and_only_that(living: Deployment):
    now_us = time.time_ns() // 1000
    await living.tell(
        ("tutors", tutor_payload("audited", now_us - 1_000_000)),
        ("sessions", session_payload("audited-1", "audited", now_us - DAY_US, now_us - 1_000_000)),
    )
    await eventually(partial(is_settled, living, "audited"))  # until then the row is written once more
    await living.assert_right()
    assert (await look(living)).ok
    with psycopg.connect(living.database, autocommit=True) as connection:
        connection.execute(
            "UPDATE tutor_performance_metrics SET engagement_score = engagement_score + 0.01"
            " WHERE tutor_id = 'audited' AND \"window\" = 'THIRTY_DAY'"
        )
    (difference,) = (await look(living)).differences
    assert (difference.tutor_id, difference.window, difference.column) == ("audited", "THIRTY_DAY", "engagement_score")
    await living.tell(("tutors", tutor_payload("audited", now_us)))  # the next record writes the row anew
    await eventually(lambda: living.rows_of("audited")["THIRTY_DAY"]["calculation_date"] > now_us)
    await living.assert_right()
    assert (await look(living)).ok
