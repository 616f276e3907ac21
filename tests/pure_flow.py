"""Validate, enrich and aggregate as pure functions over logs, with everything a cluster may do to them.

Each stage reads partitioned logs, keeps a state and appends to the next stage's logs, as the product does, but in one
process and in whatever order the given random generator likes. A crash keeps a random part of what a step was about to
write and replays from the committed position, or from an earlier one; a zombie appends old entries once more.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from models import facts, homes, wire
from models.events import Event, Feedback, Origin, Session, Tutor, TutorEvent, Validated
from models.fates import Rejected
from models.parsing import Parser
from models.rows import (
    FEEDBACK_COLUMNS,
    SESSION_COLUMNS,
    TUTOR_COLUMNS,
    TUTOR_EVENT_COLUMNS,
    Row,
    feedback_row,
    session_row,
    tutor_event_row,
    tutor_row,
)
from models.versions import Version, digest
from models.windows import TutorFacts

KIND = {"tutors": "tutor", "sessions": "session", "feedback": "feedback", "tutor-events": "tutor_event"}
STORED: dict[type, tuple[tuple[str, ...], Callable[[Any], Row]]] = {
    Tutor: (TUTOR_COLUMNS, tutor_row),
    Session: (SESSION_COLUMNS, session_row),
    Feedback: (FEEDBACK_COLUMNS, feedback_row),
    TutorEvent: (TUTOR_EVENT_COLUMNS, tutor_event_row),
}
PARSER = Parser()


@dataclass
class Step:
    """What one step is about to make durable."""

    writes: dict[bytes, bytes] = field(default_factory=dict)
    entries: list[tuple[str, bytes]] = field(default_factory=list)  # (key that names the partition, packed record)


class Reader:
    """One partition of one stage: a log to read, a state, the logs to append to."""

    def __init__(self, log: list[Any], target: list[list[bytes]], now_us: int) -> None:
        self.log, self.target, self.now_us = log, target, now_us
        self.committed = 0
        self.state: dict[bytes, bytes] = {}

    def step(self, batch: list[Any]) -> Step:
        raise NotImplementedError

    def forget_memory(self) -> None:
        """What a crash does to whatever is not in `state`."""

    def prune(self) -> None:
        """Drop from the state what can change no window any more."""

    @property
    def is_done(self) -> bool:
        return self.committed >= len(self.log)

    def advance(self, size: int) -> None:
        batch = self.log[self.committed : self.committed + size]
        step = self.step(batch)
        self.state |= step.writes
        for entry in step.entries:
            self._append(*entry)
        self.committed += len(batch)

    def crash(self, rng: random.Random, size: int) -> None:
        step = self.step(self.log[self.committed : self.committed + size])
        kept = rng.random()
        self.state |= {key: value for key, value in step.writes.items() if rng.random() < kept}
        for entry in step.entries[: rng.randrange(len(step.entries) + 1)]:
            self._append(*entry)
        self.forget_memory()
        if rng.random() < 0.3:
            self.committed = rng.randrange(self.committed + 1)
        if rng.random() < 0.1:
            self.committed, self.state = 0, {}  # a lost state is rebuilt from the whole log

    def _append(self, key: str, packed: bytes) -> None:
        self.target[partition_of(key, len(self.target))].append(packed)


class Validate(Reader):
    def __init__(self, log: list[Any], target: list[list[bytes]], now_us: int) -> None:
        super().__init__(log, target, now_us)
        self.rejected: list[tuple[str, bytes]] = []

    def step(self, batch: list[tuple[str, bytes]]) -> Step:
        step = Step()
        for topic, raw in batch:
            outcome = PARSER.parse(KIND[topic], raw, self.now_us)
            if isinstance(outcome, Rejected):
                self.rejected.append((topic, raw))
                continue
            assert outcome is not None
            validated = Validated(outcome.event, digest(outcome.event), Origin(topic, 0, 0, 0), outcome.warnings)
            step.entries.append((outcome.event.home_id, wire.pack_validated([validated])))
        return step


class Enrich(Reader):
    def __init__(self, log: list[Any], target: list[list[bytes]], now_us: int, rows: Rows) -> None:
        super().__init__(log, target, now_us)
        self.rows = rows
        self.sent: dict[tuple[type, str], Version] = {}
        self.went_back = 0  # how often a version was sent to be stored after a greater one

    def step(self, batch: list[bytes]) -> Step:
        step = Step()
        for packed in batch:
            entry = wire.unpack_validated(packed)
            assert isinstance(entry, wire.Events)
            for validated in entry.events:
                self._join(validated, step)
        return step

    def _join(self, validated: Validated, step: Step) -> None:
        event = validated.event
        if homes.too_old(event, self.now_us):
            self.rows.offer(validated)
            return
        key, home = homes.home_key(event), homes.home_of(validated)
        known = step.writes.get(key) or self.state.get(key)
        if known is not None:
            home = homes.merge(homes.decode(known), home)
        step.writes[key] = homes.encode(home)
        if homes.is_winner(validated, home):
            self.rows.offer(validated)
            slot, version = (type(event), event.home_id), (event.version_us, validated.digest)
            self.went_back += version < self.sent.get(slot, version)
            self.sent[slot] = version
        for fact in homes.facts(event.home_id, home, 0):
            step.entries.append((fact.tutor_id, wire.pack_facts([fact])))

    def prune(self) -> None:
        for key in [key for key, value in self.state.items() if homes.expired(homes.decode(value), self.now_us)]:
            del self.state[key]


class Aggregate(Reader):
    def __init__(self, log: list[Any], now_us: int) -> None:
        super().__init__(log, [], now_us)
        self.live: dict[str, TutorFacts] = {}  # kept up to date by `put`, lost in a crash

    def step(self, batch: list[bytes]) -> Step:
        step = Step()
        for packed in batch:
            for fact in wire.unpack_facts(packed):
                assert not isinstance(fact, facts.Barrier)
                key, value = facts.stored(fact)
                known = step.writes.get(key) or self.state.get(key)
                if known is not None:
                    value = facts.merge(facts.decode(known), value)
                step.writes[key] = facts.encode(value)
                self.tutor(fact.tutor_id).put(facts.fact_of(key, value))
        return step

    def forget_memory(self) -> None:
        self.live.clear()

    def tutor(self, tutor_id: str) -> TutorFacts:
        if tutor_id not in self.live:
            self.live[tutor_id] = self.rebuilt(tutor_id)
        return self.live[tutor_id]

    def rebuilt(self, tutor_id: str) -> TutorFacts:
        """The tutor's facts from the durable state alone."""
        prefix = facts.tutor_prefix(tutor_id)
        held = [(key, value) for key, value in self.state.items() if key.startswith(prefix)]
        return TutorFacts(tutor_id, [facts.fact_of(key, facts.decode(value)) for key, value in held])

    def prune(self) -> None:
        for key, value in list(self.state.items()):
            if facts.expired(facts.decode(value), self.now_us):
                del self.state[key]
                fact = facts.fact_of(key, facts.decode(value))
                self.tutor(fact.tutor_id).forget(fact)


