"""The breaker: when it opens, for how long, and what it takes to close it again."""

from __future__ import annotations

import pytest

from models.breaker import LONGEST_SECONDS, PROBE, Breaker

WINDOW, COOLDOWN = 100, 30.0


def closed() -> Breaker:
    return Breaker(50.0, WINDOW, COOLDOWN)


def half_open(now: float = 0.0) -> Breaker:
    """Half-open at `now`, for the first time."""
    breaker = closed()
    assert breaker.passed(WINDOW, WINDOW, now - COOLDOWN)
    assert breaker.wait_seconds(now) == 0
    assert breaker.state == "half-open"
    return breaker


# -- opening ----------------------------------------------------------------------------------------------------------


def test_it_opens_when_more_than_that_share_of_the_window_is_bad():
    breaker = closed()
    assert not breaker.passed(WINDOW, WINDOW // 2, 0)
    assert breaker.state == "closed"
    breaker = closed()
    assert breaker.passed(WINDOW, WINDOW // 2 + 1, 0)
    assert breaker.state == "open"


def test_fewer_records_than_the_window_open_nothing():
    breaker = closed()
    assert not breaker.passed(WINDOW - 1, WINDOW - 1, 0)
    assert breaker.passed(1, 1, 0)


def test_what_has_left_the_window_does_not_count():
    breaker = closed()
    for bad in (0, 0, 25, 25):
        assert not breaker.passed(WINDOW // 4, bad, 0)
    assert breaker.passed(WINDOW // 4, 1, 0)  # 51 of the last 100, once the first 25 have left
    breaker = closed()
    for bad in (25, 25, 0, 0, 25, 25, 0, 0):
        assert not breaker.passed(WINDOW // 4, bad, 0)


def test_a_batch_of_the_windows_length_replaces_all_before_it():
    breaker = closed()
    assert not breaker.passed(WINDOW, 0, 0)
    assert breaker.passed(WINDOW, WINDOW // 2 + 1, 0)


def test_with_100_per_cent_it_is_off():
    breaker = Breaker(100.0, WINDOW, COOLDOWN)
    assert not breaker.passed(10 * WINDOW, 10 * WINDOW, 0)


def test_open_it_waits_for_the_cooldown():
    breaker = closed()
    breaker.passed(WINDOW, WINDOW, 1000.0)
    assert breaker.wait_seconds(1000.0) == COOLDOWN
    assert breaker.wait_seconds(1029.0) == 1.0
    assert breaker.wait_seconds(1030.0) == 0
    assert breaker.state == "half-open"


# -- half-open --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, PROBE, 10 * PROBE])
def test_it_closes_over_a_probe_that_is_good(batch: int):
    breaker = half_open()
    for _ in range(0, PROBE - batch, batch):
        assert not breaker.passed(batch, 0, 1.0)
        assert breaker.state == "half-open"
    assert not breaker.passed(batch, 0, 1.0)
    assert breaker.state == "closed"


def test_one_good_record_among_rubbish_does_not_close_it():
    breaker = half_open()
    assert not breaker.passed(1, 0, 1.0)
    assert breaker.state == "half-open"
    assert breaker.passed(PROBE, PROBE, 1.0)


def test_records_that_nobody_judged_neither_close_nor_open_it():
    breaker = half_open()
    assert not breaker.passed(0, 0, COOLDOWN + 1)
    assert breaker.state == "half-open"


def test_it_opens_again_as_soon_as_the_probe_cannot_turn_out_well():
    breaker = half_open()
    assert not breaker.passed(PROBE // 2, PROBE // 2, 1.0)
    assert breaker.passed(1, 1, 1.0)


@pytest.mark.parametrize(("bad", "state"), [(0, "closed"), (1, "open")])
def test_a_slow_topic_is_judged_by_what_came_within_a_cooldown(bad: int, state: str):
    breaker = half_open()
    assert not breaker.passed(1, bad, COOLDOWN - 1)
    assert breaker.state == "half-open"
    breaker.passed(1, bad, COOLDOWN)
    assert breaker.state == state


def test_a_window_that_is_smaller_than_the_probe_is_enough():
    breaker = Breaker(50.0, 2, COOLDOWN)
    breaker.passed(2, 2, 0)
    breaker.wait_seconds(COOLDOWN)
    breaker.passed(2, 0, COOLDOWN)
    assert breaker.state == "closed"


def test_each_time_that_it_stays_bad_it_waits_for_twice_as_long_up_to_an_hour():
    breaker, now = half_open(), 0.0
    waits = []
    for _ in range(9):
        assert breaker.passed(PROBE, PROBE, now)
        waits.append(breaker.wait_seconds(now))
        now += waits[-1]
        assert breaker.wait_seconds(now) == 0
    assert waits == [60, 120, 240, 480, 960, 1920, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_after_it_has_closed_it_begins_anew():
    breaker = half_open()
    assert breaker.passed(PROBE, PROBE, 0)
    assert breaker.wait_seconds(2 * COOLDOWN) == 0
    assert not breaker.passed(PROBE, 0, 2 * COOLDOWN)
    assert breaker.state == "closed"
    assert breaker.passed(WINDOW, WINDOW, 100.0)
    assert breaker.wait_seconds(100.0) == COOLDOWN
