"""Every wait ends: lost, frozen and locked servers are reported, and cancelled work leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import uvloop
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.postgres.builders import T, rows, session, tutor
from tutormax_streams.postgres.database import ABANDON_SECONDS, Connection, Database, Deadlines, clock_skew
from tutormax_streams.postgres.errors import Fault, SinkUnavailable, fault
from tutormax_streams.postgres.records import RecordWriter

ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Wire:
    """A way to the server that can be frozen (nothing passes, nothing is closed) or cut."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        self._passing.clear()

    def cut(self) -> None:
        self._passing.set()
        for writer in self._writers:
            writer.close()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, there_writer]
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def wired(url: str, deadlines: Deadlines) -> AsyncIterator[tuple[Database, Wire]]:
    parts = conninfo_to_dict(url)
    wire = Wire(str(parts["host"]), int(str(parts["port"])))
    server = await asyncio.start_server(wire.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database(make_conninfo(url, host="127.0.0.1", port=port), deadlines=deadlines)
    try:
        yield database, wire
    finally:
        wire.cut()
        await database.close()
        server.close()


async def test_a_connection_killed_in_the_middle_leaves_nothing_and_the_next_write_works(
    database: Database, records: RecordWriter, postgres: str
) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(
            "INSERT INTO students VALUES ('s', 'n', NULL, NULL, NULL, false, NULL, false, NULL, NULL, now(), now())"
        )
        await asyncio.to_thread(rows, postgres, KILL)
        await connection.execute("SELECT 1")

    with pytest.raises(SinkUnavailable, match="connection"):
        await database.transaction(work)
    assert rows(postgres, "SELECT count(*) FROM students") == [(0,)]
    assert len((await records.write([tutor(), session()])).written) == 2


async def test_idle_connections_killed_cost_one_attempt_each(
    database: Database, records: RecordWriter, postgres: str
) -> None:
    await records.write([tutor()])
    rows(postgres, KILL)
    with pytest.raises(SinkUnavailable):
        await records.write([tutor(at=T + 1)])
    assert len((await records.write([tutor(at=T + 1)])).written) == 1


async def test_a_lock_that_is_not_given_is_reported_in_time(records: RecordWriter, postgres: str) -> None:
    await records.write([tutor()])
    with psycopg.connect(postgres) as holder:
        holder.execute("UPDATE tutors SET name = 'held'")
        async with Database(postgres, deadlines=Deadlines(lock=0.5)) as hasty:
            started = time.monotonic()
            with pytest.raises(SinkUnavailable, match="lock timeout"):
                await RecordWriter(hasty, lambda: T).write([tutor(at=T + 1), tutor("other")])
            assert time.monotonic() - started < 3
    assert rows(postgres, "SELECT tutor_id FROM tutors") == [("tutor_00001",)]
    assert len((await records.write([tutor(at=T + 2), tutor("other")])).written) == 2


async def test_work_that_waits_for_a_lock_is_cancelled_undone_and_off_the_server(
    database: Database, postgres: str
) -> None:
    records = RecordWriter(database, lambda: T)
    await records.write([tutor()])
    with psycopg.connect(postgres) as holder:
        holder.execute("UPDATE tutors SET name = 'held'")
        task = asyncio.create_task(records.write([tutor("first"), tutor(at=T + 1)]))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.5
        assert rows(postgres, ACTIVE + " AND state = 'active'") == [(0,)]
    assert rows(postgres, "SELECT tutor_id FROM tutors") == [("tutor_00001",)]


async def test_a_frozen_server_does_not_keep_a_cancelled_caller(postgres: str) -> None:
    async with wired(postgres, Deadlines(connect=2, work=20)) as (database, wire):
        await database.ping()
        wire.freeze()
        task = asyncio.create_task(database.ping())
        await asyncio.sleep(0.2)
        started = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < ABANDON_SECONDS + 0.5


def test_neither_does_it_on_the_workers_event_loop(postgres: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_frozen_server_does_not_keep_a_cancelled_caller(postgres))
        runner.run(test_a_server_away_is_reported_with_its_reason_and_found_again(postgres))


async def test_a_frozen_server_is_reported_when_the_work_is_overdue(postgres: str) -> None:
    async with wired(postgres, Deadlines(connect=2, work=1)) as (database, wire):
        await database.ping()
        wire.freeze()
        started = time.monotonic()
        with pytest.raises(SinkUnavailable, match="within 1 s"):
            await database.ping()
        assert time.monotonic() - started < 1 + ABANDON_SECONDS + 0.5


async def test_a_server_that_accepts_and_says_nothing_is_given_up(postgres: str) -> None:
    async with wired(postgres, Deadlines(connect=1, work=20)) as (database, wire):
        wire.freeze()
        started = time.monotonic()
        with pytest.raises(SinkUnavailable, match="timeout"):
            await database.open()
        assert time.monotonic() - started < 4


async def test_a_server_away_is_reported_with_its_reason_and_found_again(postgres: str) -> None:
    async with wired(postgres, Deadlines()) as (database, wire):
        await database.ping()
        wire.cut()
        with pytest.raises(SinkUnavailable):
            await database.ping()
        await database.ping()
    nowhere = Database(make_conninfo(postgres, port="1"))
    with pytest.raises(SinkUnavailable, match="refused"):
        await nowhere.open()
    secret = str(conninfo_to_dict(postgres).get("password"))
    with pytest.raises(SinkUnavailable) as raised:
        await Database(make_conninfo(postgres, dbname="no_such_database")).open()
    assert "no_such_database" in str(raised.value)
    assert secret not in str(raised.value)


async def test_more_work_than_connections_takes_turns(postgres: str) -> None:
    async with Database(postgres, size=2) as database:

        async def work(connection: Connection) -> int:
            cursor = await connection.execute("SELECT pg_backend_pid() FROM pg_sleep(0.02)")
            row = await cursor.fetchone()
            assert row is not None
            return int(row[0])

        pids = await asyncio.gather(*(database.run(work) for _ in range(20)))
    assert len(set(pids)) == 2
    with pytest.raises(SinkUnavailable, match="closed"):
        await database.ping()


async def test_clashes_are_repeated(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tutormax_streams.postgres.database")
    attempts = 0

    async def work(connection: Connection) -> str:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        return "done"

    assert await database.transaction(work) == "done"
    assert attempts == 3
    assert caplog.messages == ["a transaction met another writer's and is repeated: deadlock detected"] * 2

    async def hopeless(connection: Connection) -> None:
        raise psycopg.errors.SerializationFailure("could not serialize")

    with pytest.raises(SinkUnavailable, match="other writers"):
        await database.transaction(hopeless)


async def test_a_read_only_server_holds_the_work(records: RecordWriter, database: Database, postgres: str) -> None:
    await records.write([tutor()])

    async def turn_read_only(connection: Connection) -> None:
        await connection.execute("SET default_transaction_read_only = on")

    await database.run(turn_read_only)
    with pytest.raises(SinkUnavailable, match="read-only"):
        await records.write([tutor(at=T + 1)])
    assert len((await records.write([tutor(at=T + 1)])).written) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.UniqueViolation(), Fault.ROW),
        (psycopg.errors.NumericValueOutOfRange(), Fault.ROW),
        (psycopg.errors.ProgramLimitExceeded(), Fault.ROW),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), Fault.ROW),
        (psycopg.errors.DeadlockDetected(), Fault.CLASH),
        (psycopg.errors.LockNotAvailable(), Fault.INFRASTRUCTURE),
        (psycopg.errors.QueryCanceled(), Fault.INFRASTRUCTURE),
        (psycopg.errors.AdminShutdown(), Fault.INFRASTRUCTURE),
        (psycopg.errors.DiskFull(), Fault.INFRASTRUCTURE),
        (psycopg.errors.TooManyConnections(), Fault.INFRASTRUCTURE),
        (psycopg.errors.ReadOnlySqlTransaction(), Fault.INFRASTRUCTURE),
        (psycopg.errors.UndefinedTable(), Fault.INFRASTRUCTURE),
        (psycopg.errors.InsufficientPrivilege(), Fault.INFRASTRUCTURE),
        (psycopg.OperationalError("server closed the connection unexpectedly"), Fault.INFRASTRUCTURE),
        (OSError("network unreachable"), Fault.INFRASTRUCTURE),
        (psycopg.errors.SyntaxError(), Fault.BUG),
        (psycopg.errors.CardinalityViolation(), Fault.BUG),
        (psycopg.ProgrammingError("the query has 1 placeholder but 0 parameters were passed"), Fault.BUG),
        (KeyError("x"), Fault.BUG),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_told_apart(error: Exception, expected: Fault) -> None:
    assert fault(error) is expected


async def test_the_clock_is_compared_with_the_servers(postgres: str) -> None:
    def clock() -> int:
        return time.time_ns() // 1000 + round(shift * 1e6)

    async with Database(postgres) as database:
        for shift in (0.0, 600.0, -600.0):
            skew = await clock_skew(database, clock)
            assert skew is not None
            assert abs(skew - shift) < 1.0
    assert await clock_skew(database, clock) is None, "who is away is not compared with"