class Rows:
    """The platform's tables, guarded as contract §2.5 wants them: the greater version stays."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Validated] = {}

    def offer(self, validated: Validated) -> None:
        event = validated.event
        slot = (type(event).__name__, event.home_id)
        held = self._held.get(slot)
        if held is None or (held.event.version_us, held.digest) < (event.version_us, validated.digest):
            self._held[slot] = validated

    def of(self, kind: type) -> dict[str, dict[str, Any]]:
        """Entity -> column -> stored value."""
        columns, row_of = STORED[kind]
        held = [validated.event for validated in self._held.values() if isinstance(validated.event, kind)]
        return {event.home_id: dict(zip(columns, row_of(event), strict=True)) for event in held}


class PureFlow:
    """All partitions of the three stages."""

    def __init__(self, rng: random.Random, partitions: int, now_us: int) -> None:
        self.rng = rng
        self.raw: list[list[tuple[str, bytes]]] = [[] for _ in range(partitions)]
        self.validated: list[list[bytes]] = [[] for _ in range(partitions)]
        self.facts: list[list[bytes]] = [[] for _ in range(partitions)]
        self.rows = Rows()
        self.validates = [Validate(log, self.validated, now_us) for log in self.raw]
        self.enriches = [Enrich(log, self.facts, now_us, self.rows) for log in self.validated]
        self.aggregates = [Aggregate(log, now_us) for log in self.facts]

    def clock_shows(self, now_us: int) -> None:
        for reader in [*self.validates, *self.enriches, *self.aggregates]:
            reader.now_us = now_us

    def publish(self, topic: str, raw: bytes) -> None:
        self.rng.choice(self.raw).append((topic, raw))  # any key, any partitioner

    def load(self, event: Event) -> None:
        """What `rebuild` does with a row of the database: straight to the event's home."""
        packed = wire.pack_validated([Validated(event, digest(event), Origin("database", 0, 0, 0))])
        self.validated[partition_of(event.home_id, len(self.validated))].append(packed)

    def run(self, *, trouble: float = 0.0) -> None:
        """Work until every log is read. `trouble`: how likely a step crashes, prunes or meets a zombie."""
        rng = self.rng
        readers: list[Reader] = [*self.validates, *self.enriches, *self.aggregates]
        while waiting := [reader for reader in readers if not reader.is_done]:
            reader, size = rng.choice(waiting), rng.randint(1, 5)
            if rng.random() < trouble:
                self._trouble(reader, size)
                trouble *= 0.9  # so that it comes to an end
            reader.advance(size)

    def _trouble(self, reader: Reader, size: int) -> None:
        rng = self.rng
        chance = rng.random()
        if chance < 0.6:
            reader.crash(rng, size)
        elif chance < 0.8:
            rng.choice([*self.enriches, *self.aggregates]).prune()
        elif log := rng.choice([*self.validated, *self.facts]):
            log.append(rng.choice(log))

    def forget(self) -> None:
        """Drop everywhere what can change no window any more."""
        for reader in [*self.enriches, *self.aggregates]:
            reader.prune()

    def tutor(self, tutor_id: str) -> tuple[TutorFacts, TutorFacts]:
        """The tutor's facts as kept in memory, and as rebuilt from the durable state."""
        aggregate = self.aggregates[partition_of(tutor_id, len(self.facts))]
        return aggregate.tutor(tutor_id), aggregate.rebuilt(tutor_id)


def partition_of(key: str, partitions: int) -> int:
    return zlib.crc32(key.encode()) % partitions
