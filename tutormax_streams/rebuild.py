"""Rebuild: begin a new epoch and load the state of all tables from PostgreSQL, through the same flow as live events.

1. It runs while no worker does, and can be interrupted at any point and run again: it goes on where it was.
2. Preparing: topics that hold the old epoch's state are made anew, raw topics will be read from their beginning.
   What had been accepted but not yet written to PostgreSQL is still in them, and convergence makes repeats harmless.
3. Loading: rows that can still matter to a window become events with origin `database` on topic `validated`, and each
   of its partitions ends with a mark. Until the marks of all have reached a worker, it publishes no figure.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from models import wire
from models.events import Event, Origin, Validated
from models.facts import RETENTION_US
from models.versions import digest
from tutormax_streams import epoch as epochs
from tutormax_streams import kafka, topics
from tutormax_streams.batches import Partitioner
from tutormax_streams.epoch import Epoch
from tutormax_streams.postgres import schema
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.errors import SinkUnavailable
from tutormax_streams.postgres.loads import Loader
from tutormax_streams.settings import Settings
from tutormax_streams.startup import KAFKA, POSTGRES, STATE, Refused
from tutormax_streams.topics import RAW, Topics

KINDS = ("tutor", "session", "feedback", "tutor_event", "parked")
PAGE_ROWS = 2_000
DELETION_SECONDS = 60.0
MEMBERS_LEAVE_SECONDS = 20.0  # a killed worker is a member until its session times out


@dataclass(slots=True)
class Progress:
    """How far a rebuild is."""

    epoch: int
    step: str = "preparing"
    total_rows: int = 0
    loaded_rows: int = 0
    unreadable: list[tuple[str, str, str]] = field(default_factory=list)  # kind, key, what is wrong with the row
    started: float = field(default_factory=time.monotonic)

    @property
    def remaining_seconds(self) -> float | None:
        """Estimate from the pace so far, or None before there is one."""
        elapsed = time.monotonic() - self.started
        if not self.loaded_rows or elapsed < 1:
            return None
        return elapsed / self.loaded_rows * max(0, self.total_rows - self.loaded_rows)


async def rebuild(settings: Settings, report: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Load the state from PostgreSQL, or go on loading it. Raises `startup.Refused` with what stands in the way."""
    try:
        async with Database(settings.conninfo, size=2) as database:
            if problems := await database.run(schema.check):
                raise Refused(f"PostgreSQL is not ready. {' '.join(problems)}", POSTGRES)
            return await _rebuild(settings, Loader(database), report)
    except SinkUnavailable as exc:
        raise Refused(
            f"PostgreSQL cannot be reached: {exc}. Check TUTORMAX_DATABASE_URL or POSTGRES_*; "
            "run rebuild again, it goes on where it was",
            POSTGRES,
        ) from exc
    except (kafka.KafkaAway, topics.TopicsWrong) as exc:
        raise Refused(str(exc), KAFKA) from exc


async def _rebuild(settings: Settings, loader: Loader, report: Callable[[Progress], None]) -> Progress:
    names = Topics.of(settings)
    async with kafka.admin_client(settings) as admin:
        await _refuse_running_workers(admin, settings)
        plans = {plan.name: plan for plan in names.plans(settings.kafka_partitions)}
        existing = set(await admin.list_topics())
        kept = [plan for name, plan in plans.items() if name not in names.rebuilt and name not in existing]
        await topics.create(admin, settings, kept)
        await topics.widen(admin, [plan for plan in plans.values() if plan.more_is_fine])
        epoch = await _begin(settings, loader)
        progress = Progress(epoch.number)
        report(progress)
        async with kafka.producer(settings) as producer:
            if epoch.state == "preparing":
                await _renew(admin, settings, [plans[name] for name in names.rebuilt])
                await epochs.mark_topics(settings, producer, epoch)
                await _rewind(settings)
                epoch = msgspec.structs.replace(epoch, state="loading")
                await epochs.write(settings, producer, epoch)
            await _load(settings, loader, producer, epoch, progress, report)
    return progress


