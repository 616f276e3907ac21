"""Small adversarial histories for hypothesis: few entities, many versions, all edges.

They keep within the domain that design law 4 promises to get right: a session's start lies at most 31 days after the
`updated_at` that names it, and after the `submitted_at` of its feedback. All payloads are valid at `NOW_US`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.oracle import DAY_US, MINUTE_US, Payload, instant_us
from tests.samples import (
    NOW_US,
    ODD_METADATA,
    by_topic,
    feedback_payload,
    session_payload,
    spelled,
    tutor_event_payload,
    tutor_payload,
)

HOUR_US = 60 * MINUTE_US
AHEAD_US = 31 * DAY_US  # how far a start may lie ahead of the version that names it

Arrival = tuple[str, Payload]  # topic, payload


@dataclass(frozen=True)
class History:
    """Events in their order of arrival at `NOW_US`, duplicates included, and instants worth a look (>= `NOW_US`)."""

    arrivals: list[Arrival]
    probes: list[int]
    seed: int  # for whatever else the test leaves to chance: partitions, interleavings, crashes

    def by_topic(self) -> dict[str, list[Payload]]:
        return by_topic(self.arrivals)


TUTORS = ("t0", "t1", "t2")
SESSIONS = ("s0", "s1", "s2", "s3")
EVENTS = ("e0", "e1", "e2", "e3")
STYLE = st.integers(0, 5)
# The edges of all three windows as seen from NOW_US, to the microsecond, and instants that lie ahead.
EDGE_US = st.builds(
    lambda days, near_us: NOW_US - days * DAY_US + near_us,
    st.sampled_from((0, 7, 30, 90, 1, 40)),
    st.sampled_from((0, -1, 1, -HOUR_US, HOUR_US)),
)
START_US = st.one_of(
    EDGE_US,
    EDGE_US,
    st.sampled_from([NOW_US + ahead_us for ahead_us in (2, 1000, DAY_US, 29 * DAY_US, AHEAD_US)]),
    st.sampled_from([NOW_US - back_us for back_us in (118 * DAY_US, 119 * DAY_US, 125 * DAY_US)]),
    st.integers(NOW_US - 95 * DAY_US, NOW_US + AHEAD_US),
)
# Few instants, so that versions tie; some so old that the windows may forget them.
VERSION_US = st.sampled_from(
    [
        *(NOW_US - back_us for back_us in (0, 1, 2, MINUTE_US, -4 * MINUTE_US)),
        *(NOW_US - back_us for back_us in (31 * DAY_US, 100 * DAY_US, 120 * DAY_US, 122 * DAY_US, 200 * DAY_US)),
    ]
)


@st.composite
def sessions(draw: st.DrawFn) -> Arrival:
    updated_us = draw(VERSION_US)
    payload = session_payload(
        draw(st.sampled_from(SESSIONS)),
        draw(st.sampled_from(TUTORS)),
        min(draw(START_US), updated_us + AHEAD_US),
        updated_us,
        draw(STYLE),
        session_number=draw(st.sampled_from((1, 1, 2))),
        engagement_score=draw(st.sampled_from((0.8, 0, 1, 0.333, 0.8649, 1.5, 85.0, 100))),
        late_start_minutes=draw(st.sampled_from((0, 10, 11, 60))),
        learning_objectives_met=draw(st.booleans()),
        tutor_initiated_reschedule=draw(st.booleans()),
        no_show=draw(st.sampled_from((False, False, True))),
        session_type=draw(st.sampled_from(("1-on-1", "group", "workshop", None))),
    )
    if draw(st.sampled_from((False, False, True))):
        payload["actual_start"] = None
    return "sessions", payload


@st.composite
def ratings(draw: st.DrawFn) -> Arrival:
    session_id = draw(st.sampled_from(SESSIONS))
    payload = feedback_payload(
        f"FB-{session_id}-{draw(st.integers(0, 1))}",
        session_id,
        draw(st.sampled_from(TUTORS)),
        draw(st.integers(1, 5)),
        draw(VERSION_US | st.just(NOW_US + 20 * DAY_US)),
        draw(STYLE),
        is_first_session=draw(st.booleans()),
    )
    return "feedback", payload


@st.composite
def tutor_events(draw: st.DrawFn) -> Arrival:
    payload = tutor_event_payload(
        draw(st.sampled_from(EVENTS)),
        draw(st.sampled_from(TUTORS)),
        draw(st.sampled_from(("login", "login", "message_response", "message_response", "profile_view"))),
        draw(EDGE_US | st.just(NOW_US + DAY_US) | st.just(NOW_US - 122 * DAY_US)),
        draw(STYLE),
        metadata=draw(st.sampled_from(ODD_METADATA)),
    )
    return "tutor-events", payload


@st.composite
def profiles(draw: st.DrawFn) -> Arrival:
    payload = tutor_payload(
        draw(st.sampled_from((*TUTORS, "t3"))),
        draw(VERSION_US),
        draw(STYLE),
        name=draw(st.sampled_from(("Ann", "Bo", "é" * 230))),
        status=draw(st.sampled_from(("active", "inactive", "suspended", "churned", None))),
    )
    return "tutors", payload


ARRIVALS = st.one_of(sessions(), sessions(), ratings(), tutor_events(), profiles())


@st.composite
def histories(draw: st.DrawFn, max_events: int = 16) -> History:
    """Versions that correct, move, tie or stay behind; ratings of foreigners and of nobody; shuffled, some repeated."""
    events = draw(st.lists(ARRIVALS, min_size=1, max_size=max_events))
    events = [rated_within_domain(event, events) for event in events]
    starts = [instant_us(p["scheduled_start"]) for topic, p in events if topic == "sessions"]
    later = st.sampled_from([NOW_US + 1, NOW_US + 2, NOW_US + DAY_US, NOW_US + 30 * DAY_US, NOW_US + 91 * DAY_US])
    edges = [start + days * DAY_US for start in starts for days in (0, 7, 30, 90) if start + days * DAY_US >= NOW_US]
    if edges:
        later |= st.builds(lambda edge_us, near_us: edge_us + near_us, st.sampled_from(edges), st.integers(0, 2))
    probes = sorted({NOW_US, *draw(st.lists(later, max_size=3))})
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    arrivals = events + rng.choices(events, k=rng.randrange(len(events) + 1))
    rng.shuffle(arrivals)
    return History(arrivals, probes, seed)


def rated_within_domain(event: Arrival, events: list[Arrival]) -> Arrival:
    """Feedback is submitted at the earliest 31 days before any start its session was ever given."""
    topic, payload = event
    if topic != "feedback":
        return event
    starts = [
        instant_us(p["scheduled_start"])
        for kind, p in events
        if kind == "sessions" and p["session_id"] == payload["session_id"]
    ]
    earliest_us = max(starts, default=NOW_US) - AHEAD_US
    if instant_us(payload["submitted_at"]) >= earliest_us:
        return event
    return topic, payload | {"submitted_at": spelled(earliest_us), "created_at": spelled(min(earliest_us, NOW_US))}
