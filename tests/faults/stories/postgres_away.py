"""PostgreSQL goes away under load: the sink waits and says so, nobody else minds, and it resumes alone."""

from __future__ import annotations

import asyncio
import time

import psycopg

from tests.corpus import corpus
from tests.flow.driver import Deployment, eventually
from tests.flow.stories import Deploy
from tutormax_streams.embedded import EmbeddedPostgres
from tutormax_streams.postgres import schema
from tutormax_streams.topics import RAW

AWAY_SECONDS = 15


async def postgresql_is_away_for_fifteen_seconds_under_load(deploy: Deploy) -> None:
    with EmbeddedPostgres.pick("binaries") as own_postgres:  # a server that may be stopped
        async with await psycopg.AsyncConnection.connect(own_postgres.conninfo(), autocommit=True) as connection:
            await schema.ensure_platform_tables(connection)
            await schema.ensure_side_tables(connection)
        upstream = {"TUTORMAX_ENGAGEMENT_MODE": "upstream"}
        await tell(deploy(database=own_postgres.conninfo(), settings=upstream), own_postgres)


async def tell(deployment: Deployment, own_postgres: EmbeddedPostgres) -> None:
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
    deployment.close()
