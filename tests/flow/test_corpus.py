"""A big, dirty, shuffled history, while workers come and go."""

from __future__ import annotations

import asyncio
import time

from tests.corpus import corpus
from tests.flow.driver import eventually
from tests.flow.stories import Deploy
from tutormax_streams.topics import RAW

EVENTS = 50_000


async def test_50_000_events_come_out_right_while_two_workers_scale_from_one_to_two_to_one(deploy: Deploy):
    history = corpus(1, EVENTS, now_us=time.time_ns() // 1000)
    assert len(history.records) >= EVENTS
    deployment = deploy()
    first, second = deployment.worker(), deployment.worker()
    first.start()
    await first.until_ready()
    await deployment.publish_corpus(history, slice(0, 20_000))
    second.start()
    publishing = asyncio.create_task(deployment.publish_corpus(history, slice(20_000, 40_000), seconds=6))
    await second.until_ready()
    await publishing
    topics = [*map(deployment.topics.raw, RAW), deployment.topics.validated, deployment.topics.facts]
    await eventually(lambda: all(w.metric("owned_partitions", topic=t) > 0 for w in (first, second) for t in topics))
    await deployment.publish_corpus(history, slice(40_000, None))
    assert await deployment.lag() > 0, "the first had nothing left to hand over"
    assert await first.stop() == 0
    await deployment.assert_right()
