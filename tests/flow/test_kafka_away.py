"""The broker goes away under load, in order or by a crash; workers that give up are started again, as orchestrators do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.corpus import corpus
from tests.flow.driver import Deployment
from tutormax_streams.embedded import EmbeddedKafka

AWAY_SECONDS = 5


@pytest.fixture
def own_kafka() -> Iterator[EmbeddedKafka]:
    """A broker that may be stopped."""
    with EmbeddedKafka.pick("apache") as broker:
        if not broker.keeps_data:
            pytest.skip("needs a broker that keeps its data over a restart")
        yield broker


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.long)])
async def test_nothing_is_lost_when_the_broker_is_away_for_a_while(
    own_kafka: EmbeddedKafka, new_database: Callable[[], str], tmp_path: Path, how: str
):
    deployment = Deployment(own_kafka.bootstrap_servers, new_database(), tmp_path)
    worker = deployment.worker()
    worker.start()
    try:
        await worker.until_ready()
        history = corpus(4, 4_000, now_us=time.time_ns() // 1000)
        async with deployment.supervised():
            await deployment.publish_corpus(history, slice(0, 2500))
            await asyncio.to_thread(getattr(own_kafka, how))
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(own_kafka.start)
            await deployment.publish_corpus(history, slice(2500, None))
            await deployment.assert_right()
    finally:
        deployment.close()
