"""Columns of facts: what they weigh, and that a key is found only where one begins."""

from __future__ import annotations

import random
import tracemalloc
import uuid

from models.columns import Events, Sessions, _Keys, line_of
from models.facts import DAY_US, EventPart, SessionPart

TUTOR = "tutor_00001"
FACTS = 5_000
MOST_BYTES_A_FACT = 60


def test_a_key_is_found_only_where_one_begins():
    first, second, third = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
    straddling = first[8:] + second[:8]
    keys = _Keys(first + second + straddling + third)
    assert [keys.find_key(key) for key in (first, second, straddling, third)] == [0, 1, 2, 3]
    assert keys.remove_key(2) == straddling
    assert keys.find_key(straddling) is None
    assert keys.find_key(third) == 2


def test_a_fact_laid_out_takes_some_fifty_bytes():
    chance = random.Random(1)

    def session(number: int) -> SessionPart:
        return SessionPart(
            chance.randrange(90 * DAY_US),
            b"12345678",
            TUTOR,
            chance.randrange(90 * DAY_US),
            is_first=number % 5 == 0,
            completed=True,
            no_show=False,
            rescheduled=False,
            on_time=True,
            engagement=chance.random(),
            objectives_met=True,
        )

    lines = [line_of(str(uuid.uuid4()), session(number), None, TUTOR) for number in range(FACTS)]
    events = {str(uuid.uuid4()): EventPart(number, b"12345678", TUTOR, "login", None) for number in range(FACTS)}
    for lay_out in (lambda: Sessions([line for line in lines if line is not None]), lambda: Events(events)):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        held = lay_out()
        weight = (tracemalloc.get_traced_memory()[0] - before) / FACTS
        tracemalloc.stop()
        assert 20 < weight < MOST_BYTES_A_FACT
        del held
