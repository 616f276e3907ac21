"""Workers are killed, stopped and frozen while events come: nothing is lost and nothing counts twice."""

from __future__ import annotations

import asyncio
import time

from tests.corpus import corpus
from tests.flow.stories import Deploy

EVENTS = 15_000
PER_SECOND = 150
SESSION_TIMEOUT_SECONDS = 10


async def workers_are_killed_frozen_and_stopped_under_load_and_then_lose_their_disks(deploy: Deploy) -> None:
    deployment = deploy()
    await deployment.make_raw_topics(tutors=7, sessions=1)  # any number of partitions will do
    one, two = deployment.worker(), deployment.worker()
    one.start()
    two.start()
    await asyncio.gather(one.until_ready(), two.until_ready())
    history = corpus(2, EVENTS, now_us=time.time_ns() // 1000)
    async with deployment.load(history, PER_SECOND):
        await asyncio.sleep(2)
        one.kill()
        one.start()
        await one.until_ready()

        two.freeze()
        await asyncio.sleep(SESSION_TIMEOUT_SECONDS + 3)  # its partitions go to the other one
        two.thaw()  # a zombie until it notices
        await asyncio.sleep(2)
        await asyncio.gather(one.until_ready(), two.until_ready())

        assert await one.stop() == 0  # within the 30 s that are promised
        one.start()
    await deployment.assert_right()

    for worker in (one, two):
        worker.kill()
        worker.forget()
    began_us = time.time_ns() // 1000
    for worker in (one, two):
        worker.start()
    await asyncio.gather(one.until_ready(), two.until_ready())
    await deployment.assert_right(newer_than_us=began_us)
