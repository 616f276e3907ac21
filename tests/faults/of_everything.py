"""Random faults, one after the other and one upon the other."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg

from tests.faults.of_postgres import CUT_SESSIONS
from tests.faults.registry import fault
from tests.faults.run import Run
from tests.flow.processes import Worker

Happening = Callable[[Run, Worker], Awaitable[None]]


async def killed(run: Run, worker: Worker) -> None:
    worker.kill()
    await asyncio.sleep(run.rng.choice((0, 3, 12)))
    worker.start()


async def killed_with_its_disk(run: Run, worker: Worker) -> None:
    worker.kill()
    worker.forget()
    worker.start()


async def stopped(run: Run, worker: Worker) -> None:
    is_there = worker.get("/livez") is not None
    assert await worker.stop() in ((0,) if is_there else (0, -signal.SIGTERM))  # before it has begun, it just ends
    await asyncio.sleep(run.rng.choice((0, 3, 12)))
    worker.start()


async def frozen(run: Run, worker: Worker) -> None:
    worker.freeze()
    await asyncio.sleep(run.rng.choice((1, 5, 9, 11, 14)))
    worker.thaw()


async def frozen_and_killed(run: Run, worker: Worker) -> None:
    worker.freeze()
    await asyncio.sleep(12)
    worker.kill()
    worker.start()


async def sessions_cut(run: Run, worker: Worker) -> None:
    for _ in range(5):
        with suppress(psycopg.OperationalError):
            await run.sql(CUT_SESSIONS)
        await asyncio.sleep(0.3)


async def tables_locked(run: Run, worker: Worker) -> None:
    with suppress(psycopg.OperationalError):
        await run.sql("LOCK TABLE sessions, tutor_performance_metrics; SELECT pg_sleep(8)")


HAPPENINGS: tuple[Happening, ...] = (
    killed,
    killed_with_its_disk,
    stopped,
    frozen,
    frozen,
    frozen_and_killed,
    sessions_cut,
    tables_locked,
)


@fault("mixed", 0, "ten times one to three random faults at once", times=10)
async def mixed(run: Run) -> None:
    for _ in range(run.times):
        chosen = [(run.rng.choice(HAPPENINGS), it) for it in run.rng.sample(run.workers, run.rng.choice((1, 1, 2, 3)))]
        print(f"  {time.strftime('%H:%M:%S')}", *(f"{worker.name} {what.__name__};" for what, worker in chosen))
        await asyncio.gather(*(what(run, worker) for what, worker in chosen))
        run.is_over()
        await asyncio.sleep(run.rng.uniform(0, 8))
