"""A big deterministic history as raw bytes, with poison in it, for tests and benchmarks on a real broker.

The same seed and now give the same bytes. It stays within the domain of `histories`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tests.oracle import DAY_US, ENTITY_KEY, MINUTE_US, VERSION_KEY, Payload, instant_us
from tests.samples import (
    NOW_US,
    ODD_METADATA,
    bare,
    by_topic,
    enveloped,
    feedback_payload,
    session_payload,
    spelled,
    tutor_event_payload,
    tutor_payload,
)

HOUR_US = 60 * MINUTE_US

Arrival = tuple[str, Payload]  # topic, payload


class RawRecord(NamedTuple):
    """What a producer publishes: to topic `topic` (without prefix) the bytes `value`."""

    topic: str
    value: bytes


@dataclass(frozen=True)
class Corpus:
    """Raw records in their order of publication, and what they amount to.

    Every tutor that any event names has a valid profile in the corpus, so nothing stays parked; no two versions of an
    entity share a version time; e-mails and feedback ids are unique. `poison` holds each value that must be
    dead-lettered, once for each record that carries it.
    """

    records: list[RawRecord]
    payloads: dict[str, list[Payload]]  # the valid ones by topic, corrections included, without duplicates
    poison: list[bytes]


def corpus(
    seed: int,
    events: int = 50_000,
    now_us: int = NOW_US,
    *,
    part: str = "",
    poison_share: float = 0.01,
    hot: float = 0.0,
    first_tutor: int = 0,
) -> Corpus:
    """`events` records: 20 % duplicates, 5 % corrections and moves, 1 % poison, all shuffled within and across topics.

    One in ten valid records comes in a Redis envelope, also where it repeats a bare one. `part` names one of several
    corpora that go to the same deployment: the same tutors, other sessions. `hot` is one tutor's share of all sessions.
    `first_tutor` is the number of the first of at most 300 tutors.
    """
    rng = random.Random(seed)
    poison_count, repeat_count, correction_count = int(events * poison_share + 1e-9), events // 5, events // 20
    count = events - poison_count - repeat_count - correction_count
    originals = _originals(rng, count, now_us, part, hot, first_tutor)
    valid = originals + _corrections(rng, originals, correction_count, now_us, part)
    records = [
        RawRecord(topic, enveloped(payload, rng) if rng.random() < 0.1 else bare(payload))
        for topic, payload in valid + rng.choices(valid, k=repeat_count)
    ]
    poison = [_poison(rng, number, *rng.choice(originals)) for number in range(poison_count)]
    records += poison
    rng.shuffle(records)
    return Corpus(records, by_topic(valid), [record.value for record in poison])


def _originals(rng: random.Random, count: int, now_us: int, part: str, hot: float, first_tutor: int) -> list[Arrival]:
    tutor_ids = [f"tutor_{first_tutor + number:05d}" for number in range(max(3, min(300, count // 100)))]
    working = tutor_ids[: max(2, len(tutor_ids) * 19 // 20)]  # the rest never hold a session
    skill = {tutor_id: rng.random() ** 0.5 for tutor_id in tutor_ids}  # spreads them over the tiers
    events = [_profile(rng, tutor_id, now_us) for tutor_id in tutor_ids]
    while len(events) < count:
        number, tutor_id = len(events), rng.choice(working)
        if hot and rng.random() < hot:
            tutor_id = working[0]
        session = _session(rng, f"session-{part}{rng.getrandbits(64):016x}-{number}", tutor_id, skill[tutor_id], now_us)
        events.append(session)
        if rng.random() < 0.6:
            foreign = rng.random() < 0.03
            rated = rng.choice(working) if foreign else tutor_id
            events.append(_rating(rng, f"FB-{part}{number:016x}", session[1], rated, skill[tutor_id], now_us))
        if rng.random() < 0.4:
            events.append(_tutor_event(rng, f"event-{part}{number}", rng.choice(tutor_ids), now_us))
    return events[:count]


def _profile(rng: random.Random, tutor_id: str, now_us: int) -> Arrival:
    return "tutors", tutor_payload(
        tutor_id,
        now_us - rng.randrange(1, 300 * DAY_US),
        rng.randrange(6),
        name=f"Tütor {tutor_id}",
        status=rng.choice(("active", "active", "inactive", "suspended", "churned")),
        behavioral_archetype=rng.choice(("high_performer", "at_risk", "new_tutor", "steady", "churner")),
        baseline_sessions_per_week=rng.choice((12, 7.5)),
    )


def _session(rng: random.Random, session_id: str, tutor_id: str, skill: float, now_us: int) -> Arrival:
    start_us = now_us - rng.randrange(-20 * DAY_US, 119 * DAY_US)
    if rng.random() < 0.02:
        start_us -= 110 * DAY_US  # mostly older than the windows remember
    engagement = skill * rng.uniform(0.8, 1)
    return "sessions", session_payload(
        session_id,
        tutor_id,
        start_us,
        min(start_us + rng.randrange(2 * HOUR_US), now_us - rng.randrange(1, HOUR_US)),
        rng.randrange(6),
        student_id=f"student_{rng.randrange(2_000):05d}",
        session_number=1 if rng.random() < 0.2 else rng.randrange(2, 30),
        duration_minutes=rng.choice((30, 45, 60, 90, 120)),
        late_start_minutes=rng.choice((0, 5, 10)) if rng.random() < skill + 0.1 else rng.choice((11, 15, 30)),
        engagement_score=rng.choice((round(engagement, 3), round(engagement * 100, 1))),
        learning_objectives_met=rng.random() < skill + 0.2,
        tutor_initiated_reschedule=rng.random() < 0.25 * (1 - skill),
        no_show=rng.random() < 0.15 * (1 - skill),
        technical_issues=rng.random() < 0.05,
        session_type=rng.choice(("1-on-1", "1-on-1", "group", "workshop", None)),
    )


def _rating(
    rng: random.Random, feedback_id: str, session: Payload, tutor_id: str, skill: float, now_us: int
) -> Arrival:
    rating = max(1, min(5, round(skill * 4 + rng.uniform(0.5, 2))))
    first = session["session_number"] == 1
    changes: Payload = {"would_recommend": rating >= 4, "improvement_areas": ["late"]} if first else {}
    return "feedback", feedback_payload(
        feedback_id,
        session["session_id"],
        tutor_id,
        rating,
        min(instant_us(session["scheduled_start"]) + rng.randrange(2 * HOUR_US, DAY_US), now_us),
        rng.randrange(6),
        student_id=session["student_id"],
        is_first_session=first,
        free_text_feedback=rng.choice(("", "Clear and kind, thanks, très bien 👍", None)),
        created_at=spelled(now_us - rng.randrange(1, DAY_US)),
        **changes,
    )


def _tutor_event(rng: random.Random, event_id: str, tutor_id: str, now_us: int) -> Arrival:
    return "tutor-events", tutor_event_payload(
        event_id,
        tutor_id,
        rng.choice(("login", "login", "message_response", "profile_view")),
        now_us - rng.randrange(1, 100 * DAY_US),
        rng.randrange(6),
        metadata=rng.choice(({"response_time_minutes": round(rng.random() * 60, 2)}, *ODD_METADATA)),
    )


def _corrections(rng: random.Random, originals: list[Arrival], count: int, now_us: int, part: str) -> list[Arrival]:
    """Newer and staler versions: other figures, another day, another tutor, another feedback id."""
    tutor_ids = [payload["tutor_id"] for topic, payload in originals if topic == "tutors"]
    taken: set[tuple[str, str, int]] = set()  # topic, entity, version time: no ties
    corrections: list[Arrival] = []
    while len(corrections) < count:
        topic, payload = rng.choice(originals)
        moment_us = instant_us(payload[VERSION_KEY[topic]])
        version_us = min(moment_us + rng.choice((1, 1, 1, -1)) * rng.randrange(1, DAY_US), now_us)
        entity = (topic, payload[ENTITY_KEY[topic]], version_us)
        if version_us == moment_us or entity in taken:
            continue
        taken.add(entity)
        changes: Payload = {VERSION_KEY[topic]: spelled(version_us, rng.randrange(6))}
        if topic == "tutors":
            changes |= {"name": f"Renamed {len(corrections)}", "status": rng.choice(("active", "inactive"))}
        elif rng.random() < 0.4:
            changes["tutor_id"] = rng.choice(tutor_ids)
        if topic == "sessions":
            start_us = instant_us(payload["scheduled_start"]) + rng.choice((0, -3, 3, 1)) * DAY_US
            changes |= {"scheduled_start": spelled(start_us), "engagement_score": round(rng.random(), 3)}
        elif topic == "feedback":
            changes["overall_rating"] = rng.randrange(1, 6)
            if rng.random() < 0.5:
                changes["feedback_id"] = f"FB-again-{part}{len(corrections)}"
        elif topic == "tutor-events":
            changes["event_type"] = rng.choice(("login", "message_response"))
        corrections.append((topic, payload | changes))
    return corrections


# --- Poison: invalid whatever the hour (contract §2, §2.5, §11) ------------------------------------------------------

SPOILED: dict[str, tuple[Callable[[Payload], Payload], ...]] = {
    "tutors": (
        lambda p: p | {"email": "nobody at example.org"},
        lambda p: p | {"status": "retired"},
        lambda p: p | {"subjects": []},
        lambda p: p | {"tutor_id": "t" * 51},
        lambda p: p | {"name": "a\0b"},
        lambda p: p | {"updated_at": "yesterday"},
        lambda p: p | {"age": True},
    ),
    "sessions": (
        lambda p: p | {"engagement_score": float("nan")},
        lambda p: p | {"engagement_score": float("inf")},
        lambda p: p | {"engagement_score": 101},
        lambda p: p | {"session_id": "s\0"},
        lambda p: p | {"session_number": 2**31},
        lambda p: p | {"no_show": False, "late_start_minutes": 50, "duration_minutes": 45},
        lambda p: p | {"learning_objectives_met": None},
        lambda p: p | {"session_type": "seminar"},
        lambda p: p | {"scheduled_start": "9999-01-01T00:00:00Z"},
        lambda p: p | {"subject": "x" * 101},
        lambda p: {key: value for key, value in p.items() if key != "student_id"},
    ),
    "feedback": (
        lambda p: p | {"overall_rating": 6},
        lambda p: p | {"overall_rating": True},
        lambda p: p | {"free_text_feedback": "x" * 5001},
        lambda p: p | {"free_text_feedback": "lone \ud800 surrogate"},
        lambda p: p | {"session_id": None},
        lambda p: p | {"submitted_at": "9999-01-01T00:00:00Z"},
    ),
    "tutor-events": (
        lambda p: {key: value for key, value in p.items() if key != "event_type"},
        lambda p: p | {"event_id": "e" * 51},
        lambda p: p | {"event_timestamp": "noon"},
    ),
}
SPOILED_BYTES: tuple[Callable[[bytes], bytes], ...] = (
    lambda raw: b"",
    lambda raw: raw[:-2],  # cut off
    lambda raw: b"[" + raw + b"]",  # an array
    lambda raw: b'"' + raw.hex().encode() + b'"',  # a text
    lambda raw: raw.replace(b'"', b'"\xff', 1),  # not UTF-8
)
NOT_ITS_TOPIC = {"tutors": "tutor-events", "sessions": "feedback", "feedback": "sessions", "tutor-events": "tutors"}


def _poison(rng: random.Random, number: int, topic: str, original: Payload) -> RawRecord:
    payload = original | {"poison": number}  # an unknown key is ignored; it makes the bytes unique
    if number % 100 == 50:
        return RawRecord(topic, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    choice = rng.random()
    if choice < 0.6:
        return RawRecord(topic, bare(rng.choice(SPOILED[topic])(payload)))
    if choice < 0.85:
        return RawRecord(topic, rng.choice(SPOILED_BYTES)(bare(payload)))
    if choice < 0.9:
        return RawRecord(topic, enveloped(payload, rng, checksum="0" * 64))
    return RawRecord(NOT_ITS_TOPIC[topic], bare(payload))
