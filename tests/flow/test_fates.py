"""Every byte string has its fate, from one end of the flow to the other."""

from __future__ import annotations

import json
import time

from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from models.wire import PACK_BYTES
from tests.corpus import RawRecord
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.oracle import DAY_US
from tests.samples import bare, feedback_payload, session_payload, tutor_event_payload, tutor_payload
from tutormax_streams import kafka
from tutormax_streams.refusals import KEPT_BYTES

HUGE = 9 << 20


class NoText(str):  # noqa: SLOT000
    """A name that is written as no UTF-8."""

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


LARGE = 900_000  # bytes; brokers take a megabyte


async def test_tombstones_are_counted_and_otherwise_ignored(living: Deployment, worker: Worker):
    seen = worker.metric("events", topic="sessions", fate="tombstone")
    async with living.producer() as producer:
        for partition in range(3):
            await producer.send_and_wait(living.topics.raw("sessions"), None, key=b"s1", partition=partition)
    await eventually(lambda: worker.metric("events", topic="sessions", fate="tombstone") == seen + 3)
    await living.assert_right()


async def test_large_values_pass_intact_or_become_dead_letters_intact(living: Deployment):
    now_us = time.time_ns() // 1000
    await living.tell(
        ("tutors", tutor_payload("large", now_us - DAY_US)),
        ("sessions", session_payload("large-1", "large", now_us - DAY_US, now_us - DAY_US, unknown="x" * LARGE)),
        (
            "tutor-events",
            tutor_event_payload("large-2", "large", "login", now_us - DAY_US, metadata={"x": "y" * LARGE}),
        ),
    )
    spoiled = bare(feedback_payload("large-3", "large-1", "large", 5, now_us) | {"free_text_feedback": "z" * LARGE})
    rubbish = [spoiled, b"\xff" * LARGE, b"[" * LARGE]
    await living.publish([RawRecord("feedback", value) for value in rubbish], poison=rubbish)
    await living.assert_right()


async def test_what_was_compressed_to_pass_the_brokers_limit_becomes_a_letter_that_is_cut(
    living: Deployment, worker: Worker
):
    """Larger than any record of our own may be: a good event, one that is bad besides, and a key that is as large."""
    now_us = time.time_ns() // 1000
    good = bare(feedback_payload("huge-1", "huge-1", "huge", 5, now_us) | {"improvement_areas": ["x" * HUGE]})
    client = kafka.client_settings(living.settings)
    async with AIOKafkaProducer(**client, compression_type="gzip", max_request_size=2 * HUGE) as producer:
        for value, kept, key in (
            (good, good[:KEPT_BYTES], b"k"),
            (b"[" * HUGE, b"[" * KEPT_BYTES, b"k"),
            (b"{", b"{", b"k" * HUGE),
        ):
            sent = await producer.send_and_wait(living.topics.raw("feedback"), value, key=key)
            living.poison["feedback", sent.partition, sent.offset] = kept
    await living.assert_right()
    assert worker.metric("dead_letters", topic="feedback", reason="too_large") == 2


async def test_a_header_whose_name_is_no_utf_8_stops_nobody(living: Deployment):
    """Clients that do not look at names pass it on, the broker stores it, and aiokafka cannot read it."""
    now_us = time.time_ns() // 1000
    good = [tutor_payload(f"odd-header-{number}", now_us - DAY_US) for number in range(3)]
    async with AIOKafkaProducer(**kafka.client_settings(living.settings)) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 20)
        for value in (bare(good[0]), bare(good[1]), b"{", bare(good[2])):
            batch.append(timestamp=now_us // 1000, key=None, value=value, headers=[(NoText("odd"), b"1")])
        sent = await (await producer.send_batch(batch, living.topics.raw("tutors"), partition=1))
        living.poison["tutors", 1, sent.offset + 2] = b"{"
    living.payloads["tutors"] += good
    await living.assert_right()
    (letter,) = [r for r in await living.read(living.topics.dead_letter) if ("source-\\xff\\xfe", b"1") in r.headers]
    assert letter.value == b"{"


async def test_packs_stay_well_below_the_brokers_limit(living: Deployment, worker: Worker):
    """Texts of 5,000 characters, each three bytes long: a batch of them is more than one record may hold. The worker
    finds them all waiting; one that keeps up takes a few at a time."""
    now_us = time.time_ns() // 1000
    start_us = now_us - DAY_US
    await living.tell(
        ("tutors", tutor_payload("wordy", now_us - DAY_US)),
        *(("sessions", session_payload(f"wordy-{n}", "wordy", start_us, start_us)) for n in range(200)),
    )
    await living.quiet()
    worker.freeze()
    try:
        await living.tell(
            *(
                (
                    "feedback",
                    feedback_payload(f"wordy-{n}", f"wordy-{n}", "wordy", 5, now_us, free_text_feedback="語" * 5000),
                )
                for n in range(200)
            ),
        )
    finally:
        worker.thaw()
    await living.assert_right()
    for topic in (living.topics.validated, living.topics.enriched):
        sizes = sorted(len(record.value or b"") for record in await living.read(topic))  # a mark has no value
        full = [size for size in sizes if PACK_BYTES // 4 < size <= PACK_BYTES]
        assert full, "nothing was large enough to be split"
        assert all(size <= PACK_BYTES or size > LARGE for size in sizes)  # the large ones above are one event each


async def test_a_second_tutor_with_an_email_is_refused_alone_with_its_original_bytes(living: Deployment):
    now_us = time.time_ns() // 1000
    await living.tell(("tutors", tutor_payload("first", now_us - DAY_US, email="shared@example.org")))
    await living.quiet()
    second = tutor_payload("second", now_us - DAY_US, email="shared@example.org")
    odd = json.dumps(second, indent=3).encode() + b"\n  "  # bytes that no serialiser of ours would write
    third = tutor_payload("third", now_us - DAY_US)
    living.payloads["tutors"].append(third)
    await living.publish([RawRecord("tutors", odd), RawRecord("tutors", bare(third))], poison=[odd])
    await living.assert_right()
