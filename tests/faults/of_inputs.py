"""Faults of what comes in: poison, rubbish, one tutor above all, silence, backlogs, and records that were gone too soon."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from models import wire
from models.fates import LATER_REASONS
from tests.corpus import corpus
from tests.faults.registry import fault
from tests.faults.run import Run
from tests.flow.driver import eventually
from tests.flow.judge import Position
from tests.flow.processes import Worker, command, environment
from tests.oracle import payload_of
from tests.samples import TOPICS, bare, enveloped
from tutormax_streams import kafka
from tutormax_streams.topics import RAW

RUBBISH = b"{'not': 'json'}"
BREAKER = {"TUTORMAX_BREAKER_WINDOW": "200", "TUTORMAX_BREAKER_COOLDOWN_SECONDS": "1"}
OPEN = "breaker of topic tutor-events is open"
AUDITS = 5
FLOOD = 2_000  # records, and then their confirmations
PROGRESS = re.compile(r"backlog: ([\d,]+) records to go, [\d,]+ fewer every second, about (\d[\d.]* (?:s|min|h)) left")
NO_BREAKER = {"TUTORMAX_BREAKER_BAD_PCT": "100"}


@fault("poison", 9, "1 % of all records are poison", poison_share=0.01)
async def poison(run: Run) -> None:
    await asyncio.sleep(20)


@fault(
    "poison-all", 9, "a topic of nothing but rubbish: the breaker opens, says so, and closes when it is mended",
    short_times=1, settings=BREAKER,
)  # fmt: skip
async def poison_all(run: Run) -> None:
    """The load's own tutor events are held up with the rubbish before them, and come after it."""
    run.load.poison.add(RUBBISH)
    name = run.deployment.topics.raw("tutor-events")
    async with run.deployment.producer() as producer:
        partitions = sorted(await producer.partitions_for(name))
        began, sent = time.monotonic(), 0
        while not any(says_that_it_is_open(worker) for worker in run.running):
            assert time.monotonic() - began < 60, "the breaker did not open"
            if sent < FLOOD:  # more would only be a longer way back
                for number in range(200):
                    await producer.send(name, RUBBISH, partition=partitions[number % len(partitions)])
                await producer.flush()
                sent += 200
            await asyncio.sleep(0.3)
    run.notes["open after (s)"] = round(time.monotonic() - began, 1)
    began = time.monotonic()
    await eventually(lambda: all(map(says_that_it_is_closed, run.workers)), 120, every=0.5)
    run.notes["closed after (s)"] = round(time.monotonic() - began, 1)


def says_that_it_is_open(worker: Worker) -> bool:
    return OPEN in str(worker.health()) and worker.metric("breaker_open", topic="tutor-events") == 1


def says_that_it_is_closed(worker: Worker) -> bool:
    """A worker that does not answer says nothing."""
    report = worker.health()
    return report is not None and OPEN not in str(report) and worker.metric("breaker_open", topic="tutor-events") == 0


@fault("hot-tutor", 12, "one tutor is half of all traffic", hot=0.7, short_times=0, per_second=200.0)
async def hot_tutor(run: Run) -> None:
    """`hot` is a share of sessions and their ratings; other events are everybody's. Of the probes one lies on the hot
    tutor's partition."""
    await asyncio.sleep(60)
    ((_, most),) = Counter(payload["tutor_id"] for _, payload in run.load.placed).most_common(1)
    share = most / len(run.load.placed)
    run.notes["events of the hot tutor (%)"] = round(share * 100, 1)
    assert share >= 0.5, f"the hot tutor has {share:.0%} of all events"


@fault("idle", 15, "nothing comes for ten minutes, then load")
async def idle(run: Run) -> None:
    run.load.is_paused = True
    await asyncio.sleep(600)
    run.load.is_paused = False
    await asyncio.sleep(20)


@fault(
    "retention",
    17,
    "all workers are down while Kafka forgets records that nobody has read",
    since="when they start again",
)
async def retention(run: Run) -> None:
    for worker in run.workers:
        assert await worker.stop() == 0
    await asyncio.sleep(10)
    settings, names = run.deployment.settings, {run.deployment.topics.raw(name): name for name in RAW}
    committed = await kafka.committed_offsets(settings, settings.stream_group)
    ends = await kafka.log_ends(settings, names)
    kept = {tp: max(first, end - 5) for tp, (first, end) in ends.items() if end - 5 > first}
    async with kafka.admin_client(settings) as admin:
        await admin.delete_records({tp: RecordsToDelete(before_offset=offset) for tp, offset in kept.items()})
    gaps = {
        (names[tp.topic], tp.partition): range(committed.get(TopicPartition(tp.topic, tp.partition), 0), offset)
        for tp, offset in kept.items()
    }
    forgotten = sum(map(len, gaps.values()))
    assert forgotten > 50, "too few records were waiting"
    run.load.forget(gaps)
    for worker in run.workers:
        worker.start()
    run.is_over()
    await run.ready()
    await eventually(lambda: run.metric("gap_records") >= forgotten, 60, every=0.5)
    counted = run.metric("gap_records")
    run.notes |= {"records forgotten by Kafka": forgotten, "counted as a gap": counted}
    assert counted == forgotten
    said = [worker for worker in run.workers if "are not in the log any more" in worker.log.read_text()]
    assert said, "no worker said that records were gone"


