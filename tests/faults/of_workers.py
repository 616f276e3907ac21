"""Faults of worker processes: killed, stopped, scaled, frozen, and crashed at exact points."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from aiokafka import ConsumerRecord
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.faults.registry import fault
from tests.faults.run import HEAL_SECONDS, Run
from tests.faults.zombie_changelogs import EAGER, MARKER
from tests.flow.driver import eventually
from tests.flow.processes import Worker
from tutormax_streams import kafka
from tutormax_streams.batches.crashpoints import POINTS
from tutormax_streams.batches.table import WRITER_BYTES
from tutormax_streams.watchdog import STOOD_STILL

SESSION_TIMEOUT_SECONDS = 10
READY_SECONDS = 20.0  # that a worker may be ready without coming to its point
REACH_SECONDS = 60.0  # altogether, for it starts beside others that crash too
COMPACTION_SECONDS = 30.0  # for the broker, once segments were closed by what came after them
WEDGED_SECONDS = 180.0  # a start, the watchdog's patience, an orderly end
TIMES_FOR_ALL = 5  # so often a point is tried before never coming to it is a fault of the campaign

Place = tuple[str, int, int]  # topic, partition, offset


@fault(
    "kill9", 1, "SIGKILL of a random worker every 0.1 to 10 s", times=100, short_times=3, since="the last start",
    raw_partitions={"tutors": 7, "sessions": 1},
)  # fmt: skip
async def kill_workers(run: Run) -> None:
    longest = 10.0 if run.times > 10 else 3.0
    for _ in range(run.times):
        await asyncio.sleep(run.rng.uniform(0.1, longest))
        worker = run.rng.choice(run.workers)
        worker.kill()
        worker.start()


@fault(
    "kill9-one", 1, "SIGKILL of one of three workers, which does not come back", times=3, within=30.0, most_age=30.0,
    since="each SIGKILL",
)  # fmt: skip
async def kill_one(run: Run) -> None:
    """The next one is killed when rows have been fresh for longer than a session lasts, and all three work."""
    seconds = []
    for number in range(run.times):
        worker = run.rng.choice(run.workers)
        run.is_over()
        blow = time.monotonic()
        worker.kill()
        seconds.append(f"{await run.healed(blow):.1f}")
        if number + 1 < run.times:
            worker.start()
            await run.ready([worker])
    run.notes["fresh again after each SIGKILL (s)"] = ", ".join(seconds)


@fault(
    "sigterm", 2, "SIGTERM to one worker after the other, each started again", times=3, short_times=1, most_age=60.0,
    since="the last SIGTERM",
)  # fmt: skip
async def restart_rolling(run: Run) -> None:
    for _ in range(run.times):
        for worker in run.workers:
            run.is_over()
            code = await worker.stop()
            assert code == 0, f"{worker.name} ended with {code} after SIGTERM"
            worker.start()
            await run.ready([worker])


@fault("scale", 3, "scale from 1 to 4 to 2 to 3 workers", workers=4, start=1, since="the last start")
async def scale(run: Run) -> None:
    first, *others = run.workers
    everything = first.metric("owned_partitions")
    for worker in others:
        worker.start()
    await run.ready()
    await eventually(lambda: all(0 < it.metric("owned_partitions") < everything for it in run.workers), HEAL_SECONDS)
    for worker in (first, others[0]):
        assert await worker.stop() == 0
    await eventually(lambda: run.metric("owned_partitions") == everything > 0, HEAL_SECONDS)
    first.start()
    run.is_over()
    await run.ready()


@fault(
    "freeze", 4, "SIGSTOP past the session timeout, then SIGCONT; changelogs compacted all the while", times=8,
    short_times=1, proxied=True, since="the last SIGCONT",
)  # fmt: skip
async def freeze(run: Run) -> None:
    """The way to PostgreSQL is slow, so that a worker is often frozen in the middle of a transaction. It wakes when all
    that was overwritten in changelogs by then is gone from them. What it writes to them late is compacted too, before
    all local state is deleted."""
    gone, refused = 0, 0.0
    late: set[Place] = set()
    async with kafka.admin_client(run.deployment.settings) as admin:
        logs = run.deployment.topics.changelogs
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=EAGER) for name in logs])
    for _ in range(run.times):
        number = run.rng.randrange(len(run.workers))
        zombie, doors = run.workers[number], run.doors[number]
        doors.postgres.slow(0.2)
        await asyncio.sleep(run.rng.uniform(2, 4))
        refused_before = zombie.metric("fenced")
        zombie.freeze()
        frozen = await changelogs(run)
        await asyncio.sleep(SESSION_TIMEOUT_SECONDS + run.rng.uniform(1, 6))
        gone += await compacted_away(run, superseded(frozen))
        zombie.thaw()
        run.is_over()
        await asyncio.sleep(3)
        doors.postgres.mend()
        late |= late_records(frozen, await changelogs(run))
        await run.ready()
        refused += zombie.metric("fenced") - refused_before
    gone += await compacted_away(run, superseded(await changelogs(run)))
    run.notes["changelog records compacted away"] = gone
    run.notes["late rows of zombies refused"] = refused
    run.notes["late changelog records of zombies"] = len(late)
    assert gone, "the broker never compacted anything"
    assert run.is_short or (refused and late), "no zombie ever had a late row or changelog record: nothing was shown"


async def changelogs(run: Run) -> list[ConsumerRecord]:
    """What can be read of them, but for marks."""
    logs = [await run.deployment.read(topic) for topic in run.deployment.topics.changelogs]
    return [record for log in logs for record in log if record.key != MARKER]


def superseded(records: list[ConsumerRecord]) -> set[Place]:
    """What can be read although a later record has the same key: what compaction takes away."""
    newest = {(record.topic, record.partition, record.key): record.offset for record in records}
    return {place_of(r) for r in records if r.offset != newest[r.topic, r.partition, r.key]}


def late_records(frozen: list[ConsumerRecord], thawed: list[ConsumerRecord]) -> set[Place]:
    """Records of a writer that was known when a worker was frozen, behind one of a writer who came after that: written
    by the frozen one when it woke. Deletions are none: a successor makes them in its predecessors' names."""

    def writer_of(record: ConsumerRecord) -> tuple[str, int, bytes]:
        return record.topic, record.partition, record.key[-WRITER_BYTES:]

    known = {writer_of(record) for record in frozen}
    taken_over: set[tuple[str, int]] = set()
    late = set()
    for record in thawed:
        if record.value is None:
            continue
        if writer_of(record) not in known:
            taken_over.add((record.topic, record.partition))
        elif (record.topic, record.partition) in taken_over:
            late.add(place_of(record))
    return late


