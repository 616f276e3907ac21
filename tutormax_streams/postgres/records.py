"""Writes tutors, sessions, feedback and tutor events, so that the tables hold the greatest version of each entity.

1. One call is one transaction: what it reports has been committed, and after an error nothing of it stands.
2. A record ends in exactly one of: stored (written now, or found there already), stale (a greater version stands),
   parked (its tutor, student or session is missing), refused (PostgreSQL will never take it).
3. One refused row does not hold up its neighbours: a batch that fails by a row's own fault is written again, halved
   under savepoints until the row stands alone.
4. Locks are taken in one order: what waits of the own entities, tutors, sessions, feedback, events, what is to be
   announced; each by key.
5. Equal version times are settled by digest (`models.versions`), that of the stored row taken from what is stored.
6. What had been parked and is written or refused is owed to the reader of the report, in writing, until it is `told`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import psycopg
from psycopg import errors

from agents.ports import Owed, Persisted
from models.events import KIND_OF, Enriched
from models.metrics import MetricsUpdated
from models.versions import Version
from tutormax_streams.postgres import announcing, emails, metric_rows, parking, students
from tutormax_streams.postgres.contest import Candidate, Outcome, Verdict, verdicts
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.errors import VALUE_ERRORS, Fault, fault, reason
from tutormax_streams.postgres.kinds import FEEDBACK, KINDS, SESSION, TUTOR, TUTOR_EVENT, Kind
from tutormax_streams.postgres.staging import prepared

logger = logging.getLogger(__name__)

Entities = dict[str, dict[str, Candidate]]  # kind -> home id -> greatest version

_KIND_BY_TYPE: Final = {type_: KINDS[name] for type_, name in KIND_OF.items()}
_STUDENT_POSITION: Final = SESSION.columns.index("student_id")
assert FEEDBACK.columns[_STUDENT_POSITION] == "student_id"

UNPARK_LIMIT: Final = 2000
"""Parked records that one write takes along when their parent comes; `retry_parked` fetches the rest."""


@dataclass(slots=True)
class WriteResult:
    """What became of a batch. `written` includes rows that stood there already, so a replay reports them again."""

    written: list[Persisted] = field(default_factory=list)
    refused: list[tuple[Enriched, str, str]] = field(default_factory=list)  # record, reason code, sentence
    parked: int = 0
    unparked: int = 0  # of `written`, those that had been parked
    unparked_metrics: list[MetricsUpdated] = field(default_factory=list)  # had waited for tutors of `written`
    owed: Owed = field(default_factory=lambda: Owed([], []))  # of `written` and `refused`
    stale: int = 0


class RecordWriter:
    """The sink of entities. `clock` gives µs since 1970, for the students that are made up."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock
        self._prepare = prepared(*(kind.stage for kind in KINDS.values()), parking.STAGE, *metric_rows.STAGES)

    async def write(self, batch: Sequence[Enriched]) -> WriteResult:
        """Store a batch; several versions of one entity count as the greatest of them.

        Raises:
            SinkUnavailable: nothing was written, try the same again later.
        """
        entities = _entities(batch)
        if not batch:
            return WriteResult()
        impossible = await students.ensure(self._database, _student_ids(entities), self._clock())
        result = WriteResult()
        if impossible:
            _refuse_students(entities, impossible, result)
        return await self._transact(entities, result, ready=0)

    async def retry_parked(self, limit: int) -> WriteResult:
        """Store up to `limit` parked records whose parents exist by now, and feedback that waited for them. When
        `unparked` comes near `limit`, there may be more. Raises `SinkUnavailable`."""
        missing = await self._database.run(partial(parking.missing_students, limit=limit))
        if missing:
            await students.ensure(self._database, missing, self._clock())
        return await self._transact(_entities(()), WriteResult(), ready=limit)

    async def told(self, owed: Owed) -> None:
        """What was owed has been announced and refused, confirmed by the broker. Raises `SinkUnavailable`."""

        async def work(connection: Connection) -> None:
            await parking.told(connection, [((KIND_OF[type(r.event)], r.event.home_id), r) for r in owed.refusals])
            await announcing.forget(connection, owed.rows)

        await self._database.transaction(work)

    async def untold(self, seconds: float, limit: int) -> WriteResult:
        """Up to `limit` rows and as many refusals that have been owed for longer than that: the worker that should
        have told them is dead, or slow. Raises `SinkUnavailable`."""

        async def work(connection: Connection) -> WriteResult:
            written = await announcing.overdue(connection, seconds, limit)
            refused = await parking.overdue(connection, seconds, limit)
            return WriteResult(written, refused, owed=Owed(written, [record for record, _, _ in refused]))

        return await self._database.transaction(work)

    async def _transact(self, entities: Entities, result: WriteResult, ready: int) -> WriteResult:
        write = partial(self._write, entities=entities, ready=ready)
        try:
            outcome = await self._database.transaction(partial(write, careful=False), before=self._prepare)
        except (psycopg.Error, *VALUE_ERRORS) as error:
            if fault(error) is not Fault.ROW:
                raise
            logger.info("a row of the batch is at fault, going through it by halves: %s", reason(error)[1])
            outcome = await self._database.transaction(partial(write, careful=True), before=self._prepare)
        result.written += outcome.written
        result.refused += [(candidate.record, code, detail) for candidate, code, detail in outcome.refused]
        result.parked = sum(not candidate.parked for candidate in outcome.waiting)
        result.unparked = len(outcome.unparked)
        result.unparked_metrics = outcome.unparked_metrics
        result.owed = Owed(outcome.unparked, [c.record for c, _, _ in outcome.refused if c.parked])
        result.stale = len(outcome.stale)
        return result

    async def _write(self, connection: Connection, *, entities: Entities, ready: int, careful: bool) -> Outcome:
        entities = {name: dict(candidates) for name, candidates in entities.items()}  # a repetition starts afresh
        store = _store_carefully if careful else _store
        waiting = not await parking.is_empty(connection)
        held: set[parking.Key] = set()
        if waiting:
            own = [(kind, id_) for kind, candidates in entities.items() for id_ in candidates]
            held = await parking.hold(connection, own)
        if ready and waiting:
            _add(entities, await parking.take_ready(connection, ready))
        outcome = await store(connection, TUTOR, entities["tutor"].values())
        tutor_ids = [persisted.id for persisted in outcome.written]
        if tutor_ids:
            if waiting:
                _add(entities, await parking.take_of_tutors(connection, tutor_ids, UNPARK_LIMIT))
            outcome.unparked_metrics += (
                await metric_rows.unpark(connection, tutor_ids, careful=careful)
            ).unparked_metrics
        sessions = await store(connection, SESSION, entities["session"].values())
        outcome.add(sessions)
        if waiting and sessions.written:
            session_ids = [persisted.id for persisted in sessions.written]
            _add(entities, await parking.take_of_sessions(connection, session_ids, UNPARK_LIMIT))
        for kind in (FEEDBACK, TUTOR_EVENT):
            outcome.add(await store(connection, kind, entities[kind.name].values()))
        await parking.park(connection, [(c.kind, c.record) for c in outcome.waiting if not c.parked])
        if waiting:
            await _clear_parked(connection, entities, held, outcome)
            await announcing.note(connection, outcome.unparked)
        return outcome


