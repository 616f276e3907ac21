"""Faults of local state and of the state in Kafka, of clocks and of versions."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import time
from pathlib import Path

from tests.faults.registry import fault
from tests.faults.run import HEAL_SECONDS, Run
from tests.flow.driver import eventually
from tests.flow.processes import Worker
from tutormax_streams import kafka
from tutormax_streams.batches.shelves import OPENING_SECONDS
from tutormax_streams.failures import FAILED
from tutormax_streams.rebuild import rebuild
from tutormax_streams.refused import CONFIGURATION, KAFKA, STATE

SHIFTED = Path(__file__).parent / "shifted"
NEXT_VERSION = Path(__file__).parent / "next_version"
CLOCK_SECONDS = 600
COLLIDED = "give every worker its own TUTORMAX_DATA_DIR"
SIDE_BY_SIDE_SECONDS = 20.0
NEXT_LAYOUT = b"\x02"  # of facts, as the next release writes them


@fault("disk-lost", 10, "a killed worker's local state is deleted", times=3, since="the last start")
async def disk_lost(run: Run) -> None:
    for _ in range(run.times):
        worker = run.rng.choice(run.workers)
        worker.kill()
        worker.forget()
        worker.start()
        run.is_over()
        await run.ready([worker])


@fault(
    "disk-damaged",
    10,
    "files of a killed worker's local state are truncated or overwritten; at last one byte of one, which RocksDB then "
    "never ends reading",
    times=6,
    short_times=2,
    since="the last start, or 3 s after an endless opening must have been given up",
    may_end_with={FAILED: "Timeout|the next start takes it from the changelog"},
)
async def disk_damaged(run: Run) -> None:
    damaged = 0
    for number in range(run.times):
        worker = run.rng.choice(run.workers)
        worker.kill()
        damaged += damage(worker.data, run.rng, truncate=number % 2 == 0)
        worker.start()
        run.is_over()
        await asyncio.sleep(3)
        await run.ready()
    run.notes["files damaged"] = damaged
    if not run.is_short:
        run.notes["endless openings"] = await endless_opening(run)


async def endless_opening(run: Run) -> int:
    """How many times until a worker opened it: partitions move, and who lost one leaves its files alone."""
    for attempt in range(1, 6):
        worker = run.rng.choice(run.workers)
        worker.kill()
        make_endless(max(worker.data.rglob("MANIFEST-*"), key=lambda path: path.stat().st_mtime))
        worker.start()
        await asyncio.sleep(OPENING_SECONDS + 3)
        run.is_over()
        await run.ready()
        if any("Timeout" in ending.reason and ending.code == 1 for ending in run.deployment.endings):
            return attempt
    raise AssertionError("no worker opened what RocksDB never ends reading")


def make_endless(manifest: Path) -> None:
    """The second record is of a kind that nobody writes; a record is a checksum of 4 bytes, a length, a kind, data."""
    content = bytearray(manifest.read_bytes())
    kind = 7 + int.from_bytes(content[4:6], "little") + 6
    assert content[kind] == 1, manifest
    content[kind] = 11
    manifest.write_bytes(content)


def damage(directory: Path, rng: random.Random, *, truncate: bool) -> int:
    """Half of the files, each somewhere: how many."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.stat().st_size > 8]
    chosen = [path for path in files if rng.random() < 0.5]
    for path in chosen:
        at = rng.randrange(path.stat().st_size)
        if truncate:
            os.truncate(path, at)
        else:
            with path.open("r+b") as file:
                file.seek(at)
                file.write(rng.randbytes(64))
    return len(chosen)


@fault("disks-swapped", 10, "two workers start with each other's local state", times=3, since="the last start")
async def disks_swapped(run: Run) -> None:
    for _ in range(run.times):
        one, two = run.rng.sample(run.workers, 2)
        one.kill()
        two.kill()
        aside = one.data.with_name("aside")
        one.data.rename(aside)
        two.data.rename(one.data)
        aside.rename(two.data)
        one.start()
        two.start()
        run.is_over()
        await run.ready()


