"""What a working worker shows of itself: to Prometheus, and to the group that it is a member of."""

from __future__ import annotations

import time

from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.oracle import DAY_US
from tests.samples import bare, session_payload, tutor_payload
from tutormax_streams import kafka


async def test_a_parked_session_and_its_way_to_its_row_are_counted_and_measured(living: Deployment, worker: Worker):
    now_us = time.time_ns() // 1000
    parked, unparked = (worker.metric(name, what="record") for name in ("parked", "unparked"))
    await living.tell(("sessions", session_payload("orphan-1", "orphan", now_us - DAY_US, now_us - DAY_US)))
    await eventually(lambda: worker.metric("parked", what="record") == parked + 1)
    assert worker.metric("unparked", what="record") == unparked
    await living.tell(("tutors", tutor_payload("orphan", now_us - DAY_US)))
    await living.assert_right()
    assert worker.metric("parked", what="record") == parked + 1, "once, however often it is tried again"
    assert worker.metric("unparked", what="record") == unparked + 1
    assert worker.metric("freshness_count") > 0
    assert worker.metric("sink_seconds_count", sink="persist") > 0
    assert worker.metric("sink_seconds_count", sink="flush") > 0
    assert b"\ntutormax_oldest_uncommitted_seconds " in (worker.get("/metrics") or b"")


async def test_freshness_counts_from_the_brokers_time_whatever_time_a_producer_sets(living: Deployment, worker: Worker):
    """Or none. Kafka, too, deletes by it: records of ten days ago might be gone before anybody has read them."""
    await living.quiet()
    count, total = (worker.metric(f"freshness_{name}") for name in ("count", "sum"))
    began, tutors = time.time(), living.topics.raw("tutors")
    async with living.producer() as producer:
        for number, time_ms in enumerate((int(began * 1000) - 10 * DAY_US // 1000, -1)):
            payload = tutor_payload(f"stamped-{number}", int(began * 1e6) - DAY_US)
            living.payloads["tutors"].append(payload)
            await producer.send_and_wait(tutors, bare(payload), timestamp_ms=time_ms)
    await living.assert_right()
    measured = worker.metric("freshness_count") - count
    assert measured >= 2, "of rows of both tutors"
    assert 0 < worker.metric("freshness_sum") - total < measured * (time.time() - began)
    stamped = [record.timestamp / 1000 for record in await living.read(tutors) if b"stamped-" in record.value]
    assert len(stamped) == 2
    assert all(began - 1 < at < time.time() + 1 for at in stamped)


async def test_kafka_knows_the_worker_by_its_name_so_that_a_restart_moves_no_partition(
    living: Deployment, worker: Worker
):
    async with kafka.admin_client(living.settings) as admin:
        for group in (living.settings.stream_group, living.settings.sink_group):
            (response,) = await admin.describe_consumer_groups([group])
            _error, _name, _state, _type, _protocol, members, *_rest = response.groups[0]
            # The broker begins the id of a static member with the name that it gave, of others with their client's.
            assert [member_id.startswith(f"{group}-{worker.name}-") for member_id, *_ in members] == [True]
