"""Feedback that came ahead of its session waits in memory for a moment, not in a side table for the same moment.

Topics are read side by side, so in a backlog every other feedback overtakes its session. Both have one home, hence one
partition, and the session is seldom far behind.

1. Whether the session had come is enrich's word: it gives feedback a delay where it knows the session. A wrong word
   costs a moment, nothing else.
2. Feedback waits for the next `MOST_BATCHES` of its partition, and for `MOST_SECONDS` (`IDLE_SECONDS` while nothing
   else is to be written); what ends first counts. Then it goes on to the database as it is, which parks it.
3. A batch is done when all its parts are: nothing that waits here is ever committed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agents.ports import Clock
from models.enrichment import DELAY
from models.events import Enriched, Feedback, Session
from tutormax_streams.batches import Gathering, Parts, RecordBatch

MOST_BATCHES = 2  # the consumer has four of a partition under way at once: two are left to bring the session
MOST_SECONDS = 30.0  # in a backlog, all other partitions may have their turns in between
IDLE_SECONDS = 3.0


@dataclass(slots=True)
class _Held:
    """Feedback of one batch, by session."""

    parts: Parts
    feedback: dict[str, list[Enriched]]
    since_us: int
    batches: int = 0  # that have come since


@dataclass(slots=True)
class EarlyFeedback:
    """Stands before `gathering`, the queue to the database."""

    gathering: Gathering[Enriched]
    clock: Clock
    _held: dict[int, deque[_Held]] = field(default_factory=dict)  # by partition, oldest first

    def add(self, batch: RecordBatch, events: Sequence[Enriched]) -> None:
        """Pass on what need not wait, and what waited for sessions of this batch."""
        sessions = {e.event.session_id for e in events if type(e.event) is Session}
        ripe: list[Enriched] = []
        early: dict[str, list[Enriched]] = {}
        for enriched in events:
            event = enriched.event
            if type(event) is Feedback and DELAY not in enriched.derived and event.session_id not in sessions:
                early.setdefault(event.session_id, []).append(enriched)
            else:
                ripe.append(enriched)
        parts = Parts(batch, 2 if early else 1)
        self.gathering.add(parts, ripe)
        held = self._held.setdefault(batch.partition, deque())
        for earlier in held:
            earlier.batches += 1
            if found := earlier.feedback.keys() & sessions:
                self._pass_on(earlier, [e for session_id in found for e in earlier.feedback.pop(session_id)])
        while held and (not held[0].feedback or held[0].batches >= MOST_BATCHES):
            self._let_go(held.popleft())
        if early:
            held.append(_Held(parts, early, self.clock()))

    def let_go_of_overdue(self) -> None:
        """Pass on what has waited long enough. To be called every second or so."""
        patience = MOST_SECONDS if self.gathering.waiting_entries else IDLE_SECONDS
        oldest_us = self.clock() - int(patience * 1e6)
        for held in self._held.values():
            while held and held[0].since_us <= oldest_us:
                self._let_go(held.popleft())

    def _pass_on(self, held: _Held, events: list[Enriched]) -> None:
        if held.feedback:
            held.parts.split()
        self.gathering.add(held.parts, events)

    def _let_go(self, held: _Held) -> None:
        if held.feedback:
            events = [e for versions in held.feedback.values() for e in versions]
            held.feedback = {}
            self._pass_on(held, events)