async def _store(connection: Connection, kind: Kind, candidates: Iterable[Candidate]) -> Outcome:
    """Store candidates of one kind, each another entity. Raises by the fault of any of them."""
    outcome = Outcome()
    rows = sorted(candidates, key=lambda candidate: candidate.id)
    if not rows:
        return outcome
    if kind is FEEDBACK:
        rows, namesakes = _namesakes(rows)
        if namesakes:
            outcome.add(await _store(connection, kind, rows))
            outcome.add(await _store(connection, kind, namesakes))
            return outcome
    movers: set[str] = set()
    if kind is TUTOR:
        answer = await emails.answer(connection, [emails.Wish(c.id, c.row[2], c.version[0]) for c in rows])
        movers = answer.movers
        if answer.refused:
            detail = "another tutor holds this e-mail address (each may be used once)"
            outcome.refused += [(c, "duplicate", detail) for c in rows if c.id in answer.refused]
            rows = [candidate for candidate in rows if candidate.id not in answer.refused]
    await kind.stage.fill(connection, [candidate.row for candidate in rows])
    if movers:
        await emails.let_go(connection, movers)
    left_out = await _move(connection, kind, kind.upsert, rows, outcome)
    if not left_out:
        return outcome
    ties = []
    for candidate, verdict, stored in await verdicts(connection, kind, left_out):
        if verdict is Verdict.WINS_TIE:
            ties.append(candidate)
        else:
            outcome.settle(kind, candidate, verdict, stored)
    if ties:
        await kind.stage.fill(connection, [candidate.row for candidate in ties])
        outcome.waiting += await _move(connection, kind, kind.settle, ties, outcome)
    return outcome


