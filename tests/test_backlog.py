"""What is said of work that takes long."""

from __future__ import annotations

import logging

import pytest

from tutormax_streams.backlog import LARGE_RECORDS, SAY_SECONDS, Backlog


def test_speed_and_end_are_those_of_the_last_half_minute():
    backlog = Backlog("backlog")
    for second in range(100):
        backlog.look(second, 1_000_000 - 100 * second)
    for second in range(100, 140):
        backlog.look(second, 990_000 - 5_000 * (second - 99))
    assert backlog.records_per_second == 5_000
    assert backlog.progress == "790,000 records to go, 5,000 fewer every second, about 3 min left"


@pytest.mark.parametrize(
    ("remaining", "said"),
    [(100_000, "about 2 min"), (60_000, "about 60 s"), (10_000_000, "about 2.8 h")],
)
def test_the_time_left_is_said_as_people_would(remaining: int, said: str):
    backlog = Backlog("backlog")
    backlog.look(0, remaining + 1_000)
    backlog.look(1, remaining)
    assert said in backlog.progress


def test_no_end_is_promised_while_it_grows():
    backlog = Backlog("backlog")
    assert backlog.progress == ""
    backlog.look(0, 10)
    backlog.look(1, 20)
    assert backlog.progress == "20 records to go"
    backlog.look(2, 0)
    assert backlog.progress == ""


def test_it_is_logged_now_and_then_while_it_is_much(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    backlog = Backlog("recovery of tables")
    for second in range(int(3 * SAY_SECONDS)):
        backlog.look(second, LARGE_RECORDS + 100 - second)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["recovery of tables"] * 3
    caplog.clear()
    for second in range(100, 200):
        backlog.look(second, LARGE_RECORDS - 1)
    assert not caplog.records


def test_how_much_remained_at_most_and_how_long_it_will_take():
    backlog = Backlog("recovery of tables")
    assert (backlog.remaining, backlog.most, backlog.seconds_left) == (0, 0, None)
    backlog.look(0, 800)
    backlog.look(1, 1_000)
    assert (backlog.remaining, backlog.most, backlog.seconds_left) == (1_000, 1_000, None), "it grows"
    backlog.look(2, 600)
    assert (backlog.remaining, backlog.most, backlog.seconds_left) == (600, 1_000, 6.0)
    backlog.look(3, 0)
    assert (backlog.remaining, backlog.most, backlog.seconds_left) == (0, 0, None)


def test_where_records_always_come_a_few_are_no_backlog():
    backlog = Backlog("backlog", 100)
    for second, remaining in enumerate((5_000, 99, 300)):
        backlog.look(second, remaining)
    assert (backlog.remaining, backlog.most) == (300, 300), "the former one was worked off"
    backlog.look(3, 99)
    assert (backlog.remaining, backlog.progress) == (0, "")


def test_what_others_took_over_is_no_progress():
    backlog = Backlog("backlog")
    for second in range(10):
        backlog.look(second, 400_000 - 1_000 * second, of={0, 1, 2})
    backlog.look(10, 100_000, of={0})
    assert (backlog.progress, backlog.seconds_left) == ("100,000 records to go", None)
    backlog.look(11, 99_500, of={0})
    assert (backlog.records_per_second, backlog.most) == (500, 100_000)
