"""What is laid out for computing stays within its bound, and says what the table says."""

from __future__ import annotations

import random

from models.facts import EventFact, EventPart, Fact, FeedbackPart, SessionFact, SessionPart
from tables import tutor_windows
from tables.tutor_windows import TutorWindows
from tests.agents import fakes
from tests.oracle import DAY_US
from tests.samples import NOW_US
from tutormax_streams.batches.shelves import SharedMemory

TUTORS = ("t1", "t2", "t3", "t4")
BOUND = 60


async def windows_of(bound: int) -> TutorWindows:
    """A table of one partition, in memory."""
    table = tutor_windows.declare(fakes.app(), 1, None, SharedMemory()).table
    await fakes.assign(table, fakes.Broker(), range(1))
    return TutorWindows(table, bound)


def session(tutor_id: str, number: int, version: int = 0, *, elsewhere: bool = False) -> SessionFact:
    start_us = NOW_US - (1 + number % 80) * DAY_US - number
    holder = "somebody-else" if elsewhere else tutor_id
    part = SessionPart(start_us + version, b"12345678", holder, start_us, False, True, False, False, True, 0.5, True)
    rating = FeedbackPart(start_us + version, b"12345678", holder, 4) if number % 2 else None
    return SessionFact(tutor_id, f"{tutor_id}-{number}", part, rating)


def login(tutor_id: str, number: int) -> EventFact:
    part = EventPart(NOW_US - number * DAY_US - 1, b"12345678", tutor_id, "login", None)
    return EventFact(tutor_id, f"{tutor_id}-e{number}", part)


def in_all(windows: TutorWindows) -> int:
    return sum(laid_out.held for laid_out in windows._laid_out.values())


async def test_what_is_laid_out_stays_within_its_bound_while_facts_keep_coming():
    """The soak found it: facts were counted when a tutor was laid out, and none of those that came after that."""
    windows = await windows_of(BOUND)
    await windows.absorb(0, [session(tutor_id, 0) for tutor_id in TUTORS])
    for tutor_id in TUTORS:
        windows.tutor(0, tutor_id)
    for number in range(1, 50):
        await windows.absorb(0, [session(tutor_id, number) for tutor_id in TUTORS])
        assert windows.held <= BOUND
    assert 0 < in_all(windows) == windows.held


async def test_the_count_is_that_of_what_is_held_whatever_comes():
    rng = random.Random(7)
    windows, unbounded = await windows_of(BOUND), await windows_of(10**9)
    for _ in range(300):
        tutor_id = rng.choice(TUTORS)
        facts: list[Fact] = [
            session(tutor_id, rng.randrange(40), rng.randrange(9), elsewhere=rng.random() < 0.2)
            if rng.random() < 0.8
            else login(tutor_id, rng.randrange(30))
            for _ in range(rng.randrange(8))
        ]
        for found in (windows, unbounded):
            await found.absorb(0, facts)
            await found.sweep(0, NOW_US + rng.choice((0, 30 * DAY_US)))
            assert found.held == in_all(found)
        asked = rng.choice(TUTORS)
        figures = [found.tutor(0, asked).windows(NOW_US, "normalized") for found in (windows, unbounded)]
        assert figures[0] == figures[1]
        assert windows.held <= BOUND or len(windows._laid_out) == 1


async def test_a_tutor_beyond_the_bound_is_laid_out_alone():
    windows = await windows_of(BOUND)
    await windows.absorb(0, [session("t1", number) for number in range(2 * BOUND)])
    await windows.absorb(0, [session("t2", 1)])
    windows.tutor(0, "t2")
    assert windows.tutor(0, "t1").held == windows.held == 2 * BOUND
    windows.forget(0)
    assert windows.held == 0


async def test_ids_of_which_nothing_is_known_are_not_kept():
    windows = await windows_of(BOUND)
    for number in range(10_000):
        assert windows.tutor(0, f"x{number}").held == 0
    assert not windows._laid_out