async def _refuse_running_workers(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    deadline = time.monotonic() + MEMBERS_LEAVE_SECONDS
    while True:
        groups = (settings.stream_group, settings.sink_group)
        busy = [group for group in groups if await kafka.group_has_members(admin, group)]
        if not busy:
            return
        if time.monotonic() > deadline:
            raise Refused(f"workers of {', '.join(busy)} are still running: stop all of them first", STATE)
        await asyncio.sleep(1.0)


async def _begin(settings: Settings, loader: Loader) -> Epoch:
    """The epoch to work on: an interrupted one, or a new one, already written down."""
    found = await epochs.read(settings)
    if found is not None and found.state != "complete" and found.partitions == settings.kafka_partitions:
        return found
    last = max([fence.epoch for fence in await loader.fences()], default=0)
    number = max(last, found.number if found is not None else 0) + 1
    epoch = Epoch(number, settings.kafka_partitions, "database", "preparing", time.time_ns() // 1000)
    async with kafka.producer(settings) as producer:
        await epochs.write(settings, producer, epoch)
    return epoch


async def _renew(admin: AIOKafkaAdminClient, settings: Settings, plans: list[topics.Plan]) -> None:
    """Delete topics and create them again. The broker deletes in its own time."""
    wanted = [plan.name for plan in plans]
    old = [name for name in wanted if name in set(await admin.list_topics())]
    if old:
        await admin.delete_topics(old)
    deadline = time.monotonic() + DELETION_SECONDS
    while left := set(old) & set(await admin.list_topics()):
        if time.monotonic() > deadline:
            raise topics.TopicsWrong(
                [f"the broker does not delete {', '.join(sorted(left))}: allow delete.topic.enable"]
            )
        await asyncio.sleep(0.2)
    await topics.create(admin, settings, plans)


async def _rewind(settings: Settings) -> None:
    """Read raw topics from their beginning, and the new topics too: offsets of the old ones may outlive them."""
    names = Topics.of(settings)
    for group, group_topics in (
        (settings.stream_group, [*map(names.raw, RAW), names.validated, names.facts]),
        (settings.sink_group, [names.enriched, names.metrics]),
    ):
        starts = {tp: first for tp, (first, _) in (await kafka.log_ends(settings, group_topics)).items()}
        async with kafka.consumer(settings, group=group) as client:
            client.assign(list(starts))
            await client.commit(starts)


async def _load(
    settings: Settings,
    loader: Loader,
    producer: AIOKafkaProducer,
    epoch: Epoch,
    progress: Progress,
    report: Callable[[Progress], None],
) -> None:
    topic, home_partition = Topics.of(settings).validated, Partitioner(epoch.partitions)
    since_us = epoch.begun_us - RETENTION_US
    progress.step = "counting"
    report(progress)
    progress.total_rows = sum((await loader.counts(since_us)).values())
    progress.step = "loading"
    done = dict(epoch.progress)
    number = 0
    for kind in KINDS:
        if kind in done and not done[kind]:
            continue
        async for events, last in _pages(loader, kind, done.get(kind, ""), since_us, progress):
            homes: dict[int, list[Validated]] = defaultdict(list)
            for event in events:
                number += 1
                origin = Origin("database", 0, number, 0)
                homes[home_partition.of_new(event.home_id)].append(Validated(event, digest(event), origin))
            sent = [
                await producer.send(topic, pack, partition=partition)
                for partition, validated in homes.items()
                for pack in wire.packs(validated, wire.pack_validated)
            ]
            await asyncio.gather(*sent)
            progress.loaded_rows += len(events)
            done[kind] = last
            epoch = msgspec.structs.replace(epoch, progress=dict(done))
            await epochs.write(settings, producer, epoch)
            report(progress)
    for partition in range(epoch.partitions):
        await producer.send_and_wait(topic, wire.pack_history_end(epoch.number), partition=partition)
    await epochs.write(settings, producer, msgspec.structs.replace(epoch, state="complete"))
    progress.step = "complete"
    report(progress)


async def _pages(
    loader: Loader, kind: str, after: str, since_us: int, progress: Progress
) -> AsyncIterator[tuple[list[Event], str]]:
    """(events, key to go on after; "" behind the last page) of one kind."""
    while True:
        if kind == "parked":
            page = await loader.parked_page(after, PAGE_ROWS)
        else:
            page = await loader.page(kind, after, PAGE_ROWS, since_us)
        progress.unreadable += [(kind, key, fault) for key, fault in page.unreadable]
        yield page.events, page.last or ""
        if page.last is None:
            return
        after = page.last
