"""What had been parked is announced or refused even if the worker dies between the commit and the announcement."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

from agents import persist as persist_step
from agents.ports import Owed, Persisted
from tests.agents.fakes import BrokerAway
from tests.agents.rigs import PersistRig
from tests.agents.test_sink import of_records
from tests.postgres.builders import T, feedback, rows, session, tutor, tutor_event
from tutormax_streams.postgres import announcing
from tutormax_streams.postgres.database import Connection
from tutormax_streams.postgres.errors import SinkUnavailable
from tutormax_streams.postgres.records import RecordWriter

TUTOR = ("tutor", "tutor_00001")
SESSION = ("session", "s-1")
UNSTORABLE = session(subject="x" * 101)
PARENT = (
    "INSERT INTO tutors SELECT 'tutor_00001', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()"
)


@pytest.fixture
async def rig(records: RecordWriter) -> PersistRig:
    """Persist on a real database; `crash` gives the broker and the database another worker."""
    made = PersistRig([])
    made.postgres = records  # type: ignore[assignment]
    await made.begin()
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No announcement is given any time."""
    monkeypatch.setattr(persist_step, "TELL_AGAIN_SECONDS", 0.0)


def announced(rig: PersistRig) -> list[tuple[str, str]]:
    found = [json.loads(record.value or b"") for record in rig.broker.records("persisted")]
    return sorted((announcement["kind"], announcement["id"]) for announcement in found)


async def has_sent(rig: PersistRig, expected: list[tuple[str, str]]) -> None:
    for _ in range(1000):
        if announced(rig) == expected:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(announced(rig))


