"""Random faults, one after the other and one upon the other, under load: whatever happens, all is right in the end.

Each campaign is named by its seed. `CAMPAIGNS` says how many there are (`make test-long`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest

from tests.corpus import corpus
from tests.flow.driver import Deployment
from tests.flow.processes import Worker
from tests.flow.stories import Deploy

CAMPAIGNS = range(int(os.environ.get("CAMPAIGNS", "5")))
WORKERS = 3
FAULTS = 10
EVENTS = 40_000
PER_SECOND = 150


class Faults:
    """What can happen to one worker, or to the database under all of them."""

    def __init__(self, deployment: Deployment, rng: random.Random) -> None:
        self._deployment = deployment
        self._rng = rng

    async def killed(self, worker: Worker) -> None:
        worker.kill()
        await asyncio.sleep(self._rng.choice((0, 3, 12)))
        worker.start()

    async def killed_with_its_disk(self, worker: Worker) -> None:
        worker.kill()
        worker.forget()
        worker.start()

    async def stopped(self, worker: Worker) -> None:
        is_there = worker.get("/livez") is not None
        assert await worker.stop() in ((0,) if is_there else (0, -signal.SIGTERM))  # before it has begun, it just ends
        await asyncio.sleep(self._rng.choice((0, 3, 12)))
        worker.start()

    async def frozen(self, worker: Worker) -> None:
        worker.freeze()
        await asyncio.sleep(self._rng.choice((1, 5, 9, 11, 14)))
        worker.thaw()

    async def frozen_and_killed(self, worker: Worker) -> None:
        worker.freeze()
        await asyncio.sleep(12)
        worker.kill()
        worker.start()

    async def sessions_cut(self, worker: Worker) -> None:
        for _ in range(5):
            self._sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.3)

    async def tables_locked(self, worker: Worker) -> None:
        await asyncio.to_thread(self._sql, "BEGIN; LOCK TABLE sessions, tutor_performance_metrics; SELECT pg_sleep(8)")

    def _sql(self, statement: str) -> None:
        # One fault may cut another one's session.
        with suppress(psycopg.OperationalError), psycopg.connect(self._deployment.database) as connection:
            connection.execute(statement.encode())

    def any(self) -> Callable[[Worker], Awaitable[None]]:
        return self._rng.choice(
            (
                self.killed,
                self.killed_with_its_disk,
                self.stopped,
                self.frozen,
                self.frozen,
                self.frozen_and_killed,
                self.sessions_cut,
                self.tables_locked,
            )
        )


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", CAMPAIGNS)
async def test_a_campaign(deploy: Deploy, seed: int):
    rng = random.Random(seed)
    deployment = deploy(partitions=6)
    workers = [deployment.worker() for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.until_ready() for worker in workers))
    faults = Faults(deployment, rng)
    history = corpus(seed, EVENTS, now_us=time.time_ns() // 1000)
    async with deployment.load(history, PER_SECOND):
        for _ in range(FAULTS):
            many = rng.sample(workers, rng.choice((1, 1, 2, 3)))
            happening = [(faults.any(), worker) for worker in many]
            print(f"{time.strftime('%H:%M:%S')}", *(f"{worker.name} {what.__name__};" for what, worker in happening))
            await asyncio.gather(*(what(worker) for what, worker in happening))
            await asyncio.sleep(rng.uniform(0, 8))
    await deployment.assert_right()
    assert not deployment.restarts

    for worker in workers:
        worker.kill()
        worker.forget()
    began_us = time.time_ns() // 1000
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.until_ready() for worker in workers))
    await deployment.assert_right(newer_than_us=began_us)
