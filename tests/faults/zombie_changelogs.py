"""Law 17: a zombie's late changelog record never brings an old version back, also when the broker has compacted.

A changelog is written by two assignments of one worker, then the first one's old records are written once more, behind
everything: what a frozen process does when it thaws. The broker is made to compact, all local state is deleted, and a
new worker knows nothing but what compaction has left.
"""

from __future__ import annotations

import time
from typing import Any

from aiokafka import ConsumerRecord
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from models import facts, homes
from tests.flow.driver import Deployment, eventually
from tests.flow.stories import Deploy
from tests.oracle import DAY_US
from tests.samples import feedback_payload, session_payload, tutor_payload
from tutormax_streams import kafka
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES
from tutormax_streams.topics import LARGEST, LARGEST_BYTES

EAGER = {
    "cleanup.policy": "compact",
    LARGEST: str(LARGEST_BYTES),  # what is not named here goes back to the broker's default
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "100",
}
MARKER = EPOCH_KEY + bytes(WRITER_BYTES)  # key passed over by recovery; a record with it closes the segment before it


async def a_zombie_writes_to_changelogs_late_and_the_broker_compacts(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    entities, windows = deployment.topics.changelogs
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    now_us = time.time_ns() // 1000
    start_us = now_us - 3 * DAY_US

    def version(number: int, tutor_id: str = "late", days: int = 0) -> tuple[tuple[str, Any], ...]:
        session = session_payload(
            "s1", tutor_id, start_us - days * DAY_US, start_us + number, engagement_score=number / 10
        )
        rating = feedback_payload("f1", "s1", tutor_id, number, start_us + number)
        return ("sessions", session), ("feedback", rating)

    tutors = [("tutors", tutor_payload(tutor_id, start_us)) for tutor_id in ("late", "other")]
    await deployment.tell(*tutors, *version(1))
    await deployment.quiet()
    await deployment.tell(*version(2))  # the same writer writes the key once more
    await deployment.assert_right()
    by_zombie = [of_session(await deployment.read(topic))[-1] for topic in (entities, windows)]

    assert await worker.stop() == 0
    worker.start()  # another assignment, hence another writer
    await worker.until_ready()
    await deployment.tell(*version(3, "other", days=10))  # the session moves to another tutor and another week
    await deployment.quiet()
    await deployment.tell(*version(4, "other", days=40))
    await deployment.assert_right()

    async with deployment.producer() as producer:
        for record in by_zombie:
            await producer.send_and_wait(record.topic, record.value, key=record.key, partition=0)
    with_late_records = {topic: of_session(await deployment.read(topic)) for topic in (entities, windows)}
    for topic, log in with_late_records.items():
        key = log[-1].key[:-WRITER_BYTES]
        writers = {r.key[-WRITER_BYTES:] for r in log if r.key.startswith(key)}
        assert len(writers) == 2, topic
        # Under plain keys compaction would keep the last record only, and that is the old version.
        (survivor,) = [r for r in {r.key[:-WRITER_BYTES]: r for r in log}.values() if r.key.startswith(key)]
        assert rating_in(topic == windows, survivor.value) == 2

    for topic in (entities, windows):
        await compact(deployment, topic)
    assert await worker.stop() == 0
    worker.forget()
    began_us = time.time_ns() // 1000
    worker.start()
    await worker.until_ready()
    await deployment.assert_right(newer_than_us=began_us)
    assert deployment.rows_of("other")["NINETY_DAY"]["avg_rating"] == 4
    assert deployment.rows_of("late")["NINETY_DAY"]["avg_rating"] is None

    # The recovered home still knows which version won: an old one that comes again changes nothing.
    await deployment.tell(*version(2))
    await deployment.assert_right()


def of_session(log: list[ConsumerRecord]) -> list[ConsumerRecord]:
    """The records of the session in a changelog."""
    return [record for record in log if b"s1" in record.key[:-WRITER_BYTES]]


def rating_in(is_fact: bool, value: bytes) -> int:
    remembered: Any = facts.decode(value) if is_fact else homes.decode(value)
    return int(remembered.feedback.rating)


async def compact(deployment: Deployment, topic: str) -> None:
    """Have the broker compact everything in a changelog of one partition up to now."""
    before = await deployment.read(topic)
    async with kafka.admin_client(deployment.settings) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=EAGER)])

    async def is_compacted() -> bool:
        async with deployment.producer() as producer:
            await producer.send_and_wait(topic, b"1", key=MARKER, partition=0)
        log = [record for record in await deployment.read(topic) if record.offset <= before[-1].offset]
        keys = [record.key for record in log if record.key != MARKER]
        return len(keys) == len(set(keys)) and all(record.value is not None for record in log)

    await eventually(is_compacted, 60, every=0.5)
