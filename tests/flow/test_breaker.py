"""The breaker: a topic that turns bad is left alone, loudly, and read again when it is mended."""

from __future__ import annotations

import time

from tests.flow.conftest import BREAKER_WINDOW
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.oracle import DAY_US
from tests.samples import bare, session_payload, tutor_event_payload, tutor_payload

RUBBISH = b"{'not': 'json'}"


async def test_it_opens_on_a_topic_of_rubbish_while_other_topics_go_on_and_closes_when_it_is_mended(
    living: Deployment, worker: Worker
):
    async def throw(records: int, partition: int) -> None:
        async with living.producer() as producer:
            for future in [
                await producer.send(living.topics.raw("tutor-events"), RUBBISH, partition=partition)
                for _ in range(records)
            ]:
                sent = await future
                living.poison["tutor-events", sent.partition, sent.offset] = RUBBISH

    def is_open() -> bool:
        health = worker.health()
        assert health is not None
        reasons = health["roles"]["stream"]["reasons"]
        assert bool(reasons) == any("breaker of topic tutor-events is open" in reason for reason in reasons)
        return bool(reasons)

    now_us = time.time_ns() // 1000
    await throw(BREAKER_WINDOW + 50, 0)
    await eventually(is_open)
    await throw(20, 0)  # found when it looks again: it stays open, and waits for longer
    await living.tell(
        ("tutors", tutor_payload("patient", now_us - DAY_US)),
        ("sessions", session_payload("patient-1", "patient", now_us - DAY_US, now_us - DAY_US)),
    )
    await eventually(lambda: living.rows_of("patient").get("SEVEN_DAY", {}).get("sessions_completed") == 1, 10)
    login = tutor_event_payload("patient-2", "patient", "login", now_us - DAY_US)
    living.payloads["tutor-events"].append(login)
    async with living.producer() as producer:
        await producer.send_and_wait(living.topics.raw("tutor-events"), bare(login), partition=1)
    await eventually(lambda: not is_open())
    await living.assert_right()
