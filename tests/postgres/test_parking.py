"""What misses its parent waits in the side table, whatever comes first, and is stored as soon as the parent is."""

from __future__ import annotations

import itertools
import re

import pytest

from models.events import Enriched
from tests.postgres.builders import T, feedback, ids, rows, session, tutor, tutor_event
from tutormax_streams.postgres import parking
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.records import RecordWriter


def parked(url: str) -> list[tuple[str, str]]:
    return [(kind, id_) for kind, id_ in rows(url, "SELECT kind, id FROM tutormax_streams.parked ORDER BY 1, 2")]


def parts(n: int) -> list[Enriched]:
    """A tutor, a session, its feedback and an event of the tutor's."""
    return [tutor(f"t{n}"), session(f"s{n}", f"t{n}"), feedback(f"s{n}", f"t{n}"), tutor_event(f"e{n}", f"t{n}")]


async def test_every_order_ends_in_the_same_tables(records: RecordWriter, postgres: str) -> None:
    orders = [[parts(n)[place] for place in order] for n, order in enumerate(itertools.permutations(range(4)))]
    written, stored = [], 0
    for step in zip(*orders, strict=True):
        result = await records.write(step)
        written += result.written
        stored += result.parked - result.unparked
        assert stored == len(parked(postgres))
    assert len(orders) == 24
    assert len(set(ids(written))) == len(written) == 96
    assert parked(postgres) == []
    query = """
        SELECT count(*) FROM tutors JOIN sessions USING (tutor_id) JOIN student_feedback USING (session_id)
        JOIN tutor_events ON tutor_events.tutor_id = tutors.tutor_id
    """
    assert rows(postgres, query) == [(24,)]


async def test_the_greatest_version_waits_and_is_the_one_stored(records: RecordWriter, postgres: str) -> None:
    versions = [session(at=T + n, subject=f"v{n}") for n in range(4)]
    for version in (versions[1], versions[3], versions[0], versions[2]):
        assert (await records.write([version])).parked == 1
    assert parked(postgres) == [("session", "s-1")]
    result = await records.write([tutor()])
    assert result.unparked == 1
    assert rows(postgres, "SELECT subject FROM sessions") == [("v3",)]
    assert parked(postgres) == []


async def test_equally_late_versions_wait_by_digest(records: RecordWriter, postgres: str) -> None:
    versions = sorted((session(subject=f"v{n}") for n in range(5)), key=lambda version: version.digest)
    for version in (versions[2], versions[4], versions[1]):
        await records.write([version])
    await records.write([tutor()])
    assert rows(postgres, "SELECT subject FROM sessions") == [(versions[4].event.subject,)]  # type: ignore[union-attr]


async def test_a_session_moved_to_an_unknown_tutor_waits_while_the_old_row_stands(
    records: RecordWriter, postgres: str
) -> None:
    await records.write([tutor("a"), session(tutor_id="a")])
    assert (await records.write([session(tutor_id="b", at=T + 5)])).parked == 1
    assert rows(postgres, "SELECT tutor_id FROM sessions") == [("a",)]
    # Moved on before "b" appears: what waits is out of date, and goes when it is looked at.
    await records.write([session(tutor_id="a", at=T + 9, subject="back")])
    assert parked(postgres) == []
    await records.write([tutor("b")])
    assert rows(postgres, "SELECT tutor_id, subject FROM sessions") == [("a", "back")]


async def test_feedback_for_another_tutor_waits_for_both(records: RecordWriter, postgres: str) -> None:
    await records.write([feedback(tutor_id="b")])
    await records.write([tutor("a"), session(tutor_id="a")])
    assert parked(postgres) == [("feedback", "s-1")]
    result = await records.write([tutor("b")])
    assert ids(result.written) == [("feedback", "f-s-1"), ("tutor", "b")]
    assert rows(postgres, "SELECT tutor_id FROM student_feedback") == [("b",)]


async def test_parent_and_child_in_one_batch_do_not_wait(records: RecordWriter, postgres: str) -> None:
    result = await records.write([feedback(), session(), tutor()])
    assert (result.parked, len(result.written)) == (0, 3)


async def test_a_retry_finds_what_another_program_made_possible(records: RecordWriter, postgres: str) -> None:
    await records.write([session(), session("s-2", "other"), feedback()])
    assert (await records.retry_parked(100)).written == []
    rows(
        postgres,
        "INSERT INTO tutors SELECT 'tutor_00001', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()",
    )
    rows(postgres, "DELETE FROM students")
    result = await records.retry_parked(100)
    assert ids(result.written) == [("feedback", "f-s-1"), ("session", "s-1")]
    assert result.unparked == 2
    assert parked(postgres) == [("session", "s-2")]


async def test_a_retry_keeps_to_its_limit(records: RecordWriter, postgres: str) -> None:
    await records.write([session(f"s-{n}") for n in range(25)])
    rows(
        postgres,
        "INSERT INTO tutors SELECT 'tutor_00001', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()",
    )
    assert [(await records.retry_parked(10)).unparked for _ in range(4)] == [10, 10, 5, 0]


async def test_what_was_parked_and_is_refused_stays_with_the_reason_until_a_newer_version_comes(
    records: RecordWriter, postgres: str
) -> None:
    await records.write([session(subject="x" * 101), session("s-2")])
    result = await records.write([tutor()])
    assert [(record.event.home_id, code) for record, code, _ in result.refused] == [("s-1", "refused_by_database")]
    assert ids(result.written) == [("session", "s-2"), ("tutor", "tutor_00001")]
    ((reason,),) = rows(postgres, "SELECT refused FROM tutormax_streams.parked")
    assert "PostgreSQL refuses" in reason
    assert (await records.retry_parked(10)).refused == []
    await records.write([session(at=T + 1)])
    assert parked(postgres) == []


async def test_a_parked_record_that_cannot_be_read_is_marked_and_harms_nobody(
    records: RecordWriter, postgres: str
) -> None:
    await records.write([session("s-1"), session("s-2")])
    rows(postgres, "UPDATE tutormax_streams.parked SET payload = 'nonsense' WHERE id = 's-1'")
    result = await records.write([tutor()])
    assert ids(result.written) == [("session", "s-2"), ("tutor", "tutor_00001")]
    assert rows(postgres, "SELECT id, refused LIKE 'unreadable%' FROM tutormax_streams.parked") == [("s-1", True)]


async def test_a_tutor_refused_for_an_email_keeps_the_sessions_waiting(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor("a", email="one@x")])
    result = await records.write([tutor("b", email="one@x"), session(tutor_id="b")])
    assert (len(result.refused), result.parked) == (1, 1)
    assert ids((await records.write([tutor("b", at=T + 1)])).written) == [("session", "s-1"), ("tutor", "b")]


@pytest.mark.parametrize("parent", ["tutors", "students", "sessions"])
async def test_whether_a_parent_has_come_is_looked_up_in_its_index(database: Database, parent: str) -> None:
    """Each waiting feedback read all sessions: in a deployment with half a million the retry went on for minutes."""

    async def plan(connection: Connection) -> str:
        await connection.execute("SET LOCAL enable_seqscan = off")  # the tables are empty here
        found = await connection.execute(f"EXPLAIN {parking._TAKE_READY}", [100])
        return "\n".join(line for (line,) in await found.fetchall())

    said = await database.transaction(plan)
    assert re.search(rf"using {parent}_pkey on {parent}.*\n\s+Index Cond: .*= \(?parked\.", said), said
