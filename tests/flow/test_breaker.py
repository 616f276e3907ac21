"""The breaker: a topic that turns bad is left alone, loudly, and read again when it is mended."""

from __future__ import annotations

import re
import time
from datetime import datetime
from itertools import pairwise

from models.breaker import PROBE
from tests.flow.conftest import BREAKER_COOLDOWN_SECONDS, BREAKER_WINDOW
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_event_payload, tutor_payload

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

    def openings() -> list[datetime]:
        found = re.findall(r"([\d-]{10}T[\d:.]+Z) .*breaker open: most of topic tutor-events", worker.log.read_text())
        return [datetime.fromisoformat(at) for at in found]

    now_us = time.time_ns() // 1000
    await throw(BREAKER_WINDOW + 50, 0)
    await eventually(is_open)
    for times in (2, 3):  # found when it looks again: it stays open, and waits for longer each time
        await throw(PROBE, 0)
        await eventually(lambda times=times: len(openings()) == times)
        assert is_open()
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(openings())]
    assert pauses[0] >= BREAKER_COOLDOWN_SECONDS
    assert pauses[1] >= 2 * BREAKER_COOLDOWN_SECONDS
    await living.tell(
        ("tutors", tutor_payload("patient", now_us - DAY_US)),
        ("sessions", session_payload("patient-1", "patient", now_us - DAY_US, now_us - DAY_US)),
    )
    await eventually(lambda: living.rows_of("patient").get("SEVEN_DAY", {}).get("sessions_completed") == 1, 10)
    logins = [tutor_event_payload(f"patient-{n}", "patient", "login", now_us - DAY_US) for n in range(2, 2 + PROBE)]
    await living.tell(*(("tutor-events", login) for login in logins))
    await eventually(lambda: not is_open())
    await eventually(lambda: worker.metric("breaker_open", topic="tutor-events") == 0)
    await living.assert_right()
