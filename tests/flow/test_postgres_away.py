"""PostgreSQL goes away under load: the sink waits and says so, nobody else minds, and it resumes alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.corpus import corpus
from tests.flow.conftest import Deploy
from tests.flow.driver import eventually
from tutormax_streams.embedded import EmbeddedPostgres
from tutormax_streams.postgres import schema
from tutormax_streams.topics import RAW

AWAY_SECONDS = 15


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that may be stopped."""

    async def prepare(url: str) -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await schema.ensure_platform_tables(connection)
            await schema.ensure_side_tables(connection)

    with EmbeddedPostgres.pick("binaries") as server:
        asyncio.run(prepare(server.conninfo()))
        yield server


async def test_intake_goes_on_health_names_the_sink_and_it_resumes_alone(
    deploy: Deploy, own_postgres: EmbeddedPostgres
):
    deployment = deploy(database=own_postgres.conninfo(), settings={"TUTORMAX_ENGAGEMENT_MODE": "upstream"})
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    history = corpus(3, 6_000, now_us=time.time_ns() // 1000)
    load = asyncio.create_task(deployment.publish_corpus(history, seconds=10))
    await asyncio.sleep(3)
    await asyncio.to_thread(own_postgres.stop)
    stopped = time.monotonic()
    report = await worker.until(lambda told: not told["ready"])
    assert report["roles"]["stream"]["ready"]
    assert "PostgreSQL" in report["roles"]["sink"]["reasons"][0]
    await load
    names = deployment.topics
    intake = [*map(names.raw, RAW), names.validated, names.facts]

    async def nothing_waits() -> bool:
        return await deployment.lag(*intake) == 0

    await eventually(nothing_waits)
    assert await deployment.lag(names.enriched, names.metrics) > 0
    await asyncio.sleep(max(0.0, AWAY_SECONDS - (time.monotonic() - stopped)))
    report = worker.health() or {}
    assert report["roles"]["stream"]["ready"]
    assert not report["roles"]["sink"]["ready"]
    assert worker.metric("sink_retries") > 2
    await asyncio.to_thread(own_postgres.start)
    await worker.until_ready()
    await deployment.assert_right()
