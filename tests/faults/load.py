"""A steady stream of hard events, and how long they take to become rows.

Everything comes that the platform can send: duplicates, shuffles, corrections, moves, ratings of foreign sessions,
feedback before its session, poison. A record whose fate is unknown (the broker was away) is sent again. Beside them
each of a few probe tutors gets a new session now and then: their counts in PostgreSQL tell how old rows are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Self

import psycopg
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from tests.corpus import Corpus, RawRecord, corpus
from tests.flow.driver import Deployment
from tests.oracle import DAY_US, Payload, payload_of
from tests.samples import TOPICS, bare, session_payload, tutor_payload
from tutormax_streams import kafka

PART_EVENTS = 3_000
TUTORS_OF_A_CROWD = 100  # at most: a corpus of so many events has fewer
PROBES = 6  # as many as partitions
PROBE_SECONDS = 0.4  # between two of them
STEP_SECONDS = 0.1
LOOK_SECONDS = 0.4
MOST_UNCONFIRMED = 3_000
FRESH_SECONDS = 5.0  # rows are as fresh as ever
FLUSH_SECONDS = 150.0

Place = tuple[str, int, int]  # short topic name, partition, offset


def probe_id(number: int) -> str:
    """Of the probe whose home is partition `number`: whoever is killed owns some."""
    ids = (f"probe-{number}-{n}" for n in count())
    return next(id_ for id_ in ids if (murmur2(id_.encode()) & 0x7FFFFFFF) % PROBES == number)


class Probe:
    """A tutor whose rows say how many of its sessions they count."""

    def __init__(self, number: int) -> None:
        self.tutor_id = probe_id(number)
        self.sent = 0
        self.acknowledged: list[float] = []  # when, by our clock
        self.places: list[Place] = []  # of these, in the same order
        self.counted = 0

    def next(self, now_us: int) -> RawRecord:
        self.sent += 1
        start_us = now_us - 3 * DAY_US - self.sent
        session = session_payload(f"{self.tutor_id}-{self.sent}", self.tutor_id, start_us, now_us)
        return RawRecord("sessions", bare(session))

    def landed(self, place: Place) -> None:
        self.acknowledged.append(time.monotonic())
        self.places.append(place)

    def forget(self, is_lost: Callable[[Place], bool]) -> None:
        kept = [(at, place) for at, place in zip(self.acknowledged, self.places, strict=True) if not is_lost(place)]
        self.acknowledged, self.places = [at for at, _ in kept], [place for _, place in kept]

    def age(self, now: float) -> float:
        """Seconds since the first session that its rows do not count was acknowledged."""
        return now - self.acknowledged[self.counted] if self.counted < len(self.acknowledged) else 0.0


class Load:
    """Publishes while it is entered. What was acknowledged is in the deployment's payloads, and in `placed`."""

    def __init__(
        self,
        deployment: Deployment,
        seed: int,
        per_second: float,
        *,
        poison_share: float = 0.01,
        hot: float = 0.0,
        crowds: int = 1,
    ) -> None:
        self.per_second = per_second
        self.is_paused = False
        self.published = 0
        self.placed: list[tuple[Place, Payload]] = []
        self.poison: set[bytes] = set()
        self.poison_placed: dict[Place, bytes] = {}
        self.probes = [Probe(number) for number in range(PROBES)]
        self.ages: list[tuple[float, float]] = []  # (when looked, age of the oldest probe)
        self._deployment = deployment
        self._settings = deployment.settings.model_copy(update={"kafka_idempotent_producer": False})
        self._seed, self._poison_share, self._hot, self._crowds = seed, poison_share, hot, crowds
        self._began_us = time.time_ns() // 1000
        self._rng = random.Random(seed)
        self._records = self._hard_records()
        self._again: deque[RawRecord] = deque()
        self._unconfirmed: set[asyncio.Future[Any]] = set()
        self._partitions: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._ended = asyncio.Event()
        self._records_ready = await asyncio.to_thread(lambda: [next(self._records)])
        self._publishing = asyncio.create_task(self._publish())
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        try:
            if kind is None:
                await asyncio.wait_for(self._publishing, FLUSH_SECONDS)
        finally:
            for task in (self._publishing, self._watching):
                task.cancel()
            await asyncio.gather(self._publishing, self._watching, return_exceptions=True)

    # -- how fresh rows are ---------------------------------------------------------------------------------------

    def age(self) -> float:
        """Age of the oldest event of a probe that is not in its row yet, seconds."""
        now = time.monotonic()
        return max(probe.age(now) for probe in self.probes)

    def worst_age(self, since: float) -> float:
        return max((age for at, age in self.ages if at >= since), default=0.0)

    def fresh_after(self, since: float) -> float:
        """Seconds from `since` to the first look that found rows, for good, as fresh as ever; 0 if all did."""
        looks = [(at, age) for at, age in self.ages if at >= since]
        stale = [number for number, (_, age) in enumerate(looks) if age >= FRESH_SECONDS]
        return looks[min(stale[-1] + 1, len(looks) - 1)][0] - since if stale else 0.0

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                await self._look()
            self._note()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        url = self._deployment.database
        connect = psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=3, application_name="referee")
        async with await connect as connection:
            await connection.execute("SET statement_timeout = 2000")
            while True:
                cursor = await connection.execute(
                    "SELECT tutor_id, sessions_completed FROM tutor_performance_metrics"
                    """ WHERE tutor_id = ANY(%s) AND "window" = 'SEVEN_DAY'""",
                    [[probe.tutor_id for probe in self.probes]],
                )
                counted: dict[str, int] = dict(await cursor.fetchall())
                for probe in self.probes:
                    probe.counted = max(probe.counted, counted.get(probe.tutor_id, 0))
                self._note()
                await asyncio.sleep(LOOK_SECONDS)

    def _note(self) -> None:
        self.ages.append((time.monotonic(), self.age()))

    def forget(self, gaps: Mapping[tuple[str, int], range]) -> None:
        """Records in these offsets of (topic, partition) were lost before anybody read them: nothing follows of them."""

        def is_lost(place: Place) -> bool:
            return place[2] in gaps.get(place[:2], range(0))

        self.placed = [(place, payload) for place, payload in self.placed if not is_lost(place)]
        self.poison_placed = {place: value for place, value in self.poison_placed.items() if not is_lost(place)}
        for probe in self.probes:
            probe.forget(is_lost)
        for topic, payloads in self._deployment.payloads.items():
            payloads[:] = [payload for place, payload in self.placed if place[0] == topic]

    # -- publishing -----------------------------------------------------------------------------------------------

    def _hard_records(self) -> Iterator[RawRecord]:
        part = 0
        while True:
            part += 1
            more = corpus(
                self._seed * 1000 + part,
                PART_EVENTS,
                now_us=self._began_us,
                part=f"{part}-",
                poison_share=self._poison_share,
                hot=self._hot,
                first_tutor=part % self._crowds * TUTORS_OF_A_CROWD,
            )
            self.poison.update(more.poison)
            yield from more.records if part > self._crowds else self._with_early_profiles(more)

    def _with_early_profiles(self, first: Corpus) -> list[RawRecord]:
        """A load may end anywhere, and a session that has moved to a tutor whose profile is still to come stays with
        its former tutor: everybody's profile is among the first records."""
        profiles = [RawRecord("tutors", bare(payload)) for payload in first.payloads["tutors"]]
        early = [*profiles, *first.records[: 2 * len(profiles)]]
        self._rng.shuffle(early)
        return [*early, *first.records[2 * len(profiles) :]]

    async def _publish(self) -> None:
        """Until the end, and then until everything is acknowledged."""
        self._again.extend(
            RawRecord("tutors", bare(tutor_payload(probe.tutor_id, self._began_us - DAY_US))) for probe in self.probes
        )
        self._again.extend(self._records_ready)
        began = time.monotonic()
        due, next_probe, probe = 0.0, began, 0
        while not self._ended.is_set() or self._again or self._unconfirmed:
            try:
                async with kafka.producer(self._settings) as producer:
                    for topic in TOPICS:
                        found = await producer.partitions_for(self._deployment.topics.raw(topic))
                        self._partitions[topic] = len(found)
                    step_began = time.monotonic()
                    while not self._ended.is_set() or self._again or self._unconfirmed:
                        while self._again:
                            await self._send(producer, self._again[0])
                            self._again.popleft()
                        now = time.monotonic()
                        if not (self.is_paused or self._ended.is_set() or len(self._unconfirmed) > MOST_UNCONFIRMED):
                            due += (now - step_began) * self.per_second
                            while due >= 1:
                                due -= 1
                                self._again.append(next(self._records))
                            if now >= next_probe:
                                self._again.append(self.probes[probe % PROBES].next(time.time_ns() // 1000))
                                probe, next_probe = probe + 1, now + PROBE_SECONDS
                        step_began = now
                        await asyncio.sleep(STEP_SECONDS)
            except (KafkaError, kafka.KafkaAway, OSError):  # it is away: this producer has given up, the next one tries
                await asyncio.sleep(0.5)

    async def _send(self, producer: Any, record: RawRecord) -> None:
        partition = self._rng.randrange(self._partitions[record.topic])
        name = self._deployment.topics.raw(record.topic)
        future = await producer.send(name, record.value, partition=partition)
        self._unconfirmed.add(future)
        future.add_done_callback(lambda done: self._landed(record, done))

    def _landed(self, record: RawRecord, done: asyncio.Future[Any]) -> None:
        self._unconfirmed.discard(done)
        if done.cancelled() or done.exception() is not None:
            self._again.append(record)
            return
        self.published += 1
        sent = done.result()
        place = (record.topic, sent.partition, sent.offset)
        if record.value in self.poison:
            self.poison_placed[place] = record.value
            return
        payload = payload_of(record.value)
        self._deployment.payloads[record.topic].append(payload)
        self.placed.append((place, payload))
        if record.topic == "sessions" and payload["session_id"].startswith("probe-"):
            number = int(payload["session_id"].split("-")[1])
            self.probes[number].landed(place)
