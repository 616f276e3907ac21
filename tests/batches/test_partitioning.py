"""Our partitioner puts every key where Kafka's own clients put it."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given, settings
from hypothesis import strategies as st

from tutormax_streams.batches.partitioning import Partitioner, murmur2

# Of Apache Kafka's own UtilsTest.testMurmur2: signed 32-bit integers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("data", JAVA)
def test_it_hashes_as_javas_client_does(data: bytes):
    assert murmur2(data) == JAVA[data] % 2**32


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 251, 252, 253, 254, 255, 256, 257, 1000, 70_001])
def test_it_hashes_any_length_as_aiokafka_does(size: int):
    data = bytes(n * 37 % 256 for n in range(size))
    assert murmur2(data) == murmur2_of_aiokafka(data) % 2**32


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_it_hashes_any_bytes_as_aiokafka_does(data: bytes):
    assert murmur2(data) == murmur2_of_aiokafka(data) % 2**32


@given(st.text(max_size=60), st.integers(1, 97))
@settings(max_examples=300)
def test_a_key_goes_where_kafkas_clients_send_it(key: str, partitions: int):
    everywhere = list(range(partitions))
    expected = DefaultPartitioner()(key.encode(), everywhere, everywhere)
    partitioner = Partitioner(partitions)
    assert partitioner(key) == partitioner.of_new(key) == partitioner(key) == expected


def test_it_remembers_no_more_keys_than_it_was_told_to():
    partitioner = Partitioner(7, remember=10)
    answers = {f"key{n}": partitioner(f"key{n}") for n in range(100)}
    assert len(partitioner._known) <= 10
    assert {key: partitioner(key) for key in answers} == answers
