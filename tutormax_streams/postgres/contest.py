"""A candidate row against the row that is stored: which of the two is the greater version, and what follows."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Self

import msgspec
from psycopg import errors

from agents.ports import Persisted
from models.events import Enriched
from models.metrics import MetricsUpdated
from models.rows import Row
from models.versions import Version, digest
from tutormax_streams.postgres.arrays import texts
from tutormax_streams.postgres.database import Connection
from tutormax_streams.postgres.kinds import Kind


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A version of an entity that asks to be stored."""

    kind: str
    id: str  # home id
    record: Enriched
    row: Row
    version: Version
    parked: bool  # it comes from the side table

    @classmethod
    def of(cls, kind: Kind, record: Enriched, *, parked: bool = False) -> Self:
        row = kind.row_of(record.event)
        version = (row[kind.version_position], record.digest)
        return cls(kind.name, row[kind.key_position], record, row, version, parked)

    def persisted(self, kind: Kind, given_id: str | None = None) -> Persisted:
        """The report of the stored row, under its primary key, which may be another than asked for (`given_id`)."""
        id_ = given_id or self.row[0]
        return Persisted(kind.name, id_, self.record.event.tutor_id, self.version[0])


class Verdict(enum.Enum):
    """How a candidate that was left out stands to what is stored."""

    STALE = enum.auto()  # what is stored is greater
    SAME = enum.auto()  # it is stored already
    WINS_TIE = enum.auto()  # equally late, and the greater digest
    WAITS = enum.auto()  # it would win, but a parent is missing


@dataclass(slots=True)
class Outcome:
    """What became of candidates so far."""

    written: list[Persisted] = field(default_factory=list)
    refused: list[tuple[Candidate, str, str]] = field(default_factory=list)
    waiting: list[Candidate] = field(default_factory=list)
    stale: list[Candidate] = field(default_factory=list)
    unparked: list[Persisted] = field(default_factory=list)  # of `written`, those that had been parked
    unparked_metrics: list[MetricsUpdated] = field(default_factory=list)  # had waited for tutors of `written`

    def add(self, other: Outcome) -> None:
        self.written += other.written
        self.refused += other.refused
        self.waiting += other.waiting
        self.stale += other.stale
        self.unparked += other.unparked
        self.unparked_metrics += other.unparked_metrics

    def report(self, candidate: Candidate, persisted: Persisted) -> None:
        """Take in a candidate whose row stands."""
        self.written.append(persisted)
        if candidate.parked:
            self.unparked.append(persisted)

    def settle(self, kind: Kind, candidate: Candidate, verdict: Verdict, stored: Row | None) -> None:
        """Take in a candidate that needs no further statement."""
        if verdict is Verdict.SAME:
            assert stored is not None
            self.report(candidate, candidate.persisted(kind, stored[0]))
        elif verdict is Verdict.STALE:
            self.stale.append(candidate)
        elif kind.parents:
            self.waiting.append(candidate)
        else:
            # Nothing to wait for, so another writer was at the row between two statements: the transaction is repeated.
            raise errors.SerializationFailure(f"a row of {kind.table} changed meanwhile")


async def verdicts(
    connection: Connection, kind: Kind, candidates: list[Candidate]
) -> list[tuple[Candidate, Verdict, Row | None]]:
    """Compare what an upsert left out with what is stored. The upsert has locked the rows that it did not change."""
    keys = texts([candidate.id for candidate in candidates])
    found = await connection.execute(kind.stored, [keys], binary=True)
    stored = {row[kind.key_position]: row for row in await found.fetchall()}
    return [(c, _verdict(kind, c, stored.get(c.id)), stored.get(c.id)) for c in candidates]


def _verdict(kind: Kind, candidate: Candidate, stored: Row | None) -> Verdict:
    if stored is None or stored[kind.version_position] < candidate.version[0]:
        return Verdict.WAITS
    if stored[kind.version_position] > candidate.version[0]:
        return Verdict.STALE
    try:
        event = kind.event_of(stored)
    except (ValueError, TypeError):
        return Verdict.WINS_TIE  # somebody else's row that is no event
    row = kind.row_of(event)
    if row == candidate.row:
        return Verdict.SAME
    if kind.gave_way(stored):
        # The stored row bears a substitute id, so its digest is not that of its event. What comes has won in enrich.
        return Verdict.SAME if row[1:] == candidate.row[1:] else Verdict.WINS_TIE
    return Verdict.WINS_TIE if digest(event) < candidate.version[1] else Verdict.STALE
