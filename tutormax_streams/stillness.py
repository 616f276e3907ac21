"""Whether the work of an app goes on: judged in the main loop, a look a second, from positions alone.

Progress is that a position moves. Its absence is a fault only where something is due and nothing explains it: Kafka
silent, PostgreSQL away, a breaker open, a rebalance that is not older than `REBALANCING` times the patience.

What arrives at an agent must be finished within the patience, by topic; of a single partition the oldest batch that an
agent has begun with within twice that, for it may rightly wait for others. A commit that stands still is asked for
again, and gets the same time once more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import faust
from faust.types import TP

from tutormax_streams.batches import BatchConsumer, batch_consumer, recovery_position, recovery_remaining
from tutormax_streams.watchdog import Clocks

logger = logging.getLogger(__name__)

MOST_STEP_SECONDS = 2.0
MOST_SILENCE_SECONDS = 10.0  # fetches are answered every 50 ms, with or without records
REBALANCING = 5  # times the patience


@dataclass(slots=True)
class Stillness:
    """Of one app. `patience` in seconds; with 0 nothing is ever found, and commits are not looked after."""

    app: faust.App
    patience: float
    excused: Callable[[str], bool]  # whether something explains that work of this topic waits
    commits_still: dict[TP, float] = field(default_factory=dict)  # seconds, of those that were asked for again
    _clocks: Clocks = field(default_factory=lambda: Clocks(MOST_STEP_SECONDS))
    _committing: asyncio.Task[Any] | None = None

    def reasons(self) -> list[str]:
        """What of it an operator should know."""
        return [
            f"commits of {tp.topic}-{tp.partition} have stood still for {seconds:.0f} s"
            for tp, seconds in self.commits_still.items()
        ]

    def judge(self) -> str | None:
        """Why the worker should end, or None. Call it about once a second."""
        consumer, clocks = batch_consumer(self.app), self._clocks
        clocks.turn(time.monotonic())
        if not self.patience or consumer is None or self.app.should_stop:
            return None
        still = clocks.still("rebalancing", 0, self.app.rebalancing)
        if still >= REBALANCING * self.patience:
            return f"{self.app.conf.id} has been rebalancing for {still:.0f} s"
        recovering = bool(self.app.tables) and (self.app.in_recovery or not self.app.tables.actives_ready)
        if self.app.rebalancing or not consumer.is_assigned:
            clocks.forget(lambda name: name != "rebalancing")
            self.commits_still.clear()
            return None
        silence = consumer.thread_silence_seconds() if recovering else consumer.silence_seconds()
        if not recovering and (found := self._judge_fetching(consumer)):
            return found
        if silence is not None and silence >= MOST_SILENCE_SECONDS:
            clocks.forget(lambda name: name != "fetching")
            return None
        if recovering:
            mark = (self.app.consumer_generation_id, recovery_position(self.app), recovery_remaining(self.app))
            still = clocks.still("recovery", mark)
            clocks.forget(lambda name: name != "recovery")
            return f"recovery of tables has stood still for {still:.0f} s" if still >= self.patience else None
        return self._judge_work(consumer) or self._judge_commits(consumer)

    def _judge_work(self, consumer: BatchConsumer) -> str | None:
        clocks, generation = self._clocks, self.app.consumer_generation_id
        topics: dict[str, list[int]] = {}
        for tp, position in consumer.positions().items():
            of_topic = topics.setdefault(tp.topic, [0, 0, 0, 0])
            for at, number in enumerate(
                (position.in_flight, position.expected or 0, position.committable or 0, position.under_way or 0)
            ):
                of_topic[at] += number
            excused = self.excused(tp.topic)
            still = clocks.still(
                (tp, "work"), (generation, position.under_way), position.under_way is not None and not excused
            )
            if still >= 2 * self.patience:
                return (
                    f"the batch of {tp.topic}-{tp.partition} at offset {position.under_way} has been worked on for "
                    f"{still:.0f} s"
                )
        for topic, mark in topics.items():
            still = clocks.still(topic, (generation, *mark), bool(mark[0]) and not self.excused(topic))
            if still >= self.patience:
                return f"nothing of {topic} has been finished for {still:.0f} s, although {mark[0]} batches wait"
        return None

    def _judge_fetching(self, consumer: BatchConsumer) -> str | None:
        """A fetch is answered by the thread within a second, be Kafka silent or not, and the next one follows.

        That it finds nothing is no fault: what ends a log may be no record at all (a transaction's marker).
        """
        positions = consumer.positions().values()
        waiting = any(p.end and p.end > (p.expected or 0) for p in positions) and not any(
            p.in_flight for p in positions
        )
        mark = (self.app.consumer_generation_id, consumer.fetches)
        still = self._clocks.still("fetching", mark, consumer.is_fetching or waiting)
        return f"no fetch has come back for {still:.0f} s" if still >= self.patience else None

    # -- commits ------------------------------------------------------------------------------------------------

    def _judge_commits(self, consumer: BatchConsumer) -> str | None:
        generation = self.app.consumer_generation_id
        for tp, position in consumer.positions().items():
            behind = position.committable is not None and position.committable > (position.committed or 0)
            still = self._clocks.still((tp, "commit"), (generation, position.committed), behind)
            if still >= 2 * self.patience:
                return (
                    f"the commit of {tp.topic}-{tp.partition} has stood at {position.committed} for {still:.0f} s, "
                    f"although work is done up to {position.committable}"
                )
            if still < self.patience:
                if self.commits_still.pop(tp, None) is not None:
                    logger.warning("commits of %s-%s go on", *tp)
                continue
            if tp not in self.commits_still:
                logger.error(
                    "the commit of %s-%s has stood at %s for %.0f s, although work is done up to %s: asking again",
                    *tp, position.committed, still, position.committable,
                )  # fmt: skip
            self.commits_still[tp] = still
            if self._committing is None or self._committing.done():
                self._committing = asyncio.ensure_future(self._commit(consumer))
        return None

    async def _commit(self, consumer: BatchConsumer) -> None:
        try:
            if not await consumer.commit_at_once():
                logger.warning("the commit that was asked for again came to nothing")
        except Exception:
            logger.warning("the commit that was asked for again failed", exc_info=True)
