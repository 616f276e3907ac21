"""Writes the three current rows of each tutor under a fence, so that a stale writer loses whatever it holds.

1. A fence is (epoch, position, as-of), compared in that order. The one under which a tutor's rows were written stands
   in `metric_fences`; rows and fence change in one statement, and only for a strictly greater fence.
2. An equal fence is a replay: the rows are there, and it is reported as written.
3. Records of a tutor who has no row wait in `parked_metrics`, greatest fence only.
4. Fences are taken in the order of tutor ids, and a tutor's rows are touched by the holder of the fence alone, so
   concurrent flushes cannot deadlock. Rows of other writers bear other ids and are never touched.
5. Whose fence was taken has its figures compared with what alerts have said of it, in the same transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, LiteralString, NamedTuple

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier

from models.alerts import Alert
from models.metrics import MetricsUpdated, decode, encode
from models.rows import METRIC_COLUMNS, metric_rows
from tutormax_streams.postgres import alerting
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.arrays import texts
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.errors import VALUE_ERRORS, Fault, fault, reason
from tutormax_streams.postgres.staging import Stage, prepared

logger = logging.getLogger(__name__)


class Update(NamedTuple):
    """A metrics record and the partition of `facts` that its position counts in."""

    facts_partition: int
    record: MetricsUpdated


@dataclass(slots=True)
class FlushResult:
    """What became of a flush, by tutor."""

    written: list[str] = field(default_factory=list)  # tutor ids, replays included
    refused: list[tuple[MetricsUpdated, str, str]] = field(default_factory=list)  # record, reason code, sentence
    fenced: int = 0
    parked: int = 0
    unparked_metrics: list[MetricsUpdated] = field(default_factory=list)  # of `written`, those that had been parked
    alerts: list[Alert] = field(default_factory=list)  # to be told, and then `MetricsWriter.told_alerts`


@dataclass(slots=True)
class _Moved:
    result: FlushResult = field(default_factory=FlushResult)
    waiting: list[Update] = field(default_factory=list)  # no such tutor

    def add(self, other: _Moved) -> None:
        self.result.written += other.result.written
        self.result.refused += other.result.refused
        self.result.fenced += other.result.fenced
        self.result.alerts += other.result.alerts
        self.waiting += other.waiting


STAGE: Final = Stage(
    "tutormax_staged_metrics",
    (*METRIC_COLUMNS, "epoch", "position", "facts_partition"),
    (
        *("text", "text", "timestamptz", "text", "int8", "float8", "float8", "float8", "int8", "float8", "float8"),
        *("float8", "text", "timestamptz", "timestamptz", "int8", "int8", "int8"),
    ),
)

# Returns the tutors whose fence was not greater than the stored one, or who have no row.
_MOVE: Final = (
    SQL(
        """
        WITH won AS (
            INSERT INTO tutormax_streams.metric_fences AS stored (tutor_id, epoch, position, as_of, facts_partition)
            SELECT DISTINCT ON (staged.tutor_id COLLATE "C")
                staged.tutor_id, staged.epoch, staged.position, staged.calculation_date, staged.facts_partition
            FROM pg_temp.tutormax_staged_metrics AS staged
            WHERE EXISTS (SELECT FROM tutors WHERE tutors.tutor_id = staged.tutor_id)
            ORDER BY staged.tutor_id COLLATE "C"
            ON CONFLICT (tutor_id) DO UPDATE SET epoch = excluded.epoch, position = excluded.position,
                as_of = excluded.as_of, facts_partition = excluded.facts_partition
            WHERE (stored.epoch, stored.position, stored.as_of) < (excluded.epoch, excluded.position, excluded.as_of)
            RETURNING tutor_id
        ), written AS (
            INSERT INTO tutor_performance_metrics ({columns})
            SELECT {values} FROM pg_temp.tutormax_staged_metrics AS staged JOIN won ON won.tutor_id = staged.tutor_id
            ORDER BY staged.metric_id COLLATE "C"
            ON CONFLICT (metric_id) DO UPDATE SET {assignments}
        )
        SELECT DISTINCT staged.tutor_id FROM pg_temp.tutormax_staged_metrics AS staged
        WHERE staged.tutor_id NOT IN (SELECT tutor_id FROM won)
        """
    )
    .format(
        columns=SQL(", ").join(map(Identifier, METRIC_COLUMNS)),
        values=SQL(", ").join(SQL("staged.{}").format(Identifier(column)) for column in METRIC_COLUMNS),
        assignments=SQL(", ").join(
            SQL("{0} = excluded.{0}").format(Identifier(column))
            for column in METRIC_COLUMNS
            if column not in ("metric_id", "created_at")
        ),
    )
    .as_bytes()
)
_PARKING: Final = Stage(
    "tutormax_staged_parked_metrics",
    ("tutor_id", "epoch", "position", "as_of", "facts_partition", "payload"),
    ("text", "int8", "int8", "timestamptz", "int8", "bytea"),
)
STAGES: Final = (STAGE, _PARKING)

_FENCES: Final = (
    "SELECT tutor_id, epoch, position, as_of FROM tutormax_streams.metric_fences WHERE tutor_id = ANY(%s::text[])"
)

_PARK: Final = """
INSERT INTO tutormax_streams.parked_metrics AS stored (tutor_id, epoch, position, as_of, facts_partition, payload)
SELECT tutor_id, epoch, position, as_of, facts_partition, payload FROM pg_temp.tutormax_staged_parked_metrics
ORDER BY tutor_id COLLATE "C"
ON CONFLICT (tutor_id) DO UPDATE SET epoch = excluded.epoch, position = excluded.position, as_of = excluded.as_of,
    facts_partition = excluded.facts_partition, payload = excluded.payload, parked_at = excluded.parked_at
