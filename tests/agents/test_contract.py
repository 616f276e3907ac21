"""The contract of every agent: what comes out depends on the set of what came in, and on nothing else.

Valid, invalid, duplicate, shuffled, replayed, crashed in the middle: each agent passes the same tests, and the three of
the stream app agree with the oracle.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.agents.rigs import (
    AggregateRig,
    EnrichRig,
    FlushRig,
    PersistRig,
    Rig,
    ValidateRig,
    history,
    inputs,
    numbered,
)
from tests.oracle import Oracle
from tests.samples import NOW_US

AGENTS = [ValidateRig, EnrichRig, AggregateRig, PersistRig, FlushRig]
SEEDS = range(3)

pytestmark = pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.__name__.removesuffix("Rig").lower())


async def outcome(rig: Rig, seed: int = 0, *, crashes: int = 0) -> Any:
    await rig.begin()
    await rig.run(random.Random(seed), crashes=crashes)
    return rig.outcome()


@pytest.fixture(scope="module")
def expected() -> dict[type[Rig], Any]:
    """What each agent makes of its inputs when nothing goes wrong."""
    return {agent: asyncio.run(outcome(agent(inputs()[agent]))) for agent in AGENTS}


def test_valid(agent: type[Rig], expected: dict[type[Rig], Any]):
    """What comes out is what the oracle says of all events together."""
    oracle = Oracle(history().payloads, NOW_US)
    found = expected[agent]
    if agent is ValidateRig:
        events, letters = found
        assert letters == sorted(history().poison)
        assert len(events) == sum(map(len, history().payloads.values()))
    elif agent in (EnrichRig, PersistRig):
        rows = found[0]
        ids = {kind: {id_ for k, id_ in rows if k == kind} for kind in ("tutor", "session", "feedback", "tutor_event")}
        assert ids == {
            "tutor": oracle.tutors.keys(),
            "session": oracle.sessions.keys(),
            "feedback": oracle.feedback.keys(),
            "tutor_event": oracle.events.keys(),
        }
        starts = {id_: event.scheduled_start_us for (kind, id_), (event, _) in rows.items() if kind == "session"}
        assert starts == {id_: row["scheduled_start"] for id_, row in oracle.sessions.items()}
    else:
        tutors = {
            tutor_id: windows if agent is AggregateRig else windows.windows for tutor_id, (_, windows) in found.items()
        }
        assert tutors.keys() >= oracle.tutors.keys()
        for tutor_id, windows in tutors.items():
            for name, figures in oracle.metrics(tutor_id, NOW_US + 60_000_000).items():
                assert {column: getattr(windows[name], column) for column in figures} == figures


@pytest.mark.parametrize("seed", SEEDS)
async def test_shuffled(agent: type[Rig], expected: dict[type[Rig], Any], seed: int):
    rng = random.Random(seed)
    shuffled = []
    for topic in sorted({record.topic for record in inputs()[agent]}):
        entries = [(record.partition, record.value) for record in inputs()[agent] if record.topic == topic]
        rng.shuffle(entries)
        shuffled += numbered(topic, entries)
    assert await outcome(agent(shuffled), seed) == expected[agent]


@pytest.mark.parametrize("seed", SEEDS)
async def test_duplicate(agent: type[Rig], expected: dict[type[Rig], Any], seed: int):
    rng = random.Random(seed)
    doubled = []
    for topic in sorted({record.topic for record in inputs()[agent]}):
        entries = [
            (r.partition, r.value) for r in inputs()[agent] if r.topic == topic for _ in range(rng.choice((1, 2, 3)))
        ]
        doubled += numbered(topic, entries)
    found = await outcome(agent(doubled), seed)
    if agent is ValidateRig:  # a poisonous record that comes twice stands at two places, and is refused at both
        assert (found[0], set(found[1])) == (expected[agent][0], set(expected[agent][1]))
    else:
        assert found == expected[agent]


@pytest.mark.parametrize("seed", SEEDS)
async def test_replayed(agent: type[Rig], expected: dict[type[Rig], Any], seed: int):
    rig = agent(inputs()[agent])
    assert await outcome(rig, seed) == expected[agent]
    rig.read_again()
    await rig.run(random.Random(seed + 1))
    assert rig.outcome() == expected[agent]


@pytest.mark.parametrize("seed", range(8))
async def test_crashed_in_the_middle(agent: type[Rig], expected: dict[type[Rig], Any], seed: int):
    """Whatever had reached the broker when the process died, and whether or not its local state outlives it."""
    assert await outcome(agent(inputs()[agent]), seed, crashes=6) == expected[agent]
