"""A deployment as tests see it: topics, a database and workers of its own on the shared servers, and what is true.

Whatever is published through `Deployment` is remembered, so that at any time the verdict can be asked for.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from tests.corpus import Corpus, RawRecord
from tests.flow import judge
from tests.flow.judge import Position
from tests.flow.processes import Worker, command, environment
from tests.oracle import Oracle, Payload
from tests.samples import TOPICS, bare, by_topic
from tutormax_streams import kafka
from tutormax_streams.embedded.server import free_port
from tutormax_streams.settings import Settings
from tutormax_streams.topics import RAW, Topics, create

QUIET_SECONDS = 120.0
CONVERGENCE_SECONDS = 25.0  # after it is quiet: parked rows are tried again, tutors published again
STILL_SECONDS = 1.3  # a tutor with news is published at most once a second


class Ending(NamedTuple):
    """Of a worker that ended by itself: its exit code, and what it said of the reason ("" if nothing)."""

    worker: str
    code: int
    reason: str


class Deployment:
    """Topics, groups and directories under a name of its own. `database` must hold the platform's tables and ours."""

    def __init__(
        self, servers: str, database: str, home: Path, *, partitions: int = 4, settings: Mapping[str, str] | None = None
    ) -> None:
        name = f"test-{uuid.uuid4().hex[:8]}"
        self.home = home / name
        self.home.mkdir()
        self.database = database
        self.given = {
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "KAFKA_PARTITIONS": str(partitions),
            "KAFKA_TOPIC_PREFIX": f"{name}.",
            "TUTORMAX_APP_ID": name,
            "TUTORMAX_DATABASE_URL": database,
            "TUTORMAX_FLUSH_INTERVAL_SECONDS": "0.5",
            **(settings or {}),
        }
        self.payloads: dict[str, list[Payload]] = by_topic([])
        self.poison: dict[Position, bytes] = {}
        self.workers: list[Worker] = []
        self.endings: list[Ending] = []  # of workers that ended by themselves, while supervised
        self._is_supervised = False

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    @cached_property
    def settings(self) -> Settings:
        """As a process with our environment would read them."""
        fields = {
            "kafka_bootstrap_servers": self.given["KAFKA_BOOTSTRAP_SERVERS"],
            "kafka_partitions": int(self.given["KAFKA_PARTITIONS"]),
            "kafka_topic_prefix": self.given["KAFKA_TOPIC_PREFIX"],
            "app_id": self.given["TUTORMAX_APP_ID"],
            "database_url": self.given["TUTORMAX_DATABASE_URL"],
        }
        return Settings(**fields)  # type: ignore[arg-type]

    @cached_property
    def topics(self) -> Topics:
        return Topics.of(self.settings)

    async def make_raw_topics(self, **partitions: int) -> None:
        """Raw topics as producers may have made them, before the first start."""
        plans = {plan.name: plan for plan in self.topics.plans(self.settings.kafka_partitions)}
        wanted = [replace(plans[self.topics.raw(name)], partitions=count) for name, count in partitions.items()]
        async with kafka.admin_client(self.settings) as admin:
            await create(admin, self.settings, wanted)

    async def delete_topics(self) -> None:
        """All of this deployment's, for the sake of whoever shares the broker."""
        name = self.given["TUTORMAX_APP_ID"]
        async with kafka.admin_client(self.settings) as admin:
            await admin.delete_topics([topic for topic in await admin.list_topics() if topic.startswith(name)])

    def change_partitions(self, partitions: int) -> None:
        """What an operator would do by KAFKA_PARTITIONS, while no worker runs."""
        self.given["KAFKA_PARTITIONS"] = str(partitions)
        self.settings = self.settings.model_copy(update={"kafka_partitions": partitions})

    def worker(self, **settings: str) -> Worker:
        """A replica, not yet started."""
        worker = Worker(f"worker-{len(self.workers) + 1}", self.home, {**self.given, **settings})
        self.workers.append(worker)
        return worker

    def refused(self, **settings: str) -> tuple[int, str]:
        """Exit code and words of a worker that ends by itself."""
        own = {"TUTORMAX_DATA_DIR": str(self.home / "refused"), "TUTORMAX_WEB_PORT": str(free_port())}
        given = environment({**self.given, **own, **settings})
        ended = subprocess.run(
            command("worker"), env=given, cwd=self.home, capture_output=True, text=True, timeout=60, check=False
        )
        return ended.returncode, ended.stderr + ended.stdout

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """While this lasts, workers that end by themselves are started again, as any orchestrator does."""

        async def supervise() -> None:
            while True:
                for worker in self.workers:
                    if worker.crashed:
                        self.endings.append(Ending(worker.name, worker.process.wait(), worker.last_reason()))
                        worker.start()
                await asyncio.sleep(1.0)

        supervising = asyncio.create_task(supervise())
        self._is_supervised = True
        try:
            yield
        finally:
            self._is_supervised = False
            supervising.cancel()

    # -- publishing -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        async with kafka.producer(self.settings) as producer:
            yield producer

    async def publish(
        self, records: Iterable[RawRecord], *, poison: Sequence[bytes] = (), seconds: float = 0.0
    ) -> dict[int, Position]:
        """Raw records as any client would: no key, any partition; spread over `seconds`. Values in `poison` must come
        out as dead letters. Answers with the places of those, by their number among the records."""
        records, bad = list(records), set(poison)
        rng = random.Random(len(records))
        places: dict[int, Position] = {}
        pending = {}
        started = time.monotonic()
        async with self.producer() as producer:
            full_names = {topic: self.topics.raw(topic) for topic in RAW}
            partitions = {topic: sorted(await producer.partitions_for(name)) for topic, name in full_names.items()}
            for number, (topic, value) in enumerate(records):
                future = await producer.send(full_names[topic], value, partition=rng.choice(partitions[topic]))
                if value in bad:
                    pending[number] = future
                ahead = number / len(records) * seconds - (time.monotonic() - started)
                if ahead > 0.02:
                    await asyncio.sleep(ahead)
            await producer.flush()
            for number, future in pending.items():
                topic, value = records[number]
                sent = await future
                places[number] = (topic, sent.partition, sent.offset)
                self.poison[places[number]] = value
        return places

    async def publish_corpus(self, corpus: Corpus, part: slice = slice(None), *, seconds: float = 0.0) -> None:
        """Some of a corpus. The oracle is told of all of it at once: publish the rest before asking for a verdict."""
        for topic, payloads in corpus.payloads.items():
            if payloads and (not self.payloads[topic] or self.payloads[topic][-1] is not payloads[-1]):
                self.payloads[topic] += payloads
        await self.publish(corpus.records[part], poison=corpus.poison, seconds=seconds)

    @asynccontextmanager
    async def load(self, corpus: Corpus, per_second: int) -> AsyncIterator[None]:
        """Publishes a corpus at this rate while the caller works, and what is left of it at the end."""
        ended = asyncio.Event()

        async def trickle() -> None:
            published = 0
            while published < len(corpus.records) and not ended.is_set():
                await self.publish_corpus(corpus, slice(published, published + per_second), seconds=1.0)
                published += per_second
            assert ended.is_set(), "the load ended before the work under it did"
            await self.publish_corpus(corpus, slice(published, None))

        publishing = asyncio.create_task(trickle())
        yield
        ended.set()
        await publishing

    async def tell(self, *events: tuple[str, Payload]) -> None:
        """Valid events, bare."""
        for topic, payload in events:
            self.payloads[topic].append(payload)
        await self.publish([RawRecord(topic, bare(payload)) for topic, payload in events])

    # -- the state of things --------------------------------------------------------------------------------------

    def oracle(self) -> Oracle:
        return Oracle(self.payloads, time.time_ns() // 1000)

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """All records of a topic, by its full name."""
        found: list[ConsumerRecord] = []
        ends = await kafka.log_ends(self.settings, [topic])
        async with kafka.consumer(self.settings) as client:
            client.assign(list(ends))
            await client.seek_to_beginning()
            while any([await client.position(tp) < end for tp, (_, end) in ends.items()]):
                for records in (await client.getmany(timeout_ms=200)).values():
                    found += records
        return found

    async def letters(self) -> dict[Position, bytes]:
        """Dead letters by source position; a repeated one must repeat its bytes."""
        found: dict[Position, bytes] = {}
        for record in await self.read(self.topics.dead_letter):
            headers = {name: value.decode() for name, value in record.headers}
            place = (headers["topic"], int(headers["partition"]), int(headers["offset"]))
            assert found.setdefault(place, record.value) == record.value
        return found

    async def lag(self, *only: str) -> int:
        """Records not committed as done: of raw and internal topics, or of `only` these (full names)."""
        names, settings = self.topics, self.settings
        consumed = {
            settings.stream_group: [*map(names.raw, RAW), names.validated, names.facts],
            settings.sink_group: [names.enriched, names.metrics],
        }
        ends = await kafka.log_ends(settings, [topic for topics in consumed.values() for topic in topics])
        behind = 0
        for group, topics in consumed.items():
            committed = await kafka.committed_offsets(settings, group)
            places = {TopicPartition(tp.topic, tp.partition): offset for tp, offset in committed.items()}
            for tp, (first, end) in ends.items():
                if tp.topic in topics and (not only or tp.topic in only):
                    behind += end - places.get(tp, first)
        return behind

    async def quiet(self, seconds: float = QUIET_SECONDS) -> None:
        """Wait until everything published has come through, and nothing is about to follow."""
        deadline = time.monotonic() + seconds
        lag = -1
        while time.monotonic() < deadline:
            lag = await self.lag()
            if lag == 0:
                await asyncio.sleep(STILL_SECONDS)
                if await self.lag() == 0:
                    return
            self._assert_alive()
            await asyncio.sleep(0.3)
        raise AssertionError(f"{lag} records still wait after {seconds} s\n{self._last_words()}")

    def _assert_alive(self) -> None:
        dead = [worker.name for worker in self.workers if worker.crashed and not self._is_supervised]
        assert not dead, f"{dead} ended by themselves\n{self._last_words()}"

    def _last_words(self) -> str:
        return "\n".join(f"--- {worker.name}\n{worker.last_words()}" for worker in self.workers if worker.log.exists())

    # -- the verdict ----------------------------------------------------------------------------------------------

    async def assert_right(self, *, seconds: float = QUIET_SECONDS, newer_than_us: int = 0) -> None:
        """Raw tables, metrics and dead letters are what they must be once everything has come through."""
        await self.quiet(seconds)
        deadline = time.monotonic() + CONVERGENCE_SECONDS
        while True:
            oracle = self.oracle()
            differences = judge.wrong_tables(self.database, oracle)
            mode = self.given.get("TUTORMAX_ENGAGEMENT_MODE", "normalized")
            differences += judge.wrong_metrics(self.database, oracle, newer_than_us, mode)
            differences += judge.wrong_letters(await self.letters(), self.poison)
            if not differences:
                return
            assert time.monotonic() < deadline, f"{judge.shown(differences)}\n{self._last_words()}"
            await asyncio.sleep(1.0)

    async def assert_told(self) -> None:
        """Every alert that stands was told, and every alert that was told makes up what stands."""
        deadline = time.monotonic() + CONVERGENCE_SECONDS
        while True:
            told = [json.loads(record.value) for record in await self.read(self.topics.alerts)]
            differences = await asyncio.to_thread(judge.untold_alerts, self.database, told)
            if not differences:
                return
            assert time.monotonic() < deadline, f"{judge.shown(differences)}\n{self._last_words()}"
            await asyncio.sleep(0.5)

    def rows_of(self, tutor_id: str) -> dict[str, Any]:
        """The current metrics rows of a tutor, by window."""
        found = judge.rows(self.database, "SELECT * FROM tutor_performance_metrics WHERE tutor_id = %s", [tutor_id])
        return {row["window"]: row for row in found}


async def eventually(what: Any, seconds: float = 30.0, every: float = 0.1) -> Any:
    """The first true answer of `what` (called, awaited where it must be); AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"did not come true within {seconds} s (last answer: {answer!r})"
        await asyncio.sleep(every)


__all__ = ["TOPICS", "Deployment", "eventually"]
