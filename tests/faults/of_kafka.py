"""Faults of Kafka and of the ways to it."""

from __future__ import annotations

import asyncio
import time

from tests.faults.registry import fault
from tests.faults.run import Run
from tests.flow.driver import eventually
from tutormax_streams.refused import KAFKA

CUT_SECONDS = 60.0
AWAY_SECONDS = 60.0
KAFKA_FAILED = {KAFKA: "Kafka"}  # a worker in the middle of a rebalance, or that starts


async def away(run: Run, how: str, seconds: float) -> None:
    """Kafka ends ("stop" or "kill") and comes back after a while."""
    await asyncio.to_thread(getattr(run.ground.kafka, how))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(run.ground.kafka.start)
    run.is_over()


@fault("kafka-restart", 5, "Kafka is restarted in order", may_end_with=KAFKA_FAILED)
async def restart(run: Run) -> None:
    await away(run, "stop", 0)


@fault("kafka-kill9", 5, "SIGKILL of Kafka, started again at once", times=3, short_times=1, may_end_with=KAFKA_FAILED)
async def kill(run: Run) -> None:
    for _ in range(run.times):
        await away(run, "kill", 0)
        await asyncio.sleep(run.rng.uniform(2, 10))


@fault("kafka-down", 5, "Kafka is down for 60 s", may_end_with=KAFKA_FAILED)
async def down(run: Run) -> None:
    await away(run, "stop", AWAY_SECONDS)


@fault("kafka-bounces", 5, "Kafka bounces five times, a few seconds up in between", times=5, may_end_with=KAFKA_FAILED)
async def bounce(run: Run) -> None:
    for _ in range(run.times):
        await away(run, run.rng.choice(("stop", "kill")), run.rng.uniform(0, 3))
        await asyncio.sleep(run.rng.uniform(1, 6))


@fault("kafka-cut", 6, "one worker's connections to Kafka are cut for 60 s", proxied=True, may_end_with=KAFKA_FAILED)
async def cut(run: Run) -> None:
    await _until_felt(run, "cut")


@fault(
    "kafka-stall", 6, "one worker's connections to Kafka are stalled for 60 s", proxied=True, may_end_with=KAFKA_FAILED
)
async def stall(run: Run) -> None:
    await _until_felt(run, "stall")


@fault(
    "kafka-stall-short",
    6,
    "one worker's connections to Kafka are stalled for 5 to 14 s",
    times=6,
    proxied=True,
    may_end_with=KAFKA_FAILED,
)
async def stall_shortly(run: Run) -> None:
    for _ in range(run.times):
        door = run.rng.choice(run.doors).kafka
        door.stall()
        await asyncio.sleep(run.rng.uniform(5, 14))
        door.mend()
        run.is_over()
        await asyncio.sleep(run.rng.uniform(1, 5))


async def _until_felt(run: Run, what: str) -> None:
    """The worker says so meanwhile, in `/readyz` or as the reason why it ended."""
    worker, doors = run.rng.choice(list(zip(run.workers, run.doors, strict=True)))

    async def says_so() -> bool:
        report = await asyncio.to_thread(worker.health)
        ended = [ending.reason for ending in run.deployment.endings if ending.worker == worker.name]
        return "no Kafka broker has answered" in str(report) or any("Kafka" in reason for reason in ended)

    mended = time.monotonic() + CUT_SECONDS
    getattr(doors.kafka, what)()
    await eventually(says_so, CUT_SECONDS, every=0.5)
    await asyncio.sleep(mended - time.monotonic())
    doors.kafka.mend()
    run.is_over()
