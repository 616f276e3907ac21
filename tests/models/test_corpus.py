"""The corpus is what it says it is, and the pure flow makes of it what the oracle makes of it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from models.events import Feedback, Session, Tutor
from tests.corpus import Corpus, corpus
from tests.oracle import ENTITY_KEY, VERSION_KEY, Oracle, instant_us, payload_of
from tests.pure_flow import PureFlow
from tests.samples import NOW_US


@pytest.fixture(scope="module")
def records() -> Corpus:
    return corpus(seed=3, events=4_000)


def test_the_same_seed_gives_the_same_bytes(records: Corpus) -> None:
    assert corpus(seed=3, events=4_000) == records
    assert corpus(seed=4, events=4_000) != records


def test_it_holds_what_it_promises(records: Corpus) -> None:
    valid = sum(len(payloads) for payloads in records.payloads.values())
    assert len(records.records) == 4_000
    assert (len(records.poison), valid) == (40, 4_000 - 40 - 800)
    for topic, payloads in records.payloads.items():
        versions = Counter((p[ENTITY_KEY[topic]], instant_us(p[VERSION_KEY[topic]])) for p in payloads)
        assert set(versions.values()) == {1}, "versions that tie"
    poison = Counter(records.poison)
    kept = [record for record in records.records if not poison[record.value]]
    published = {topic: [payload_of(value) for where, value in kept if where == topic] for topic in records.payloads}
    referee = Oracle(records.payloads, NOW_US)
    stored = referee.tables()
    assert Oracle(published, NOW_US).tables() == stored
    assert stored["sessions"].keys() == referee.sessions.keys(), "something stays parked"
    assert len(stored["student_feedback"]) == len(referee.feedback)
    assert stored["tutor_events"].keys() == referee.events.keys()


def test_the_pure_flow_refuses_the_poison_and_agrees_with_the_oracle_on_the_rest(records: Corpus) -> None:
    referee, flow = Oracle(records.payloads, NOW_US), PureFlow(random.Random(5), 3, NOW_US)
    for topic, value in records.records:
        flow.publish(topic, value)
    flow.run()
    assert Counter(raw for validate in flow.validates for _, raw in validate.rejected) == Counter(records.poison)
    assert flow.rows.of(Tutor) == referee.tutors
    assert flow.rows.of(Session) == referee.sessions
    assert flow.rows.of(Feedback) == referee.feedback
    for tutor_id in referee.tutors:
        windows = flow.tutor(tutor_id)[1].windows(NOW_US, "normalized")
        for name, expected in referee.metrics(tutor_id, NOW_US).items():
            assert {column: getattr(windows[name], column) for column in expected} == expected
