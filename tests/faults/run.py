"""One run of one fault: workers, a steady load, the fault, a verdict, and a second one after all local state is gone."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.ground import Ground
from tests.faults.load import FRESH_SECONDS, Load
from tests.faults.registry import Fault
from tests.faults.results import Result, Tally, commit
from tests.faults.sequel import sequel
from tests.flow import judge, users
from tests.flow.driver import Deployment, Ending
from tests.flow.judge import Difference, Position
from tests.flow.processes import Worker
from tutormax_streams.topics import RAW

WARM_SECONDS = 3.0
MOST_AGE_SECONDS = 60.0  # that is promised of rows
SHORT_STILL_FRESH_SECONDS = 4.0
SIDE_BY_SIDE = 2.0  # the short form's runs share the machine, and so half of its speed is asked for
STILL_FRESH_SECONDS = 12.0  # so long rows must stay fresh: a session times out in 10 s
QUIET_SECONDS = 180.0
ALERT_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0)
CONVERGENCE_SECONDS = 40.0
PARTITIONS = 6
HEAL_SECONDS = 90.0
LONG_HEAL_SECONDS = 900.0  # of all state of a fault with millions of events, by all workers on one machine


class Run:
    """What a fault may use. `rng` makes its random choices."""

    def __init__(
        self, ground: Ground, fault: Fault, seed: int, home: Path, database: str, *, times: int, is_short: bool
    ) -> None:
        self.ground, self.fault, self.seed, self.times, self.is_short = ground, fault, seed, times, is_short
        self.rng = random.Random(seed)
        self.notes: dict[str, float | str] = {}
        self.database_name = database
        url = ground.postgres.conninfo(database)
        self.deployment = Deployment(
            ground.kafka.bootstrap_servers,
            url,
            home,
            partitions=PARTITIONS,
            settings={
                "TUTORMAX_ALERT_SETTLE_SECONDS": "1",
                "SECRET_KEY": users.KEY,
                "TUTORMAX_WEB_RATE_PER_MINUTE": "0",
                **fault.settings,
            },
        )
        self.doors = ground.take_doors(fault.workers) if fault.proxied else []
        """By worker, if the fault needs them."""
        self.workers = [self._worker(number) for number in range(fault.workers)]
        self.load = Load(
            self.deployment,
            seed,
            fault.per_second,
            poison_share=fault.poison_share,
            hot=fault.hot,
            crowds=fault.crowds,
        )
        self.patience = SIDE_BY_SIDE if is_short else 1.0
        """Of what is stated in seconds, how many times it may take: those are of a fault that has the machine alone."""
        self.over: float | None = None  # when `is_over` was last called
        self._healings: list[float] = []
        self._strangers: set[Position] = set()
        self._raw_letters: dict[Position, bytes] | None = None

    def _worker(self, number: int) -> Worker:
        if not self.fault.proxied:
            return self.deployment.worker()
        kafka_door, postgres_door = self.doors[number]
        return self.deployment.worker(
            KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka_door.port}",
            TUTORMAX_DATABASE_URL=self.ground.database_behind(postgres_door, self.database_name),
        )

    # -- for faults -------------------------------------------------------------------------------------------------

    def is_over(self) -> None:
        """The harm ends here, if that is not when the fault's function returns: time to fresh counts from the last call."""
        self.over = time.monotonic()

    async def healed(self, blow: float) -> float:
        """Wait until rows are fresh again after a blow that fell at `blow`. The seconds from there are judged as those
        after the fault's end are."""
        await self.until_fresh(blow)
        self._healings.append(self.load.fresh_after(blow))
        return self._healings[-1]

    def expect_strangers(self, places: set[Position]) -> None:
        """Records at these places may have become anything."""
        self._strangers |= places

    @property
    def running(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.running]

    async def ready(self, workers: Sequence[Worker] | None = None, seconds: float = HEAL_SECONDS) -> None:
        """Wait until these (or all that nobody stopped) say that they are ready. One may end by itself, now or meanwhile,
        and be started again."""
        for worker in [it for it in self.workers if it.running or it.crashed] if workers is None else workers:
            deadline = time.monotonic() + seconds
            while True:
                report = await asyncio.to_thread(worker.health) if worker.running else None
                if report is not None and report["ready"]:
                    break
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"{worker.name} is not ready after {seconds} s: {report}\n{worker.last_words()}"
                    )
                await asyncio.sleep(0.2)

    async def sql(self, statement: str) -> None:
        """Run statements, as somebody else would, in one transaction."""
        async with await psycopg.AsyncConnection.connect(self.deployment.database, application_name="somebody") as it:
            await it.execute(statement.encode())

    def metric(self, name: str, **labels: str) -> float:
        """A counter or gauge, summed over the workers that run."""
        return sum(worker.metric(name, **labels) for worker in self.running)

    # -- the frame --------------------------------------------------------------------------------------------------

    async def play(self) -> Result:
        """All of it. Whatever goes wrong is in the result."""
        began = time.monotonic()
        result = Result(self.fault.name, self.times, self.seed, commit=commit())
        try:
            await self._play(result)
        except Exception as failure:  # noqa: BLE001 - of a worker, a server or the fault: a failed run, not a failed campaign
            result.failure = f"{type(failure).__name__}: {failure}"
            if self.is_short:  # whose logs nobody keeps
                result.failure += "\n" + self._last_words()
        result.seconds = time.monotonic() - began
        result.events, result.notes = self.load.published, self.notes
        result.gave_up = len(self.deployment.endings)
        for number, ending in enumerate(self.deployment.endings, 1):
            self.notes[f"{number}: {ending.worker} gave up with {ending.code}"] = ending.reason[-300:]
        return result

    async def _play(self, result: Result) -> None:
        if self.fault.raw_partitions:
            await self.deployment.make_raw_topics(**self.fault.raw_partitions)
        async with self.deployment.supervised():
            for worker in self.workers[: self.fault.start]:
                worker.start()
            await self.ready()
            async with self.load:
                await asyncio.sleep(WARM_SECONDS)
                began = time.monotonic()
                await self.fault.happen(self)
                over = self.over or time.monotonic()
                await self.until_fresh(over, SHORT_STILL_FRESH_SECONDS if self.is_short else STILL_FRESH_SECONDS)
            result.worst_age = self.load.worst_age(began)
            result.fresh_after = max([*self._healings, self.load.fresh_after(over)])
            await self.ready()
            result.tally = await self.verdict()
        self._judge_endings()
        judge_times(self.fault, result.worst_age, result.fresh_after, self.patience)
        result.rebuilt = await self._after_losing_all_disks()

    async def until_fresh(self, over: float, still_seconds: float = STILL_FRESH_SECONDS) -> None:
        """Wait until rows are as fresh as ever and stay so; at the latest when the stated time is over, when they must
        not be older than a minute."""
        fresh_since: float | None = None
        while fresh_since is None or time.monotonic() - fresh_since < still_seconds:
            now, age = time.monotonic(), self.load.age()
            if age < FRESH_SECONDS:
                fresh_since = fresh_since or now
            else:
                fresh_since = None
                if now - over > self.fault.within * self.patience:
                    if age < MOST_AGE_SECONDS * self.patience:
                        return
                    raise AssertionError(
                        f"rows are {age:.1f} s old {now - over:.0f} s after the fault\n" + self._last_words()
                    )
            await asyncio.sleep(0.2)

    def _judge_endings(self) -> None:
        """Who ended by itself did so as the fault allows; those too who did so a moment before they were killed."""
        for worker in self.workers:
            while worker.unseen:
                self.deployment.endings.append(Ending(worker.name, *worker.unseen.pop()))
        if wrong := unexpected(self.deployment.endings, self.fault.may_end_with):
            raise AssertionError(f"workers ended otherwise than they may: {wrong}\n" + self._last_words())

    async def _after_losing_all_disks(self) -> Tally:
        for worker in self.workers:
            worker.kill()
            worker.forget()
        began_us = time.time_ns() // 1000
        async with self.deployment.supervised():
            for worker in self.workers:
                worker.start()
            await self.ready(seconds=LONG_HEAL_SECONDS if self.fault.is_huge else HEAL_SECONDS)
            oracle = await asyncio.to_thread(self.deployment.oracle)
            told = sequel(oracle, self.seed)
            await self.deployment.tell(*told)
            self.notes["events after the rebuild"] = len(told)
            tally = await self.verdict(newer_than_us=began_us)
        self._judge_endings()
        return tally

    async def verdict(self, newer_than_us: int = 0) -> Tally:
        """Raw tables, metrics and dead letters against the oracle, once everything has come through."""
        await self.deployment.quiet(QUIET_SECONDS)
        if self._raw_letters is None:
            self._raw_letters = await self._expected_letters()
        deadline = time.monotonic() + CONVERGENCE_SECONDS
        while True:
            differences = await self._differences(newer_than_us)
            if not differences or time.monotonic() > deadline:
                return Tally.of(differences)
            await asyncio.sleep(1.0)

    async def _differences(self, newer_than_us: int) -> list[Difference]:
        deployment = self.deployment
        oracle = await asyncio.to_thread(deployment.oracle)
        mode = deployment.given.get("TUTORMAX_ENGAGEMENT_MODE", "normalized")
        differences = await asyncio.to_thread(judge.wrong_tables, deployment.database, oracle)
        differences += await asyncio.to_thread(judge.wrong_metrics, deployment.database, oracle, newer_than_us, mode)
        if self._strangers:
            # Who they are about nobody knows: it may be there, but not in two rows.
            differences = [d for d in differences if not isinstance(d, judge.Doubled) or d.startswith("two rows")]
        differences += judge.wrong_letters(
            self._without_strangers(await deployment.letters()), self._without_strangers(self._raw_letters or {})
        )
        if differences:
            return differences  # what follows is long to read
        announced = [json.loads(record.value) for record in await deployment.read(deployment.topics.persisted)]
        differences += judge.wrong_announcements(announced, oracle)
        untold, self.notes["alerts"] = await untold_alerts(deployment)
        return [*differences, *untold]

    def _without_strangers(self, letters: dict[Position, bytes]) -> dict[Position, bytes]:
        return {place: value for place, value in letters.items() if place not in self._strangers}

    async def _expected_letters(self) -> dict[Position, bytes]:
        """Where poison landed: producers that send again what they are unsure of may have written it twice."""
        return self.load.poison_placed | {
            (name, record.partition, record.offset): record.value
            for name in RAW
            for record in await self.deployment.read(self.deployment.topics.raw(name))
            if record.value in self.load.poison
        }

    def keep_logs(self, directory: Path) -> None:
        """Copy what the workers wrote."""
        directory.mkdir(parents=True, exist_ok=True)
        for worker in self.workers:
            if worker.log.exists():
                shutil.copy(worker.log, directory / f"{self.fault.name}-{self.seed}-{worker.name}.log")

    def _last_words(self) -> str:
        return "\n".join(
            f"--- {worker.name}\n{worker.last_words(30)}" for worker in self.workers if worker.log.exists()
        )


