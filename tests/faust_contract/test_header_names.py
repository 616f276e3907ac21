"""Records whose headers have names that are no UTF-8, read through aiokafka's own classes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from tutormax_streams.batches.header_names import PartitionRecords, read_any_header_name


class NoText(str):
    """A name that is written as no UTF-8."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"n\xff\xfe"


def batch(base: int, names: list[str], compression: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, compression, 0, -1, -1, -1, 1 << 20)
    for number, name in enumerate(names):
        headers = [(name, b"\xfe"), ("é", None)] if name else []
        builder.append(number, 1_000 + number, b"k\xff", b"v\xff%d" % (base + number), headers)
    built = bytearray(builder.build())
    built[:8] = base.to_bytes(8, "big")  # as the broker does; the checksum begins behind it
    return bytes(built)


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MemoryRecords", "PartitionRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    monkeypatch.setattr(PartitionRecords, "_told", set())
    read_any_header_name()


def records(data: bytes, first: int = 0) -> Any:
    return fetcher.PartitionRecords(
        TopicPartition("sessions", 3),
        fetcher.MemoryRecords(data),
        [],
        first,
        None,
        None,
        True,
        fetcher.READ_UNCOMMITTED,
    )


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
def test_every_record_is_read_once_and_intact(compression: int, caplog: pytest.LogCaptureFixture):
    odd = NoText("odd")
    data = batch(5, ["a", odd, "b"], compression) + batch(8, [odd, "", odd], compression) + batch(11, ["c"])
    with caplog.at_level(logging.WARNING):
        found = list(records(data, 5))
    assert [record.offset for record in found] == list(range(5, 12))
    assert [(record.key, record.value) for record in found] == [(b"k\xff", b"v\xff%d" % n) for n in range(5, 12)]
    assert [type(record.value) for record in found] == [bytes] * 7
    names = [[name for name, _ in record.headers] for record in found]
    assert names == [
        ["a", "é"],
        ["n\\xff\\xfe", "é"],
        ["b", "é"],
        ["n\\xff\\xfe", "é"],
        [],
        ["n\\xff\\xfe", "é"],
        ["c", "é"],
    ]
    assert found[1].headers == (("n\\xff\\xfe", b"\xfe"), ("é", None))
    assert [record.timestamp for record in found[:3]] == [1_000, 1_001, 1_002]
    (said,) = caplog.messages
    assert "sessions/3" in said
    assert "at offset 6 or soon after" in said


def test_reading_begins_where_it_is_asked_to():
    odd = NoText("odd")
    assert [record.offset for record in records(batch(5, [odd, "a", odd, odd]), 7)] == [7, 8]


def test_what_was_given_out_before_is_not_given_out_again():
    reader = records(batch(0, ["a", "b", NoText("odd"), "c"]))
    assert [next(reader).offset for _ in range(2)] == [0, 1]
    assert reader.next_fetch_offset == 2
    assert [record.offset for record in reader] == [2, 3]
    assert reader.next_fetch_offset == 4


def test_batches_before_that_of_the_odd_name_are_not_given_out_again():
    data = batch(0, ["a"] * 3) + batch(3, ["b"] * 3) + batch(6, ["c", NoText("odd"), "d"]) + batch(9, ["e"])
    reader = records(data)
    found = [(record.offset, reader.next_fetch_offset) for record in reader]
    assert [offset for offset, _ in found] == list(range(10))
    assert [offset for _, offset in found] == list(range(1, 11))


def test_the_fast_reader_is_the_usual_one():
    assert type(records(batch(0, ["a"]))._records.next_batch()).__module__.startswith("aiokafka.record._crecords")