@fault(
    "disk-shared",
    10,
    "two workers share one directory by mistake, while partitions move between them",
    since="the last start",
    may_end_with={CONFIGURATION: COLLIDED},
)
async def disk_shared(run: Run) -> None:
    """Each partition's copy is locked by who holds it; who finds it locked ends and says so. A frozen worker holds what
    others get after the session timeout."""
    one, two, three = run.workers
    two.kill()
    own = str(two.data)
    two.change(TUTORMAX_DATA_DIR=str(one.data))
    two.start()
    await run.ready()
    assert await one.stop() == 0  # those who began together name their directories after a beginning of their own
    one.start()
    await run.ready()
    await three.stop()
    await asyncio.sleep(15)  # its partitions go to the others
    three.start()
    await run.ready()
    one.freeze()
    await eventually(lambda: any(COLLIDED in ending.reason for ending in run.deployment.endings), HEAL_SECONDS)
    one.thaw()
    two.kill()
    two.change(TUTORMAX_DATA_DIR=own)
    two.start()
    run.is_over()
    await run.ready()
    run.notes["ended because of the other"] = sum(COLLIDED in e.reason for e in run.deployment.endings)


async def refused(run: Run, *words: str, code: int) -> None:
    """A start ends with a sentence."""
    ended, said = await asyncio.to_thread(run.deployment.refused)
    assert ended == code, (ended, said)
    for word in (*words, "tutormax-streams rebuild"):
        assert word in said, said


async def stop_all(run: Run) -> None:
    for worker in run.workers:
        assert await worker.stop() == 0


async def rebuilt(run: Run) -> None:
    run.is_over()
    await rebuild(run.deployment.settings, lambda progress: None)
    for worker in run.workers:
        worker.forget()
        worker.start()
    await run.ready()


@fault(
    "changelog-lost",
    10,
    "a changelog is deleted, and then the other one: starts are refused, `rebuild` is the way out",
    times=2,
    within=90.0,
    since="the beginning of `rebuild`",
)
async def changelog_lost(run: Run) -> None:
    for name in run.rng.sample(run.deployment.topics.changelogs, run.times):
        await stop_all(run)
        async with kafka.admin_client(run.deployment.settings) as admin:
            await admin.delete_topics([name])
        await asyncio.sleep(3)
        await refused(run, name, code=STATE)
        await rebuilt(run)


@fault(
    "partitions-changed",
    10,
    "another KAFKA_PARTITIONS: starts are refused, `rebuild` is the way out",
    within=90.0,
    since="the beginning of `rebuild`",
)
async def partitions_changed(run: Run) -> None:
    await stop_all(run)
    run.deployment.change_partitions(8)
    await refused(run, "KAFKA_PARTITIONS is 8", code=KAFKA)
    for worker in run.workers:
        worker.change(KAFKA_PARTITIONS="8")
    await rebuilt(run)


def path_with(directory: Path) -> str:
    """PYTHONPATH of a worker with one of our `sitecustomize` modules."""
    return os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])


@fault("clock", 11, "a worker's clock is ten minutes off, ahead and then behind", times=2, since="the last start")
async def clock(run: Run) -> None:
    for number in range(run.times):
        worker = run.rng.choice(run.workers)
        assert await worker.stop() == 0
        shift = CLOCK_SECONDS if number % 2 == 0 else -CLOCK_SECONDS
        worker.start(PYTHONPATH=path_with(SHIFTED), SHIFT=str(shift))
        report = await worker.until(lambda told: "clock differs" in str(told), 60)
        assert not report["ready"]
        await asyncio.sleep(10)
        assert await worker.stop() == 0
        worker.start()
        run.is_over()
        await run.ready([worker])


def copied(worker: Worker, to: Path) -> None:
    """A worker's local state, as a backup would have it."""
    shutil.copytree(worker.data, to)


@fault("disk-restored", 10, "a worker starts with an old copy of its local state", times=2, since="the last start")
async def disk_restored(run: Run) -> None:
    for number in range(run.times):
        worker = run.rng.choice(run.workers)
        aside = worker.data.with_name(f"old-{number}")
        assert await worker.stop() == 0
        copied(worker, aside)
        worker.start()
        await run.ready([worker])
        await asyncio.sleep(10)
        worker.kill()
        worker.forget()
        aside.rename(worker.data)
        worker.start()
        run.is_over()
        await run.ready([worker])


