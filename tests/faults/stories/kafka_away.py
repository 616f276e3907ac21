"""The broker goes away under load, in order or by a crash; workers that give up are started again, as orchestrators do."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.corpus import corpus
from tests.flow.stories import Deploy
from tutormax_streams.embedded import EmbeddedKafka

AWAY_SECONDS = 5


async def the_broker_crashes(deploy: Deploy) -> None:
    await tell(deploy, "kill")


async def the_broker_restarts(deploy: Deploy) -> None:
    await tell(deploy, "stop")


async def tell(deploy: Deploy, how: str) -> None:
    own_kafka = EmbeddedKafka.pick("apache")
    if not own_kafka.keeps_data:
        pytest.skip("needs a broker that keeps its data over a restart")
    await asyncio.to_thread(own_kafka.start)
    try:
        deployment = deploy(servers=own_kafka.bootstrap_servers)
        worker = deployment.worker()
        worker.start()
        await worker.until_ready()
        history = corpus(4, 4_000, now_us=time.time_ns() // 1000)
        async with deployment.supervised():
            await deployment.publish_corpus(history, slice(0, 2500))
            await asyncio.to_thread(getattr(own_kafka, how))
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(own_kafka.start)
            await deployment.publish_corpus(history, slice(2500, None))
            await deployment.assert_right()
        deployment.close()
    finally:
        own_kafka.close()