# -- a flood of rubbish -------------------------------------------------------------------------------------------------


def garbage(rng: random.Random, depth: int = 0) -> Any:
    """Some JSON value."""
    kind = rng.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [garbage(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {rng.choice(FIELDS): garbage(rng, depth + 1) for _ in range(rng.randrange(6))}
    return (None, True, rng.randrange(-(10**6), 10**20), rng.random(), "", "x" * rng.randrange(200), "2026-01-01")[kind]


FIELDS = ("tutor_id", "session_id", "updated_at", "data", "checksum", "metadata", "event_type", "é", "\0", "x" * 300)


def fuzzed(rng: random.Random, valid: list[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Mutations of valid records, random bytes, structured garbage; for ever."""
    while True:
        topic, value = rng.choice(valid)
        kind = rng.randrange(10)
        if kind == 0:
            yield topic, rng.randbytes(rng.randrange(400))
        elif kind == 1:
            yield topic, json.dumps(garbage(rng)).encode()
        elif kind < 5:
            mutable = bytearray(value)
            for _ in range(rng.randrange(1, 5)):
                mutable[rng.randrange(len(mutable))] = rng.randrange(256)
            yield topic, bytes(mutable)
        elif kind < 7:
            at, length = rng.randrange(len(value)), rng.randrange(1, 40)
            yield topic, value[:at] + value[at + length :]
        else:
            document = json.loads(value)
            document[rng.choice([*document, *FIELDS[:4]])] = garbage(rng)
            yield topic, json.dumps(document).encode()


def renamed(value: bytes, rng: random.Random) -> bytes:
    """A valid record about tutors of its own, in an envelope where it came in one."""
    payload = payload_of(value)
    own = bare(payload).replace(b'"tutor_0', b'"fuzzd_0')
    return own if payload == json.loads(value) else enveloped(json.loads(own), rng)


@fault(
    "fuzz", 9, "a million fuzzed records: each is accepted or dead-lettered, and nobody crashes", times=1_000_000,
    short_times=5_000, settings=NO_BREAKER, within=900.0, since="the last fuzzed record",
)  # fmt: skip
async def fuzz(run: Run) -> None:
    """What fuzzed records mean the oracle cannot know, so their entities are named apart from the load's."""
    history = corpus(run.seed, 2_000, now_us=time.time_ns() // 1000, part="fuzz-")
    bad = set(history.poison)
    valid = [(topic, renamed(value, run.rng)) for topic, value in history.records if value not in bad]
    records = fuzzed(run.rng, valid)
    names = {topic: run.deployment.topics.raw(topic) for topic in TOPICS}
    produced: set[Position] = set()
    async with run.deployment.producer() as producer:
        partitions = {topic: sorted(await producer.partitions_for(name)) for topic, name in names.items()}
        for begin in range(0, run.times, FLOOD):
            sent = []
            for number in range(begin, min(begin + FLOOD, run.times)):
                topic, value = next(records)
                partition = partitions[topic][number % len(partitions[topic])]
                sent.append((topic, await producer.send(names[topic], value, partition=partition)))
            places = [(topic, await future) for topic, future in sent]
            produced |= {(topic, place.partition, place.offset) for topic, place in places}
    run.is_over()
    run.load.is_paused = True
    await run.deployment.quiet(900)
    run.load.is_paused = False
    reasons = await letter_reasons(run)
    letters = produced & reasons.keys()
    validated = produced & await accepted_places(run)
    accepted = validated - letters
    both = {place: reasons[place] for place in validated & letters if reasons[place] not in LATER_REASONS}
    assert not both, f"sent on, and refused as well: {sorted(both.items())[:5]}"
    run.notes |= {
        "produced": f"{len(produced):,}",
        "accepted": f"{len(accepted):,}",
        "dead letters": f"{len(letters):,}",
        "of these refused by PostgreSQL": f"{len(validated & letters):,}",
    }
    assert produced == accepted | letters, f"no fate: {sorted(produced - accepted - letters)[:5]}"
    assert not run.deployment.endings, run.deployment.endings
    run.expect_strangers(produced)
    environ = environment(run.deployment.given)
    for _ in range(AUDITS):  # the load goes on: rows of sessions may be seconds behind rows of metrics
        audit = await asyncio.to_thread(subprocess.run, command("audit"), env=environ, capture_output=True, text=True)
        if audit.returncode == 0:
            break
    assert audit.returncode == 0, audit.stdout[-2000:] + audit.stderr[-2000:]


async def letter_reasons(run: Run) -> dict[Position, str]:
    """By the place that a dead letter is of."""
    headers = [
        {name: value.decode() for name, value in letter.headers}
        for letter in await run.deployment.read(run.deployment.topics.dead_letter)
    ]
    return {(it["topic"], int(it["partition"]), int(it["offset"])): it["reason"] for it in headers}


async def accepted_places(run: Run) -> set[Position]:
    """Where events on topic `validated` came from."""
    found = set()
    for record in await run.deployment.read(run.deployment.topics.validated):
        if record.value is not None:
            entry = wire.unpack_validated(record.value)
            if not isinstance(entry, wire.HistoryEnd):
                found |= {(e.origin.topic, e.origin.partition, e.origin.offset) for e in entry.events}
    return found


# -- a backlog ----------------------------------------------------------------------------------------------------------


@fault(
    "backlog",
    13,
    "two million events wait at the start",
    times=2_000_000,
    is_huge=True,
    within=1800.0,
    since="when they start",
)
async def backlog(run: Run) -> None:
    """Of 100,000 events, each many times: memory stays flat while they are worked off."""
    for worker in run.workers:
        assert await worker.stop() == 0
    history = corpus(run.seed, 100_000, now_us=time.time_ns() // 1000, part="backlog-", poison_share=0)
    for topic, payloads in history.payloads.items():
        run.deployment.payloads[topic] += payloads
    for _ in range(max(1, run.times // len(history.records))):
        await run.deployment.publish(history.records)
    waiting = await run.deployment.lag()
    began = time.monotonic()
    run.is_over()
    for worker in run.workers:
        worker.start()
    highest: list[float] = []
    lags: list[float] = []
    while (lag := await run.deployment.lag()) > 2_000:
        sizes = [psutil.Process(worker.process.pid).memory_info().rss / 2**20 for worker in run.running]
        highest.append(max(sizes, default=0.0))
        lags.append(lag)
        await asyncio.sleep(5)
    seconds = time.monotonic() - began
    half = len(highest) // 2
    run.notes |= {
        "waiting at the start": waiting,
        "events a second": round(waiting / seconds),
        "peak RSS, first half (MiB)": round(max(highest[:half], default=0)),
        "peak RSS, second half (MiB)": round(max(highest[half:], default=0)),
    }
    said = {worker.name: PROGRESS.findall(worker.log.read_text()) for worker in run.workers}
    run.notes["times that progress was told, with the time left"] = sum(map(len, said.values()))
    for name, told in said.items():
        assert len(told) > 1, f"{name} did not tell its progress: {told}"
        remaining = [int(records.replace(",", "")) for records, _ in told]
        assert remaining[-1] < remaining[0], f"{name} told of {remaining}"
    run.notes["as told"] = " -> ".join(f"{records}, {left} left" for records, left in said[run.workers[0].name])
    assert max(highest[half:], default=0) < 1.2 * max(highest[:half], default=1) + 20, "memory grew with the backlog"


@fault(
    "soak",
    18,
    "an hour at 500 events a second, all at one worker: memory does not grow",
    times=3600,
    workers=1,
    per_second=500.0,
    crowds=60,
    is_huge=True,
    is_apart=True,
)
async def soak(run: Run) -> None:
    """The slope of each worker's RSS after a warm-up of a tenth of the time. Before it a history fills what workers
    keep in memory up to a bound."""
    now_us, events = time.time_ns() // 1000, min(500_000, 150 * run.times)
    history = corpus(run.seed, events, now_us=now_us, part="soak-", poison_share=0, first_tutor=90_000)
    for topic, payloads in history.payloads.items():
        run.deployment.payloads[topic] += payloads
    await run.deployment.publish(history.records)
    while await run.deployment.lag() > 2_000:  # noqa: ASYNC110 - only Kafka knows
        await asyncio.sleep(1)
    began, published, began_as = time.monotonic(), run.load.published, [worker.process.pid for worker in run.workers]
    seen: dict[str, list[tuple[float, float]]] = {worker.name: [] for worker in run.workers}
    while (elapsed := time.monotonic() - began) < run.times:
        for worker in run.running:
            if elapsed > run.times / 10:
                size = psutil.Process(worker.process.pid).memory_info().rss
                seen[worker.name].append((elapsed / 3600, size / 2**20))
        await asyncio.sleep(5)
    least = 0.95 * run.load.per_second * (time.monotonic() - began)
    assert run.load.published - published >= least, f"{run.load.published - published} events, {least:.0f} were due"
    assert [worker.process.pid for worker in run.workers] == began_as, run.deployment.endings
    slopes = {name: slope_of(points) / (points[0][1] or 1) * 100 for name, points in seen.items()}
    for name, slope in slopes.items():
        run.notes[f"{name}: RSS slope (%/h)"] = round(slope, 2)
        run.notes[f"{name}: RSS at the end (MiB)"] = round(seen[name][-1][1])
    worst = max(slopes.values())
    assert worst < 1 or run.times < 3600, f"a worker grows by {worst:.1f} % an hour"


def slope_of(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