@fault(
    "versions", 14, "a rolling upgrade to a release with another layout of facts, and back by `rebuild`", within=90.0,
    since="the beginning of `rebuild`", may_end_with={CONFIGURATION: "written by a later release"},
)  # fmt: skip
async def versions(run: Run) -> None:
    """While both run, the old ones end at the first record or value of a table that they cannot read, and say so; nothing
    is misread or passed over."""
    for worker in run.workers:
        assert run.metric("foreign_records") == 0
        await worker.stop()
        worker.change(PYTHONPATH=path_with(NEXT_VERSION), NEXT_TABLES="next")
        worker.start()
        await run.ready([worker])  # on a busy machine it takes longer to come than the others to go
        await asyncio.sleep(8)
    await run.ready()
    assert run.metric("foreign_records") == 0
    ended = [ending for ending in run.deployment.endings if "later release" in ending.reason]
    run.notes["old workers that ended beside new ones"] = len(ended)
    run.notes["of these over a value of a table"] = sum("a value of a table" in ending.reason for ending in ended)
    assert ended, "no old worker met a record of the later release"
    await stop_all(run)
    for worker in run.workers:
        worker.change(PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    await rebuilt(run)


@fault(
    "versions-stepwise", 14, "a rolling upgrade to another layout of facts by a release that reads both, and back; old and "
    "new side by side at each step", since="the last start", most_age=60.0,
)  # fmt: skip
async def versions_stepwise(run: Run) -> None:
    """Nobody ends by itself, nothing is rebuilt. At each step one worker of the new release works beside two of the old
    for a while, all with partitions of their own, before these follow."""
    old = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "NEXT_WRITES": ""}
    reads_both = {"PYTHONPATH": path_with(NEXT_VERSION), "NEXT_WRITES": "old"}
    writes_next = {"PYTHONPATH": path_with(NEXT_VERSION), "NEXT_WRITES": ""}
    for release in (reads_both, writes_next, reads_both, old):
        first, *rest = run.workers
        before = release_of(first)
        await released(run, first, release)
        run.notes[f"{release_of(first)} beside {before} (s)"] = round(await side_by_side(run))
        for worker in rest:
            await released(run, worker, release)
        run.workers.append(run.workers.pop(0))  # another one is the first to change
    layouts = [r.value[:1] == NEXT_LAYOUT for r in await run.deployment.read(run.deployment.topics.facts) if r.value]
    run.notes["records of facts in the old layout"] = layouts.count(False)
    run.notes["records of facts in the new layout"] = layouts.count(True)
    assert any(layouts), "the next release wrote nothing in its layout"
    assert run.metric("foreign_records") == 0
    assert not run.deployment.endings, run.deployment.endings


async def released(run: Run, worker: Worker, release: dict[str, str]) -> None:
    assert await worker.stop() == 0
    worker.change(**release)
    run.is_over()
    worker.start()
    await run.ready([worker])


def release_of(worker: Worker) -> str:
    """As /version says; "" while it does not answer."""
    return str(json.loads(worker.get("/version") or b"{}").get("tutormax-streams", ""))


async def side_by_side(run: Run) -> float:
    """Wait until workers of two releases, each ready and with partitions to read, have worked for a while without a
    break: for how many seconds."""

    def works(worker: Worker) -> bool:
        report = worker.health() or {"ready": False}
        return bool(report["ready"]) and worker.metric("owned_partitions") > 0

    def is_so() -> bool:
        return len({release_of(worker) for worker in run.workers} - {""}) == 2 and all(map(works, run.workers))

    until, since = time.monotonic() + HEAL_SECONDS, None
    while since is None or time.monotonic() - since < SIDE_BY_SIDE_SECONDS:
        assert time.monotonic() < until, f"not side by side: {[(release_of(w), w.health()) for w in run.workers]}"
        asked = time.monotonic()
        since = (since or asked) if await asyncio.to_thread(is_so) else None
        await asyncio.sleep(0.5)
    return time.monotonic() - since