WHERE (stored.epoch, stored.position, stored.as_of) < (excluded.epoch, excluded.position, excluded.as_of)
"""
_ANY_PARKED: Final = "SELECT FROM tutormax_streams.parked_metrics LIMIT 1"
# As in `parking`: first what waits, in order, then the rest. Who takes along what waits leaves out what others hold.
_HOLD: Final = (
    "SELECT FROM tutormax_streams.parked_metrics WHERE tutor_id = ANY(%s::text[]) ORDER BY tutor_id FOR UPDATE"
)
_TAKE_OF_TUTORS: Final = """
SELECT facts_partition, payload FROM tutormax_streams.parked_metrics WHERE tutor_id = ANY(%s::text[])
ORDER BY tutor_id FOR UPDATE SKIP LOCKED
"""
_TAKE_READY: Final = """
SELECT facts_partition, payload FROM tutormax_streams.parked_metrics AS parked
WHERE EXISTS (SELECT FROM tutors WHERE tutors.tutor_id = parked.tutor_id COLLATE "default")
ORDER BY tutor_id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_FORGET: Final = "DELETE FROM tutormax_streams.parked_metrics WHERE tutor_id = ANY(%s::text[])"
_FORGET_SUPERSEDED: Final = """
DELETE FROM tutormax_streams.parked_metrics AS parked USING tutormax_streams.metric_fences AS fence
WHERE parked.tutor_id = ANY(%s::text[]) AND fence.tutor_id = parked.tutor_id
    AND (parked.epoch, parked.position, parked.as_of) <= (fence.epoch, fence.position, fence.as_of)
"""


class MetricsWriter:
    """The sink of metrics records."""

    def __init__(self, database: Database, judge: Judge) -> None:
        self._database = database
        self._judge = judge
        self._prepare = prepared(*STAGES)

    async def write(self, updates: Sequence[tuple[int, MetricsUpdated]]) -> FlushResult:
        """Store records, each with the partition of `facts` its position counts in; of several records of one tutor
        the one with the greatest fence.

        Raises:
            SinkUnavailable: nothing was written, try the same again later.
        """
        greatest: dict[str, Update] = {}
        for partition, record in updates:
            known = greatest.get(record.tutor_id)
            if known is None or known.record.fence < record.fence:
                greatest[record.tutor_id] = Update(partition, record)
        if not greatest:
            return FlushResult()
        store = partial(_store, updates=[greatest[tutor_id] for tutor_id in sorted(greatest)], judge=self._judge)
        try:
            return await self._database.transaction(partial(store, careful=False), before=self._prepare)
        except (psycopg.Error, *VALUE_ERRORS) as error:
            if fault(error) is not Fault.ROW:
                raise
            logger.info("a metrics record is at fault, going through the flush by halves: %s", reason(error)[1])
            return await self._database.transaction(partial(store, careful=True), before=self._prepare)

    async def retry_parked(self, limit: int) -> FlushResult:
        """Store up to `limit` parked records whose tutors exist by now. Raises `SinkUnavailable`."""

        async def work(connection: Connection) -> FlushResult:
            taken = await _take(connection, _TAKE_READY, limit)
            return await _unpark(connection, taken, careful=True, judge=self._judge)

        return await self._database.transaction(work, before=self._prepare)

    async def told_alerts(self, told: Sequence[Alert]) -> None:
        """The broker has these alerts. Raises `SinkUnavailable`."""
        await self._database.transaction(partial(alerting.forget, told=told))

    async def untold_alerts(self, seconds: float, limit: int) -> FlushResult:
        """Up to `limit` alerts born longer ago than that: the worker that should have told them is dead, or slow. Raises
        `SinkUnavailable`."""

        async def work(connection: Connection) -> FlushResult:
            return FlushResult(alerts=await alerting.overdue(connection, seconds, limit))

        return await self._database.transaction(work)