def place_of(record: ConsumerRecord) -> Place:
    return record.topic, record.partition, record.offset


async def compacted_away(run: Run, places: set[Place]) -> int:
    """Wait until none of it can be read any more: how many records it was. The broker leaves alone the segment that it
    writes to, so a mark goes behind all of them."""
    until = time.monotonic() + COMPACTION_SECONDS
    while True:
        async with run.deployment.producer() as producer:
            for topic in run.deployment.topics.changelogs:
                for partition in await producer.partitions_for(topic):
                    await producer.send_and_wait(topic, b"1", key=MARKER, partition=partition)
        still = places & {place_of(record) for record in await changelogs(run)}
        if not still:
            return len(places)
        assert time.monotonic() < until, f"{len(still)} overwritten records were not compacted away: {min(still)}"
        await asyncio.sleep(0.5)


@fault(
    "wedged", 0, "one step of a worker hangs, and then one blocks its event loop: it says where and ends after 60 s", times=2,
    since="its end", may_end_with={STOOD_STILL: "StoodStill"},
)  # fmt: skip
async def wedged(run: Run) -> None:
    for how, worker in zip(("stall", "block"), run.rng.sample(run.workers, run.times), strict=True):
        assert await worker.stop() == 0
        began = time.monotonic()
        worker.start(TUTORMAX_CRASH_POINT=f"hop sent:2:0:{how}")
        await eventually(lambda name=worker.name: name in {it.worker for it in run.deployment.endings}, WEDGED_SECONDS)
        run.is_over()
        run.notes[f"{how}: ended after (s)"] = round(time.monotonic() - began, 1)
        said = worker.log.read_text(errors="replace")
        assert "standing still" in said
        assert "crashpoints.py" in said, "the log does not show where it stood"
        await run.ready()


@fault(
    "crash-points", 8, "crashes at exact points between two steps", times=200, short_times=10, poison_share=0.05,
    since="the last start",
)  # fmt: skip
async def crash_at_points(run: Run) -> None:
    """Each worker crashes again and again, at a random point at a random time."""
    hit: dict[str, int] = {}
    most = 3 if run.is_short else 15

    async def crash(worker: Worker, pairs: list[tuple[str, int, int]]) -> None:
        worker.expects_to_crash = True
        spare = len(pairs) // 4
        while pairs:
            point, occurrence, milliseconds = pairs.pop()
            worker.kill()
            if point == "recovering":
                worker.forget()
            worker.start(TUTORMAX_CRASH_POINT=f"{point}:{occurrence}:{milliseconds}")
            code = await ending(worker, REACH_SECONDS)
            if code == -signal.SIGKILL:
                hit[point] = hit.get(point, 0) + 1
            elif code is not None:
                worker.unseen.append((code, worker.last_reason()))
            if code != -signal.SIGKILL and spare:
                spare -= 1
                pairs.append(pair(run.rng, run.rng.randrange(len(POINTS)), most))
        worker.expects_to_crash = False
        worker.start()

    pairs = [pair(run.rng, number, most) for number in range(run.times)]
    await asyncio.gather(*(crash(worker, pairs[at :: len(run.workers)]) for at, worker in enumerate(run.workers)))
    run.is_over()
    await run.ready()
    unreached = set(POINTS) - set(hit)
    assert run.times < TIMES_FOR_ALL * len(POINTS) or not unreached, (
        f"nobody ever came to {', '.join(sorted(unreached))}"
    )
    reached = run.notes["crashed at a point"] = sum(hit.values())
    assert reached >= (run.times * (0.9 if run.is_short else 0.95)), f"only {reached} of {run.times}: {hit}"
    run.notes |= {f"at '{point}'": count for point, count in hit.items()}


def pair(rng: random.Random, number: int, most: int) -> tuple[str, int, int]:
    """(point, occurrence, milliseconds until the crash): each point in its turn, at its `most`th time at the latest."""
    point = POINTS[number % len(POINTS)]
    rare = point in ("recovering", "rebalancing", "letter sent", "alerts not told")
    return point, rng.randrange(1, 3 if rare else most), rng.choice((0, 0, 10, 60))


async def ending(worker: Worker, seconds: float) -> int | None:
    """The code it ended with by itself within `seconds`, `READY_SECONDS` of them ready; it does not run any more."""
    now = time.monotonic()
    last, is_ready = now + seconds, False
    while worker.running and now < last:
        if not is_ready:
            report = await asyncio.to_thread(worker.health)
            if is_ready := report is not None and report["ready"]:
                last = min(last, now + READY_SECONDS)
        await asyncio.sleep(0.1)
        now = time.monotonic()
    if not worker.running:
        return worker.process.wait()
    worker.kill()
    return None