def judge_times(fault: Fault, worst_age: float, fresh_after: float, patience: float = 1.0) -> None:
    """What was stated of the time that healing takes, in seconds as `Result` has them. `patience`: see `Run`."""
    if fault.most_age is not None and worst_age > fault.most_age * patience:
        raise AssertionError(f"rows were {worst_age:.1f} s old, {fault.most_age} is promised, times {patience:g}")
    if fresh_after > fault.within * patience:
        raise AssertionError(
            f"rows were fresh {fresh_after:.1f} s after it, {fault.within} is promised, times {patience:g}"
        )


async def untold_alerts(deployment: Any) -> tuple[list[Difference], int]:
    """What is wrong with alerts, and how many there are.

    Time alone raises and clears some, also between the two looks that are compared, at the topic and at PostgreSQL: what
    is found is looked for again.
    """
    untold: list[Difference] = []
    alerts: list[Any] = []
    for pause in ALERT_PAUSES:
        await asyncio.sleep(pause)
        alerts = [json.loads(record.value) for record in await deployment.read(deployment.topics.alerts)]
        untold = await asyncio.to_thread(judge.untold_alerts, deployment.database, alerts)
        if not untold:
            break
    return untold, len({alert["id"] for alert in alerts})


def unexpected(endings: Sequence[Ending], may_end_with: Mapping[int, str]) -> list[Ending]:
    """Those whose code is none of these, or whose reason does not match the code's pattern."""
    return [it for it in endings if it.code not in may_end_with or not re.search(may_end_with[it.code], it.reason)]


@asynccontextmanager
async def begun(ground: Ground, fault: Fault, seed: int, *, times: int, is_short: bool = False) -> AsyncIterator[Run]:
    """A run on a database and in topics of its own, which are gone afterwards."""
    database = await asyncio.to_thread(ground.new_database)
    with tempfile.TemporaryDirectory(prefix="tutormax-faults-", ignore_cleanup_errors=True) as home:
        run = Run(ground, fault, seed, Path(home), database, times=times, is_short=is_short)
        try:
            yield run
        finally:
            run.deployment.close()
            ground.give_back(run.doors)
            await asyncio.to_thread(ground.mend)
            await run.deployment.delete_topics()
            await asyncio.to_thread(ground.drop_database, database)