async def unpark(connection: Connection, tutor_ids: Sequence[str], *, careful: bool) -> FlushResult:
    """Inside the transaction that wrote these tutors, on a session prepared with `STAGES`: store the metrics that
    waited for them. What is refused stays, to be reported by `MetricsWriter.retry_parked`; alerts are left to the next
    record of the tutor."""
    if not await _any_parked(connection):
        return FlushResult()
    taken = await _take(connection, _TAKE_OF_TUTORS, texts(tutor_ids))
    return await _unpark(connection, taken, careful=careful, keep_refused=True)


async def _store(connection: Connection, updates: list[Update], careful: bool, judge: Judge | None) -> FlushResult:
    tutor_ids = texts([update.record.tutor_id for update in updates])
    cleaning = await _any_parked(connection)
    if cleaning:
        await connection.execute(_HOLD, [tutor_ids])
    moved = await (_halved if careful else _move)(connection, updates, judge)
    if moved.waiting:
        moved.result.parked = len(moved.waiting)
        await _PARKING.fill(connection, map(_parking_row, moved.waiting))
        await connection.execute(_PARK)
    if cleaning:
        await connection.execute(_FORGET_SUPERSEDED, [tutor_ids])
    return moved.result


async def _unpark(
    connection: Connection,
    updates: list[Update],
    *,
    careful: bool,
    judge: Judge | None = None,
    keep_refused: bool = False,
) -> FlushResult:
    if not updates:
        return FlushResult()
    moved = await (_halved if careful else _move)(connection, updates, judge)
    written = set(moved.result.written)
    moved.result.unparked_metrics = [update.record for update in updates if update.record.tutor_id in written]
    staying = {update.record.tutor_id for update in moved.waiting}
    staying |= {record.tutor_id for record, _, _ in moved.result.refused if keep_refused}
    gone = [update.record.tutor_id for update in updates if update.record.tutor_id not in staying]
    await connection.execute(_FORGET, [texts(gone)])
    return moved.result


async def _move(connection: Connection, updates: list[Update], judge: Judge | None) -> _Moved:
    """Rows and fences of these tutors, one update each, and alerts if there is a judge. Raises by the fault of any of them."""
    moved = _Moved()
    await STAGE.fill(connection, _staged_rows(updates))
    found = await connection.execute(_MOVE)
    left_out = {tutor_id for (tutor_id,) in await found.fetchall()}
    fences = await _fences(connection, left_out) if left_out else {}
    for update in updates:
        tutor_id = update.record.tutor_id
        stored = fences.get(tutor_id)
        if tutor_id not in left_out or stored == update.record.fence:
            moved.result.written.append(tutor_id)
        elif stored is None or stored < update.record.fence:
            moved.waiting.append(update)
        else:
            moved.result.fenced += 1
    if judge is not None:
        moved.result.alerts = await judge.note(
            connection, [u.record for u in updates if u.record.tutor_id not in left_out]
        )
    return moved


async def _halved(connection: Connection, updates: list[Update], judge: Judge | None) -> _Moved:
    """As `_move`, but a record at fault is refused alone."""
    moved = _Moved()
    if not updates:
        return moved
    try:
        async with connection.transaction():
            return await _move(connection, updates, judge)
    except (psycopg.Error, *VALUE_ERRORS) as error:
        if fault(error) is not Fault.ROW:
            raise
        if len(updates) == 1:
            if isinstance(error, errors.ForeignKeyViolation):
                moved.waiting += updates  # the tutor went away between the look and the insertion
            else:
                moved.result.refused.append((updates[0].record, *reason(error)))
            return moved
    middle = len(updates) // 2
    moved.add(await _halved(connection, updates[:middle], judge))
    moved.add(await _halved(connection, updates[middle:], judge))
    return moved


async def _fences(connection: Connection, tutor_ids: set[str]) -> dict[str, tuple[int, int, int]]:
    found = await connection.execute(_FENCES, [texts(tutor_ids)], binary=True)
    return {tutor_id: (epoch, position, as_of_us) for tutor_id, epoch, position, as_of_us in await found.fetchall()}


async def _any_parked(connection: Connection) -> bool:
    found = await connection.execute(_ANY_PARKED)
    return await found.fetchone() is not None


async def _take(connection: Connection, query: LiteralString, value: object) -> list[Update]:
    found = await connection.execute(query, [value], binary=True)
    return [Update(partition, decode(payload)) for partition, payload in await found.fetchall()]


def _staged_rows(updates: list[Update]) -> Iterable[Sequence[object]]:
    for partition, record in updates:
        for row in metric_rows(record):
            yield (*row, record.epoch, record.position, partition)


def _parking_row(update: Update) -> Sequence[object]:
    record = update.record
    return (record.tutor_id, *record.fence, update.facts_partition, encode(record))
