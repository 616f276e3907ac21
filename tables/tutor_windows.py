"""The windowed table: tutor -> facts -> rolling 7/30/90-day aggregates, always as of now.

1. One key per fact (tutor, kind, entity), so that an event costs one small changelog record whatever the windows'
   length. Faust's own hopping tables write one record per window that an event falls into.
2. The windows themselves are never stored: they are computed from the facts for the instant that is asked for.
3. The facts of tutors in demand are kept laid out for computing, least recently used ones dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import faust

from models import facts
from models.facts import BARRIER_KEY, Barrier, Barriers, Fact, Remembered, SessionParts
from models.windows import TutorFacts
from tables.sweeping import Sweeper
from tutormax_streams.batches import MergedTable
from tutormax_streams.batches.shelves import SharedMemory

NAME = "tutor_windows"


class TutorWindows:
    """`cached_facts` bounds the facts held laid out, some 50 bytes each. Those of 400 tutors x 90 days fit."""

    def __init__(self, table: MergedTable[Remembered], cached_facts: int = 100_000) -> None:
        self.table = table
        self._sweeper = Sweeper(table, lambda payload, now_us: facts.expired(facts.decode(payload), now_us))
        self._cached_facts = cached_facts
        self._laid_out: OrderedDict[tuple[int, str], TutorFacts] = OrderedDict()
        self._held = 0  # facts in all of them

    async def absorb(self, partition: int, incoming: Iterable[Fact | Barrier]) -> list[asyncio.Future[Any]]:
        """Merge facts and barriers of one partition: the confirmations to wait for."""
        values: dict[bytes, Remembered] = {}
        told: dict[bytes, Fact] = {}  # one fact under each key: whom and what it is about
        value: Remembered
        for fact in incoming:
            if isinstance(fact, Barrier):
                key, value = BARRIER_KEY, facts.Barriers(fact.epoch, (fact.partition,))
            else:
                key, value = facts.stored(fact)
                told[key] = fact
            known = values.get(key)
            values[key] = value if known is None else facts.merge(known, value)
        merged, confirmations = await self.table.merge(partition, values)
        find = self._laid_out.get
        for key, fact in told.items():
            laid_out = find((partition, fact.tutor_id))
            if laid_out is not None:
                self._held -= laid_out.held
                laid_out.put(facts.fact_of(key, merged[key]))
                self._held += laid_out.held
        self._make_room()
        return confirmations

    def tutor(self, partition: int, tutor_id: str) -> TutorFacts:
        """Everything remembered of a tutor, empty if nothing. Raises `Revoked` where the partition is not held."""
        found = self._laid_out.get((partition, tutor_id))
        if found is not None:
            self._laid_out.move_to_end((partition, tutor_id))
            return found
        prefix = facts.tutor_prefix(tutor_id)
        sessions: list[tuple[str, SessionParts]] = []
        others: list[Fact] = []
        for key, payload in self.table.scan(partition, prefix):
            if not key.startswith(prefix):
                break
            value = facts.decode(payload)
            if isinstance(value, SessionParts):
                sessions.append((facts.entity_id(key, prefix), value))
            else:
                others.append(facts.fact_of(key, value))
        tutor_facts = TutorFacts(tutor_id, others, sessions)
        if not tutor_facts.held:
            return tutor_facts  # it would not count against the bound, and anyone may ask for any number of ids
        self._laid_out[(partition, tutor_id)] = tutor_facts
        self._held += tutor_facts.held
        self._make_room()
        return tutor_facts

    @property
    def held(self) -> int:
        """How many facts are laid out."""
        return self._held

    def _make_room(self) -> None:
        while self._held > self._cached_facts and len(self._laid_out) > 1:
            self._held -= self._laid_out.popitem(last=False)[1].held

    def tutors(self, partition: int) -> Iterator[str]:
        """Every tutor of whom something is remembered, each by one jump to the next prefix."""
        start = b"\x01"  # behind the table's own records
        while True:
            found = next(self.table.scan(partition, start), None)
            if found is None:
                return
            tutor = found[0].partition(b"\x00")[0]
            yield tutor.decode()
            start = tutor + b"\x01"

    def barriers(self, partition: int) -> Barriers | None:
        """Which partitions of `validated` have delivered the database's history."""
        held = self.table.get(partition, BARRIER_KEY)
        assert held is None or isinstance(held, Barriers)
        return held

    async def sweep(self, partition: int, now_us: int) -> list[asyncio.Future[Any]]:
        """Forget some of what has expired."""
        gone, confirmations = await self._sweeper.step(partition, now_us)
        for tutor_id in {key.partition(b"\x00")[0].decode() for key in gone}:
            self._drop((partition, tutor_id))
        return confirmations

    def forget(self, partition: int) -> None:
        """The partition has left this worker or has come anew: lay nothing out from memory."""
        for key in [key for key in self._laid_out if key[0] == partition]:
            self._drop(key)

    def _drop(self, key: tuple[int, str]) -> None:
        found = self._laid_out.pop(key, None)
        if found is not None:
            self._held -= found.held


def declare(app: faust.App, partitions: int, directory: Path | None, memory: SharedMemory) -> TutorWindows:
    """Add the table to `app`; its changelog has the partitions of topic `facts`."""
    return TutorWindows(
        MergedTable.declare(
            app,
            NAME,
            partitions,
            encode=facts.encode,
            decode=facts.decode,
            merge=facts.merge,
            directory=directory,
            memory=memory,
            is_sound=facts.lies_at,
            is_marked=True,
        )
    )