def noted(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT kind, id, version_us FROM tutormax_streams.unannounced ORDER BY 1, 2")


async def dies_before_it_announces(rig: PersistRig, work: Any) -> None:
    """The transaction is committed, the first record to the broker is not sent; then comes a new worker."""
    rig.broker.patience = 0
    with pytest.raises(BrokerAway):
        await work
    rig.broker.patience = None
    await rig.crash()


@pytest.mark.usefixtures("at_once")
async def test_a_death_after_the_parents_batch_loses_no_announcement(rig: PersistRig, postgres: str):
    await rig.feed(of_records(session(), tutor_event()))
    await rig.feed(of_records(feedback()))
    await dies_before_it_announces(rig, rig.feed(of_records(tutor())))
    assert rows(postgres, "SELECT count(*) FROM student_feedback JOIN sessions USING (session_id)") == [(1,)]
    assert announced(rig) == []
    await rig.feed(of_records(tutor()))  # replayed: nothing waits for it any more
    await rig.persist.retry_parked()
    everything = [("feedback", "f-s-1"), SESSION, TUTOR, ("tutor_event", "e-1")]
    assert announced(rig) == everything
    await rig.persist.retry_parked()
    assert announced(rig) == everything
    assert noted(postgres) == []


@pytest.mark.usefixtures("at_once")
async def test_a_death_in_the_retrier_loses_no_announcement(rig: PersistRig, postgres: str):
    await rig.feed(of_records(session()))
    rows(postgres, PARENT)
    await dies_before_it_announces(rig, rig.persist.retry_parked())
    assert rows(postgres, "SELECT count(*) FROM sessions") == [(1,)]
    await rig.persist.retry_parked()
    assert announced(rig) == [SESSION]


@pytest.mark.usefixtures("at_once")
async def test_what_was_sent_and_not_confirmed_is_sent_again(rig: PersistRig, postgres: str):
    await rig.feed(of_records(session()))
    rig.broker.holding = True
    dying = asyncio.create_task(rig.feed(of_records(tutor())))
    await has_sent(rig, [SESSION, TUTOR])
    dying.cancel()
    await asyncio.wait({dying})
    rig.broker.holding = False
    await rig.crash()
    assert noted(postgres) == [(*SESSION, T)]
    await rig.persist.retry_parked()
    assert announced(rig) == [SESSION, SESSION, TUTOR]
    assert noted(postgres) == []


@pytest.mark.usefixtures("at_once")
async def test_a_death_after_the_commit_loses_no_dead_letter(rig: PersistRig, postgres: str):
    await rig.feed(of_records(UNSTORABLE))
    await dies_before_it_announces(rig, rig.feed(of_records(tutor())))
    await rig.feed(of_records(tutor()))
    assert not rig.letters.by_place
    await rig.persist.retry_parked()
    assert [code for code, _ in rig.letters.by_place.values()] == ["refused_by_database"]
    await rig.persist.retry_parked()
    assert rig.counts.counted["dead_letters"] == 1
    assert rows(postgres, "SELECT refused LIKE 'PostgreSQL refuses%' FROM tutormax_streams.parked") == [(True,)]


@pytest.mark.usefixtures("at_once")
async def test_without_a_death_all_is_said_once(rig: PersistRig, postgres: str):
    await rig.feed(of_records(session(), session("s-2", subject="x" * 101)))
    await rig.feed(of_records(tutor()))
    assert noted(postgres) == []
    await rig.persist.retry_parked()
    await rig.persist.retry_parked()
    assert announced(rig) == [SESSION, TUTOR]
    assert rig.counts.counted["dead_letters"] == 1


async def test_another_workers_retrier_leaves_what_is_being_announced_alone(rig: PersistRig, postgres: str):
    await rig.feed(of_records(session(), session("s-2", subject="x" * 101)))
    rig.broker.holding = True
    announcing_it = asyncio.create_task(rig.feed(of_records(tutor())))
    await has_sent(rig, [SESSION, TUTOR])
    other = PersistRig([])
    other.postgres = rig.postgres
    await other.begin()
    await other.persist.retry_parked()
    assert announced(other) == []
    assert not other.letters.by_place
    assert noted(postgres) == [(*SESSION, T)]
    rig.broker.confirm()
    await announcing_it
    assert noted(postgres) == []


async def test_batches_that_unpark_nothing_pay_nothing(
    rig: PersistRig, records: RecordWriter, postgres: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    execute = Connection.execute

    async def heard(connection: Connection, query: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(query.decode() if isinstance(query, bytes) else str(query))
        return await execute(connection, query, *args, **kwargs)

    monkeypatch.setattr(Connection, "execute", heard)
    monkeypatch.setattr(records, "told", None)
    await rig.feed(of_records(tutor("a"), session("s-a", "a")))
    await rig.feed(of_records(session()))
    await rig.feed(of_records(tutor("a", at=T + 1)))  # while something waits, for another tutor
    assert any("tutormax_streams.parked" in query for query in asked)
    assert not [query for query in asked if "unannounced" in query]


async def test_the_note_stands_or_falls_with_the_row(
    records: RecordWriter, postgres: str, monkeypatch: pytest.MonkeyPatch
):
    note = announcing.note

    async def note_and_fail(connection: Connection, written: list[Persisted]) -> None:
        await note(connection, written)
        raise psycopg.OperationalError("the server closed the connection")

    await records.write([session()])
    monkeypatch.setattr(announcing, "note", note_and_fail)
    with pytest.raises(SinkUnavailable):
        await records.write([tutor()])
    assert noted(postgres) == []
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked") == [(1,)]
    monkeypatch.undo()
    assert (await records.write([tutor()])).owed.rows == [Persisted(*SESSION, "tutor_00001", T)]
    assert noted(postgres) == [(*SESSION, T)]


async def test_a_row_that_stood_there_already_is_owed_too(records: RecordWriter, postgres: str):
    """Another writer, such as the platform, was quicker with the same."""
    await records.write([session()])
    rows(postgres, "CREATE TABLE waiting AS TABLE tutormax_streams.parked")
    await records.told((await records.write([tutor()])).owed)
    rows(postgres, "INSERT INTO tutormax_streams.parked TABLE waiting; DROP TABLE waiting")
    assert (await records.retry_parked(10)).owed.rows == [Persisted(*SESSION, "tutor_00001", T)]
    assert noted(postgres) == [(*SESSION, T)]


async def test_feedback_is_owed_under_the_id_that_it_was_given(records: RecordWriter, postgres: str):
    await records.write([tutor(), session("s-1"), session("s-2"), feedback("s-1", feedback_id="f")])
    await records.write([feedback("s-2", feedback_id="f", tutor_id="late")])
    (owed,) = (await records.write([tutor("late")])).owed.rows
    assert rows(postgres, "SELECT feedback_id FROM student_feedback WHERE session_id = 's-2'") == [(owed.id,)]
    assert owed.id != "f"
    assert [row.id for row in (await records.untold(0, 10)).written] == [owed.id]


async def test_telling_a_lesser_version_does_not_settle_a_greater_one(records: RecordWriter, postgres: str):
    await records.write([session(at=T + 5)])
    (owed,) = (await records.write([tutor()])).owed.rows
    await records.told(Owed([owed._replace(version_us=T)], []))
    assert noted(postgres) == [(*SESSION, T + 5)]
    await records.told(Owed([owed], []))
    assert noted(postgres) == []


async def test_a_newer_version_that_is_refused_is_owed_a_letter_of_its_own(records: RecordWriter, postgres: str):
    await records.write([UNSTORABLE])
    first = await records.write([tutor()])
    later = session(subject="y" * 101, tutor_id="late", at=T + 1)
    await records.write([later])
    assert (await records.untold(0, 10)).refused == []  # it waits, and nobody has refused it yet
    second = await records.write([tutor("late")])
    await records.told(first.owed)
    again = await records.untold(0, 10)
    assert again.refused == second.refused
    assert [record for record, _, _ in again.refused] == [later]
    await records.told(again.owed)
    assert (await records.untold(0, 10)).refused == []


async def test_what_cannot_be_read_is_owed_nothing(records: RecordWriter, postgres: str):
    await records.write([UNSTORABLE, session("s-2")])
    rows(postgres, "UPDATE tutormax_streams.parked SET payload = 'nonsense' WHERE id = 's-2'")
    await records.write([tutor()])
    rows(postgres, "UPDATE tutormax_streams.parked SET payload = 'nonsense'")
    assert (await records.untold(0, 10)).refused == []
    assert rows(postgres, "SELECT count(*) FROM tutormax_streams.parked WHERE untold_since IS NOT NULL") == [(0,)]
