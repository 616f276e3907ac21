"""Who the simulated tutors are: five archetypes, and a quality between 0 and 1 that decides what their sessions are
like. The scales are tuned so that a population of some hundred shows all five tiers of contract §4.3 in each window.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

FALLING_TUTOR_ID = "tutor_00001"
FALLING_TUTOR_NAME = "Icarus Fallows"

SUBJECTS = {
    "STEM": ("Mathematics", "Algebra", "Calculus", "Geometry", "Physics", "Chemistry", "Biology", "Computer Science"),
    "Language": ("English", "Writing", "Literature", "Spanish", "French"),
    "TestPrep": ("SAT Prep", "ACT Prep", "AP Test Prep", "GRE Prep"),
}
EDUCATION = ("Some College", "Bachelor's Degree", "Master's Degree", "PhD")
FIRST_NAMES = (
    *("Ada", "Ben", "Chloe", "Dmitri", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jamal", "Kira", "Liam"),
    *("Maya", "Noah", "Olga", "Pablo", "Quinn", "Rosa", "Sven", "Tara", "Umar", "Vera", "Wei", "Yara"),
)
LAST_NAMES = (
    *("Abbott", "Brandt", "Castillo", "Dufour", "Eriksen", "Fontaine", "Gupta", "Haddad", "Ivanova", "Jensen"),
    *("Kowalski", "Lindqvist", "Moreau", "Nakamura", "Okafor", "Petrov", "Rossi", "Silva", "Tanaka", "Weber"),
)
CITIES = ("Austin", "Boston", "Chicago", "Denver", "El Paso", "Fresno", "Houston", "Miami", "Portland", "Seattle")


class Archetype(NamedTuple):
    """Contract §2.1: weight and weekly sessions are the platform's; quality (mean, spread) is ours."""

    name: str
    weight: float
    sessions_per_week: tuple[int, int]
    quality: tuple[float, float]


ARCHETYPES = (
    Archetype("high_performer", 0.30, (18, 30), (0.82, 0.10)),
    Archetype("at_risk", 0.20, (8, 15), (0.24, 0.15)),
    Archetype("new_tutor", 0.25, (5, 20), (0.62, 0.14)),
    Archetype("steady", 0.20, (12, 18), (0.62, 0.07)),
    Archetype("churner", 0.05, (5, 12), (0.38, 0.15)),
)


class Scale(NamedTuple):
    """A figure by quality: its value at 0, at 1/2 and at 1, and straight lines between."""

    worst: float
    middle: float
    best: float

    def at(self, quality: float) -> float:
        if quality < 0.5:
            return self.worst + (self.middle - self.worst) * quality * 2
        return self.middle + (self.best - self.middle) * (quality - 0.5) * 2


NO_SHOW = Scale(0.12, 0.015, 0.0)
RESCHEDULED = Scale(0.26, 0.10, 0.02)
VERY_LATE = Scale(0.30, 0.12, 0.0)  # more than the 10 minutes that still count as on time
OBJECTIVES_MET = Scale(0.62, 0.85, 0.98)
ENGAGEMENT = Scale(0.42, 0.60, 0.94)
LOGINS_PER_SESSION = Scale(0.35, 0.85, 1.15)
RESPONSE_MINUTES = Scale(95.0, 35.0, 6.0)
RATING_5 = Scale(0.12, 0.42, 0.80)
RATING_4 = Scale(0.30, 0.44, 0.18)
RATING_3 = Scale(0.28, 0.11, 0.02)
RATING_2 = Scale(0.18, 0.02, 0.0)


class Manner(NamedTuple):
    """What a tutor's sessions are like; probabilities as fractions, ratings cumulative from 5 down to 2."""

    no_show: float
    rescheduled: float
    very_late: float
    objectives_met: float
    engagement: float
    logins_per_session: float
    response_minutes: float
    ratings: tuple[float, float, float, float]


def manner(quality: float) -> Manner:
    five = RATING_5.at(quality)
    four = five + RATING_4.at(quality)
    three = four + RATING_3.at(quality)
    return Manner(
        no_show=NO_SHOW.at(quality),
        rescheduled=RESCHEDULED.at(quality),
        very_late=VERY_LATE.at(quality),
        objectives_met=OBJECTIVES_MET.at(quality),
        engagement=ENGAGEMENT.at(quality),
        logins_per_session=LOGINS_PER_SESSION.at(quality),
        response_minutes=RESPONSE_MINUTES.at(quality),
        ratings=(five, four, three, three + RATING_2.at(quality)),
    )


@dataclass
class SimulatedTutor:
    """One tutor and what the simulation keeps of them."""

    tutor_id: str
    name: str
    email: str
    age: int
    location: str
    education_level: str
    subject_type: str
    subjects: tuple[str, ...]
    archetype: str
    sessions_per_week: int
    tenure_days: int
    has_tutor_events: bool
    manner: Manner
    students: list[tuple[str, int]] = field(default_factory=list)  # id, sessions so far


def population(seed: int, tutors: int) -> list[SimulatedTutor]:
    """The tutors of a seed. The first is `FALLING_TUTOR_ID`, who does very well until a trickle starts."""
    chance = random.Random(f"population {seed}")
    weights = [archetype.weight for archetype in ARCHETYPES]
    return [_tutor(chance, number, chance.choices(ARCHETYPES, weights)[0]) for number in range(1, tutors + 1)]


def _tutor(chance: random.Random, number: int, archetype: Archetype) -> SimulatedTutor:
    quality = min(max(chance.gauss(*archetype.quality), 0.0), 1.0)
    name = f"{chance.choice(FIRST_NAMES)} {chance.choice(LAST_NAMES)}"
    tenure_days = chance.randint(1, 29) if archetype.name == "new_tutor" else chance.randint(30, 730)
    falls = number == 1
    if falls:
        archetype, quality, name, tenure_days = ARCHETYPES[0], 1.0, FALLING_TUTOR_NAME, 400
    subject_type = chance.choice(tuple(SUBJECTS))
    tutor = SimulatedTutor(
        tutor_id=f"tutor_{number:05d}",
        name=name,
        email=f"{name.lower().replace(' ', '.')}.{number}@tutors.example.com",
        age=chance.randint(22, 65),
        location=chance.choice(CITIES),
        education_level=chance.choice(EDUCATION),
        subject_type=subject_type,
        subjects=tuple(chance.sample(SUBJECTS[subject_type], chance.randint(1, 3))),
        archetype=archetype.name,
        sessions_per_week=chance.randint(*archetype.sessions_per_week),
        tenure_days=tenure_days,
        has_tutor_events=chance.random() < 0.35 and not falls,
        manner=manner(quality),
    )
    # Whoever has been here for long has students with sessions before the history begins.
    known = 0 if archetype.name == "new_tutor" else 8
    tutor.students = [(student_id(chance), chance.randint(1, 20)) for _ in range(known)]
    return tutor


def student_id(chance: random.Random) -> str:
    return f"student_{chance.randrange(100_000):05d}"