async def _move(
    connection: Connection, kind: Kind, statement: bytes, staged: list[Candidate], outcome: Outcome
) -> list[Candidate]:
    """Run one of the kind's statements over the stage; returns the candidates that it left out."""
    found = await connection.execute(statement)
    odd = dict(await found.fetchall())
    left_out, moved = [], staged
    if odd:
        left_out = [candidate for candidate in staged if odd.get(candidate.id, "") is None]
        moved = [candidate for candidate in staged if odd.get(candidate.id, "") is not None]
    if kind is TUTOR and moved:
        await emails.hand_out(connection, [candidate.id for candidate in moved])
    outcome.written += [candidate.persisted(kind, odd.get(candidate.id)) for candidate in moved]
    outcome.unparked += [candidate.persisted(kind, odd.get(candidate.id)) for candidate in moved if candidate.parked]
    return left_out


async def _store_carefully(connection: Connection, kind: Kind, candidates: Iterable[Candidate]) -> Outcome:
    """As `_store`, but a row at fault is refused alone."""
    outcome = await _halved(connection, kind, list(candidates))
    while kind is TUTOR:
        # The holder of a wanted address may have been in the other half: again, as long as that helps somebody.
        duplicates = [candidate for candidate, code, _ in outcome.refused if code == "duplicate"]
        again = await _halved(connection, kind, duplicates)
        if not again.written:
            break
        outcome.refused = [refusal for refusal in outcome.refused if refusal[1] != "duplicate"]
        outcome.add(again)
    return outcome


async def _halved(connection: Connection, kind: Kind, candidates: list[Candidate]) -> Outcome:
    outcome = Outcome()
    if not candidates:
        return outcome
    try:
        async with connection.transaction():
            return await _store(connection, kind, candidates)
    except (psycopg.Error, *VALUE_ERRORS) as error:
        if fault(error) is not Fault.ROW:
            raise
        if len(candidates) == 1:
            if isinstance(error, errors.ForeignKeyViolation):
                outcome.waiting += candidates  # the parent went away between the look and the insertion
            else:
                outcome.refused.append((candidates[0], *reason(error)))
            return outcome
    middle = len(candidates) // 2
    outcome.add(await _halved(connection, kind, candidates[:middle]))
    outcome.add(await _halved(connection, kind, candidates[middle:]))
    return outcome


async def _clear_parked(connection: Connection, entities: Entities, held: set[parking.Key], outcome: Outcome) -> None:
    """Let go of what no longer waits: all that was held or taken out, but for what waits still or was refused."""
    staying = {(candidate.kind, candidate.id) for candidate in outcome.waiting}
    staying |= {(candidate.kind, candidate.id) for candidate, _, _ in outcome.refused}
    done: dict[parking.Key, Version] = {
        (kind, id_): candidate.version
        for kind, candidates in entities.items()
        for id_, candidate in candidates.items()
        if (candidate.parked or (kind, id_) in held) and (kind, id_) not in staying
    }
    await parking.settle(connection, done)
    await parking.refuse(connection, [((c.kind, c.id), code, why) for c, code, why in outcome.refused if c.parked])


def _entities(batch: Iterable[Enriched]) -> Entities:
    entities: Entities = {name: {} for name in KINDS}
    for record in batch:
        _keep(entities, Candidate.of(_KIND_BY_TYPE[type(record.event)], record))
    return entities


def _add(entities: Entities, taken: Iterable[parking.Parked]) -> None:
    for parked in taken:
        _keep(entities, Candidate.of(KINDS[parked.kind], parked.record, parked=True))


def _keep(entities: Entities, candidate: Candidate) -> None:
    of_kind = entities[candidate.kind]
    known = of_kind.get(candidate.id)
    if known is None or known.version < candidate.version:
        of_kind[candidate.id] = candidate


def _namesakes(feedback: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Feedback of different sessions under one feedback_id goes in two statements, so that the second sees the first."""
    seen: set[str] = set()
    first: list[Candidate] = []
    second: list[Candidate] = []
    for candidate in feedback:
        feedback_id = candidate.row[0]
        (second if feedback_id in seen else first).append(candidate)
        seen.add(feedback_id)
    return first, second


def _student_ids(entities: Entities) -> set[str]:
    return {c.row[_STUDENT_POSITION] for kind in (SESSION, FEEDBACK) for c in entities[kind.name].values()}


def _refuse_students(entities: Entities, impossible: dict[str, tuple[str, str]], result: WriteResult) -> None:
    for kind in (SESSION, FEEDBACK):
        for candidate in list(entities[kind.name].values()):
            why = impossible.get(candidate.row[_STUDENT_POSITION])
            if why is not None:
                result.refused.append((candidate.record, *why))
                del entities[kind.name][candidate.id]
