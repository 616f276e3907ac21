"""Law: state is a function of the set of accepted events, not of their order, number, timing or place.

Random histories go through validate, enrich and aggregate as pure functions, over any partitioning and interleaving,
through crashes and replays, and must come out as the brute-force oracle says, at every instant looked at.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.events import Feedback, Session, Tutor, TutorEvent
from models.fates import Accepted
from models.metrics import EngagementMode, WindowMetrics
from models.parsing import Parser
from models.rows import (
    FEEDBACK_COLUMNS,
    SESSION_COLUMNS,
    TUTOR_COLUMNS,
    TUTOR_EVENT_COLUMNS,
    feedback_of,
    session_of,
    tutor_event_of,
    tutor_of,
)
from models.versions import digest
from tests.histories import Arrival, History, histories
from tests.oracle import DAY_US, MAY_LIE_AHEAD_US, WINDOW_DAYS, Oracle, Payload, is_accepted
from tests.pure_flow import KIND, PureFlow
from tests.samples import (
    NOW_US,
    TOPICS,
    bare,
    enveloped,
    feedback_payload,
    session_payload,
    spelled,
    tutor_event_payload,
    tutor_payload,
)

MODES: tuple[EngagementMode, ...] = ("normalized", "upstream")
EXAMPLES = settings().max_examples  # of the profile in use
PARSER = Parser()


def digest_order(topic: str, payload: Payload) -> bytes:
    """How `models.versions` orders versions of equal time; the oracle has no opinion of its own on that."""
    outcome = PARSER.parse(KIND[topic], bare(payload), NOW_US)
    assert isinstance(outcome, Accepted)
    return digest(outcome.event)


def oracle_of(history: History) -> Oracle:
    return Oracle(history.by_topic(), NOW_US, tie_break=digest_order)


VALID: dict[str, Payload] = {
    "tutors": tutor_payload("t0", NOW_US),
    "sessions": session_payload("s", "t0", NOW_US, NOW_US),
    "feedback": feedback_payload("f", "s", "t0", 5, NOW_US),
    "tutor-events": tutor_event_payload("e", "t0", "login", NOW_US),
}


@pytest.mark.parametrize(("topic", "field"), [(topic, field) for topic in TOPICS for field in MAY_LIE_AHEAD_US[topic]])
def test_parser_and_oracle_agree_how_far_ahead_an_instant_may_lie(topic: str, field: str) -> None:
    limit_us = NOW_US + MAY_LIE_AHEAD_US[topic][field]
    for moment_us, accepted in ((limit_us, True), (limit_us + 1, False)):
        payload = VALID[topic] | {field: spelled(moment_us)}
        assert isinstance(PARSER.parse(KIND[topic], bare(payload), NOW_US), Accepted) is accepted
        assert is_accepted(topic, payload, NOW_US) is accepted


def publish(flow: PureFlow, arrivals: Iterable[Arrival]) -> None:
    for topic, payload in arrivals:
        flow.publish(topic, enveloped(payload, flow.rng) if flow.rng.random() < 0.1 else bare(payload))


def flow_of(history: History, partitions: int, trouble: float) -> PureFlow:
    flow = PureFlow(random.Random(history.seed), partitions, NOW_US)
    publish(flow, history.arrivals)
    flow.run(trouble=trouble)
    assert not [rejected for validate in flow.validates for rejected in validate.rejected]
    return flow


def every_tutor(history: History) -> set[str]:
    """Those that only a losing version names included: their windows must be empty."""
    return {payload["tutor_id"] for _, payload in history.arrivals}


def figures(window: Any, columns: Any) -> dict[str, Any]:
    return {column: getattr(window, column) for column in columns}


def assert_windows_are_those_of(referee: Oracle, flow: PureFlow, history: History) -> None:
    for tutor_id in every_tutor(history):
        live, rebuilt = flow.tutor(tutor_id)
        for t_us in history.probes:
            for mode in MODES:
                windows = live.windows(t_us, mode)
                for name, expected in referee.metrics(tutor_id, t_us, mode).items():
                    assert figures(windows[name], expected) == expected, (tutor_id, t_us - NOW_US, mode, name)
                assert rebuilt.windows(t_us, mode) == windows


def assert_rows_are_those_of(referee: Oracle, flow: PureFlow) -> None:
    assert flow.rows.of(Tutor) == referee.tutors
    assert flow.rows.of(Session) == referee.sessions
    assert flow.rows.of(Feedback) == referee.feedback
    events = flow.rows.of(TutorEvent)
    for row in events.values():
        row["metadata"] = None if row["metadata"] is None else json.loads(row["metadata"])
    assert events == referee.events


def assert_standings_are_those_of(referee: Oracle, flow: PureFlow, history: History) -> None:
    for tutor_id in every_tutor(history):
        standing, profile = flow.tutor(tutor_id)[0].standing, referee.tutors.get(tutor_id)
        assert (standing is None) == (profile is None)
        if standing is not None and profile is not None:
            assert (standing.name, standing.version_us) == (profile["name"], profile["updated_at"])


@given(histories(), st.integers(1, 3))
def test_the_flow_converges_to_the_oracle(history: History, partitions: int) -> None:
    referee, flow = oracle_of(history), flow_of(history, partitions, trouble=0)
    assert_windows_are_those_of(referee, flow, history)
    assert_rows_are_those_of(referee, flow)
    assert_standings_are_those_of(referee, flow, history)
    assert not any(enrich.went_back for enrich in flow.enriches)


@given(histories(), st.integers(1, 3), st.sampled_from(["nothing", "everything again", "some of it once forgotten"]))
def test_crashes_replays_and_zombies_change_nothing(history: History, partitions: int, afterwards: str) -> None:
    referee, flow = oracle_of(history), flow_of(history, partitions, trouble=0.5)
    if afterwards == "everything again":
        for reader in [*flow.validates, *flow.enriches, *flow.aggregates]:
            reader.committed = 0
    elif afterwards == "some of it once forgotten":
        flow.forget()
        publish(flow, [arrival for arrival in history.arrivals if flow.rng.random() < 0.5])
    flow.run(trouble=0.3)
    assert_windows_are_those_of(referee, flow, history)
    assert_rows_are_those_of(referee, flow)
    assert_standings_are_those_of(referee, flow, history)


def after_forgetting(
    before: Iterable[Arrival], afterwards: Iterable[Arrival], days_between: int = 0
) -> dict[str, WindowMetrics]:
    """t0's windows now, when `before` arrived some days ago, all that could be forgotten then was, and `afterwards`
    arrives now."""
    flow = PureFlow(random.Random(0), 1, NOW_US - days_between * DAY_US)
    publish(flow, before)
    flow.run()
    flow.clock_shows(NOW_US)
    flow.forget()
    publish(flow, afterwards)
    flow.run()
    return flow.tutor("t0")[1].windows(NOW_US, "normalized")


def test_an_old_version_does_not_rise_again_where_the_newer_one_lies_in_the_distant_past() -> None:
    older = ("sessions", session_payload("s", "t0", NOW_US - DAY_US, NOW_US - 2))
    newer = ("sessions", session_payload("s", "t0", NOW_US - 125 * DAY_US, NOW_US - 1))
    assert after_forgetting([older, newer], [older])["90day"].sessions_scheduled == 0


def test_a_session_announced_long_ago_is_not_forgotten_before_its_time() -> None:
    announced = ("sessions", session_payload("s", "t0", NOW_US - DAY_US, NOW_US - 125 * DAY_US))
    assert after_forgetting([announced], [])["7day"].sessions_scheduled == 1


def test_a_rating_outlives_the_first_start_of_its_session() -> None:
    rating = ("feedback", feedback_payload("f", "s", "t0", 5, NOW_US - 100 * DAY_US))
    long_ago = ("sessions", session_payload("s", "t0", NOW_US - 125 * DAY_US, NOW_US - 125 * DAY_US))
    moved = ("sessions", session_payload("s", "t0", NOW_US - 80 * DAY_US, NOW_US - 1))
    assert after_forgetting([rating, long_ago], [moved], days_between=90)["90day"].avg_rating == 5.0


@settings(max_examples=EXAMPLES // 4)
@given(histories())
def test_rows_of_the_database_count_as_they_are_stored(history: History) -> None:
    """The platform's own writers keep other scales and leave out what the stream requires (C3)."""
    rng = random.Random(history.seed)
    referee, flow = oracle_of(history), PureFlow(rng, 2, NOW_US)
    for row in referee.sessions.values():
        row["engagement_score"] = rng.choice((None, 0.4, 1.0, 1.5, 85.0, row["engagement_score"]))
        row["learning_objectives_met"] = rng.choice((None, row["learning_objectives_met"]))
        flow.load(session_of([row[column] for column in SESSION_COLUMNS]))
    for row in referee.feedback.values():
        flow.load(feedback_of([row[column] for column in FEEDBACK_COLUMNS]))
    for row in referee.events.values():
        flow.load(tutor_event_of([row[column] for column in TUTOR_EVENT_COLUMNS]))
    for row in referee.tutors.values():
        flow.load(tutor_of([row[column] for column in TUTOR_COLUMNS]))
    flow.run()
    assert_windows_are_those_of(referee, flow, history)
    assert_rows_are_those_of(referee, flow)


@settings(max_examples=EXAMPLES // 10)
@given(histories())
def test_next_change_misses_no_change_and_invents_no_instant(history: History) -> None:
    referee, flow = oracle_of(history), flow_of(history, 1, trouble=0)
    # What stands at an instant enters the windows 1 µs later and leaves each of them 1 µs after its length.
    placed = [row["scheduled_start"] for row in referee.sessions.values()]
    placed += [row["event_timestamp"] for row in referee.events.values()]
    turns = {at_us + days * DAY_US + 1 for at_us in placed for days in (0, *WINDOW_DAYS.values())}
    for tutor_id in every_tutor(history):
        facts, _ = flow.tutor(tutor_id)
        for t_us in history.probes:
            change_us = facts.next_change(t_us)
            later = sorted(turn for turn in turns if turn > t_us)
            assert change_us is None or change_us in later
            now = referee.metrics(tutor_id, t_us)
            for turn in later:
                if change_us is None or turn < change_us:
                    assert referee.metrics(tutor_id, turn) == now
