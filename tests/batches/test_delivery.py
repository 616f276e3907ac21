"""Every record of the log is delivered once and in order, and only the prefix that is done may be committed."""

from __future__ import annotations

import pytest
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batches.fakes import Record
from tutormax_streams.batches import RecordBatch
from tutormax_streams.batches.delivery import Arrears, Delivery, Position, Taken
from tutormax_streams.batches.records import Record as AnyRecord

TP0 = TP("topic", 0)


def records(*offsets: int, size: int = 0) -> list[AnyRecord]:
    return [Record(offset, value=bytes(size)) for offset in offsets]


def offsets(taken: Taken) -> list[list[int]]:
    return [[record.offset for record in run] for run in taken.runs]


# -- what follows -----------------------------------------------------------------------------------------------------


def test_what_follows_is_taken():
    taken = Delivery(5).take(records(5, 6, 7), 500, 1000)
    assert offsets(taken) == [[5, 6, 7]]
    assert (taken.again, taken.gap) == (None, None)


def test_what_was_delivered_before_is_dropped():
    assert offsets(Delivery(5).take(records(3, 4, 5, 6), 500, 1000)) == [[5, 6]]
    assert Delivery(5).take(records(3, 4), 500, 1000) == Taken([])


def test_a_hole_is_looked_at_twice_before_it_is_believed():
    delivery = Delivery(5)
    assert delivery.take(records(9, 10), 500, 1000) == Taken([], again=5)
    taken = delivery.take(records(9, 10), 500, 1000)
    assert offsets(taken) == [[9, 10]]
    assert taken.gap == (5, 9)


def test_a_hole_that_was_none_is_forgotten():
    delivery = Delivery(5)
    assert delivery.take(records(9), 500, 1000).again == 5
    assert offsets(delivery.take(records(5, 6), 500, 1000)) == [[5, 6]]
    delivery.expected = 7
    assert delivery.take(records(9), 500, 1000).again == 7


def test_a_hole_that_has_grown_is_looked_at_again():
    delivery = Delivery(5)
    assert delivery.take(records(9), 500, 1000).again == 5
    assert delivery.take(records(12), 500, 1000).again == 5
    assert delivery.take(records(12), 500, 1000).gap == (5, 12)


def test_a_hole_behind_duplicates_is_a_hole():
    assert Delivery(5).take(records(3, 4, 8), 500, 1000) == Taken([], again=5)


def test_holes_inside_a_fetch_are_the_logs_own():
    """Within one answer of the broker nothing can be lost: compaction or transaction markers made them."""
    taken = Delivery(5).take(records(5, 8, 20), 500, 1000)
    assert offsets(taken) == [[5, 8, 20]]
    assert taken.gap is None


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_runs_are_bounded_in_number():
    assert offsets(Delivery(0).take(records(*range(5)), 2, 1000)) == [[0, 1], [2, 3], [4]]


def test_runs_are_bounded_in_bytes():
    assert offsets(Delivery(0).take(records(*range(5), size=10), 500, 25)) == [[0, 1], [2, 3], [4]]


def test_a_record_larger_than_the_bound_goes_alone():
    fetched = [Record(0, value=bytes(5)), Record(1, value=bytes(99)), Record(2, value=bytes(5))]
    assert offsets(Delivery(0).take(fetched, 500, 20)) == [[0], [1], [2]]


def test_a_tombstone_weighs_nothing():
    fetched = [Record(offset, value=None) for offset in range(4)]
    assert offsets(Delivery(0).take(fetched, 500, 0)) == [[0, 1, 2, 3]]


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    expected=st.integers(0, 45),
    most_records=st.integers(1, 9),
    most_bytes=st.integers(0, 60),
)
@settings(max_examples=200)
def test_runs_are_the_records_in_order_and_as_few_as_the_bounds_allow(
    sizes: list[int], expected: int, most_records: int, most_bytes: int
):
    fetched: list[AnyRecord] = [Record(offset, value=bytes(size)) for offset, size in enumerate(sizes)]
    runs = Delivery(expected).take(fetched, most_records, most_bytes).runs
    assert [record.offset for run in runs for record in run] == list(range(expected, len(sizes)))
    for run, following in zip(runs, [*runs, None][1:], strict=True):
        weight = sum(sizes[record.offset] for record in run)
        assert len(run) == 1 or (len(run) <= most_records and weight <= most_bytes)
        if following is not None:
            assert len(run) == most_records or weight + sizes[following[0].offset] > most_bytes


# -- what may be committed --------------------------------------------------------------------------------------------


def delivery_of(*lasts: int) -> tuple[Delivery, list[RecordBatch]]:
    delivery, first = Delivery(0), 0
    for last in lasts:
        delivery.in_flight.append(RecordBatch(TP0, records(*range(first, last + 1))))
        first = last + 1
    return delivery, list(delivery.in_flight)


def test_nothing_may_be_committed_before_something_is_done():
    delivery, _ = delivery_of(4, 9)
    assert delivery.settle() is None
    assert len(delivery.in_flight) == 2


def test_only_the_prefix_that_is_done_may_be_committed():
    delivery, (first, second, third) = delivery_of(4, 9, 14)
    second.done()
    assert delivery.settle() is None
    first.done()
    assert delivery.settle() == 10
    assert list(delivery.in_flight) == [third]
    third.done()
    assert delivery.settle() == 15


def test_what_may_be_committed_stays_so_until_it_was():
    delivery, (only,) = delivery_of(4)
    only.done()
    assert [delivery.settle() for _ in range(3)] == [5, 5, 5]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_the_order_of_finishing_does_not_matter_in_the_end(order: tuple[int, ...]):
    delivery, batches = delivery_of(4, 9, 14)
    for number in order:
        batches[number].done()
        delivery.settle()
    assert delivery.settle() == 15
    assert not delivery.in_flight


# -- how old what is behind must be -----------------------------------------------------------------------------------


def test_what_is_behind_is_at_least_as_old_as_the_first_sight_of_it():
    arrears = Arrears()
    assert arrears.seconds(5, None, 100.0) == 0.0, "nothing is known of the log"
    assert arrears.seconds(5, 5, 100.0) == 0.0
    assert 0.0 < arrears.seconds(5, 9, 101.0) < 0.01, "never 0 while something is behind"
    assert arrears.seconds(5, 20, 111.0) == 10.0
    assert arrears.seconds(8, 20, 121.0) == 20.0, "8 was seen at 101"
    assert arrears.seconds(9, 20, 122.0) < 0.01, "what was seen is done; since when the rest is there is not known"
    assert arrears.seconds(9, 20, 125.0) == 3.0
    assert arrears.seconds(20, 20, 126.0) == 0.0
    assert arrears.seconds(20, 21, 140.0) < 0.01


def test_what_had_left_the_log_before_delivery_began_is_not_behind():
    assert Position(None, 100, 100, 0, None, begun=100).behind == 0
    assert Position(None, 100, 103, 0, None, begun=100).behind == 3
    assert Position(101, 103, 103, 0, None, begun=100).behind == 2
