"""Small adversarial histories for hypothesis: few entities, many versions, all edges.

They keep within the domain in which forgetting is promised to go unnoticed: where a session has several versions, each
start lies at most 31 days after the `updated_at` that names it; and at most 31 days after the `submitted_at` of its
feedback. All payloads are valid at `NOW_US`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

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
Dish = TypeVar("Dish")


@dataclass(frozen=True)
class History:
    """Events in their order of arrival at `NOW_US`, duplicates included, and instants worth a look (>= `NOW_US`)."""

    arrivals: list[Arrival]
    probes: list[int]
    seed: int  # for whatever else the test leaves to chance: partitions, interleavings, crashes

    def by_topic(self) -> dict[str, list[Payload]]:
        return by_topic(self.arrivals)


# Menus. The first dish is the one that hypothesis shrinks to.
TUTORS = ("t0", "t1", "t2")
SESSIONS = ("s0", "s1", "s2", "s3")
EVENTS = ("e0", "e1", "e2", "e3")
EDGE_DAYS = (1, 0, 7, 30, 90, 40)  # the edges of all three windows as seen from NOW_US, to the microsecond
NEAR_US = (0, -1, 1, -HOUR_US, HOUR_US)
AHEAD_STARTS = (2, 1000, DAY_US, 29 * DAY_US, AHEAD_US)
OLD_STARTS = (118 * DAY_US, 119 * DAY_US, 125 * DAY_US)
# Few version times, so that versions tie; some so long ago that the windows may forget them, and two between the day
# when a start can last be in a window and the day when it was last allowed to be announced.
VERSION_AGES = (
    *(0, 1, 2, MINUTE_US, -4 * MINUTE_US),
    *(days * DAY_US for days in (31, 100, 120, 122, 200)),
    121 * DAY_US - HOUR_US,
)
SCORES = (0.8, 0, 1, 0.333, 0.8649, 1.5, 85.0, 100)


class Picker:
    """Picks from menus, a byte each. One draw of hypothesis per event takes a tenth of the time of one per field."""

    SIZE = 24

    def __init__(self, choices: bytes) -> None:
        self._choices = iter(choices)

    def pick(self, menu: Sequence[Dish]) -> Dish:
        return menu[next(self._choices) % len(menu)]

    def style(self) -> int:
        return self.pick(range(6))

    def flag(self) -> bool:
        return self.pick((False, True))

    def rarely(self) -> bool:
        return self.pick((False, False, True))

    def edge_us(self) -> int:
        return NOW_US - self.pick(EDGE_DAYS) * DAY_US + self.pick(NEAR_US)

    def start_us(self) -> int:
        where = self.pick(("edge", "edge", "edge", "ahead", "old", "any", "any"))
        if where == "ahead":
            return NOW_US + self.pick(AHEAD_STARTS)
        if where == "old":
            return NOW_US - self.pick(OLD_STARTS)
        if where == "any":
            return NOW_US - self.pick(range(125)) * DAY_US + self.pick(range(256)) * 337_500_001 + AHEAD_US
        return self.edge_us()

    def version_us(self) -> int:
        return NOW_US - self.pick(VERSION_AGES)


def session(pick: Picker) -> Arrival:
    updated_us = pick.version_us()
    payload = session_payload(
        pick.pick(SESSIONS),
        pick.pick(TUTORS),
        min(pick.start_us(), NOW_US + AHEAD_US),
        updated_us,
        pick.style(),
        session_number=pick.pick((1, 1, 2)),
        engagement_score=pick.pick(SCORES),
        late_start_minutes=pick.pick((0, 10, 11, 60)),
        learning_objectives_met=pick.flag(),
        tutor_initiated_reschedule=pick.flag(),
        no_show=pick.rarely(),
        session_type=pick.pick(("1-on-1", "group", "workshop", None)),
    )
    if pick.rarely():
        payload["actual_start"] = None
    return "sessions", payload


def rating(pick: Picker) -> Arrival:
    session_id = pick.pick(SESSIONS)
    return "feedback", feedback_payload(
        f"FB-{session_id}-{pick.pick((0, 1))}",
        session_id,
        pick.pick(TUTORS),
        pick.pick((5, 4, 3, 2, 1)),
        NOW_US + 20 * DAY_US if pick.rarely() else pick.version_us(),
        pick.style(),
        is_first_session=pick.flag(),
    )


def tutor_event(pick: Picker) -> Arrival:
    moments = (pick.edge_us(), NOW_US + DAY_US, NOW_US - 122 * DAY_US)
    return "tutor-events", tutor_event_payload(
        pick.pick(EVENTS),
        pick.pick(TUTORS),
        pick.pick(("login", "message_response", "login", "message_response", "profile_view")),
        moments[pick.pick((0, 0, 0, 0, 0, 0, 1, 2))],
        pick.style(),
        metadata=pick.pick(ODD_METADATA),
    )


def profile(pick: Picker) -> Arrival:
    return "tutors", tutor_payload(
        pick.pick((*TUTORS, "t3")),
        pick.version_us(),
        pick.style(),
        name=pick.pick(("Ann", "Bo", "é" * 230)),
        status=pick.pick(("active", "inactive", "suspended", "churned", None)),
    )


def arrival(choices: bytes) -> Arrival:
    pick = Picker(choices)
    return pick.pick((session, session, session, rating, rating, tutor_event, tutor_event, profile))(pick)


ARRIVALS = st.binary(min_size=Picker.SIZE, max_size=Picker.SIZE).map(arrival)


@st.composite
def histories(draw: st.DrawFn, max_events: int = 24) -> History:
    """Versions that correct, move, tie or stay behind; ratings of foreigners and of nobody; shuffled, some repeated."""
    at_least = draw(st.sampled_from((1, max_events // 4, max_events // 2)))
    events = draw(st.lists(ARRIVALS, min_size=at_least, max_size=max_events))
    events = [announced_in_time(event, events) for event in events]
    events = [rated_in_time(event, events) for event in events]
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    arrivals = events + rng.choices(events, k=rng.randrange(len(events) + 1))
    rng.shuffle(arrivals)
    return History(arrivals, sorted({NOW_US, *rng.sample(later_turns(events), 2)}), seed)


def later_turns(events: list[Arrival]) -> list[int]:
    """Instants at or after `NOW_US` at which a session has just entered or left a window, or is about to."""
    starts = [instant_us(payload["scheduled_start"]) for topic, payload in events if topic == "sessions"]
    turns = [start + days * DAY_US + near for start in starts for days in (0, 7, 30, 90) for near in (0, 1)]
    return [NOW_US + 1, NOW_US + 91 * DAY_US, *(turn for turn in turns if turn > NOW_US)]


def versions_of(session_id: str, events: list[Arrival]) -> list[Payload]:
    return [p for topic, p in events if topic == "sessions" and p["session_id"] == session_id]


def announced_in_time(event: Arrival, events: list[Arrival]) -> Arrival:
    topic, payload = event
    if topic != "sessions" or len(versions_of(payload["session_id"], events)) == 1:
        return event
    latest_us = instant_us(payload["updated_at"]) + AHEAD_US
    if instant_us(payload["scheduled_start"]) <= latest_us:
        return event
    return topic, payload | {"scheduled_start": spelled(latest_us)}


def rated_in_time(event: Arrival, events: list[Arrival]) -> Arrival:
    topic, payload = event
    if topic != "feedback":
        return event
    starts = [instant_us(session["scheduled_start"]) for session in versions_of(payload["session_id"], events)]
    earliest_us = max(starts, default=NOW_US) - AHEAD_US
    if instant_us(payload["submitted_at"]) >= earliest_us:
        return event
    return topic, payload | {"submitted_at": spelled(earliest_us), "created_at": spelled(min(earliest_us, NOW_US))}
