"""CPU µs per event of each step of the stream app by itself: `python -m benchmarks.stages [--events 30000]`.

No Kafka: batches are handed from step to step, sending costs nothing, tables lie in RocksDB. So the sum is less than
what a worker spends (see `benchmarks.throughput`), but it is steady enough to compare two versions of the code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faust
from faust.types import TP

from agents.aggregate import Aggregate, Assignment
from agents.enrich import Enrich
from agents.validate import Validate
from models.breaker import Breaker
from models.parsing import Parser
from tables import entities, tutor_windows
from tutormax_streams.app import wall_clock
from tutormax_streams.batches import MergedTable, Partitioner, RecordBatch
from tutormax_streams.batches.shelves import SharedMemory
from tutormax_streams.simulation import history
from tutormax_streams.telemetry import Telemetry

KINDS = ("tutors", "sessions", "feedback")
BATCH = 340


@dataclass(slots=True)
class Raw:
    """What steps read of a consumer record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Landed:
    """The metadata of a produced record."""

    offset = timestamp = timestamp_type = 0


class Outbox:
    """A sender that keeps everything and confirms at once."""

    def __init__(self) -> None:
        self.packs: dict[tuple[str, int], list[bytes]] = defaultdict(list)
        self.changelog_records = self.changelog_bytes = 0
        self._landed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._landed.set_result(Landed())

    async def send(self, topic: str, value: bytes, key: bytes | None = None, partition: int = 0, **_: Any) -> Any:
        self.packs[topic, partition].append(value)
        return self._landed

    async def send_run(
        self, topic: str, partition: int, items: Iterable[tuple[bytes, bytes | None]]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        pairs = list(items)
        self.changelog_records += len(pairs)
        self.changelog_bytes += sum(len(key) + len(value or b"") for key, value in pairs)
        return [(self._landed, len(pairs))]

    def batches(self, topic: str, most_bytes: int = 1 << 18) -> list[RecordBatch]:
        """What was sent to `topic`, as the consumer would deliver it."""
        found = []
        for (name, partition), packs in sorted(self.packs.items()):
            if name != topic:
                continue
            run: list[Raw] = []
            for offset, value in enumerate(packs):
                if run and sum(len(r.value or b"") for r in run) + len(value) > most_bytes:
                    found.append(RecordBatch(TP(topic, partition), run))
                    run = []
                run.append(Raw(topic, partition, offset, 0, None, value))
            found.append(RecordBatch(TP(topic, partition), run))
        return found


async def cpu_seconds(batches: Iterable[RecordBatch], step: Callable[[RecordBatch], Awaitable[Any]]) -> float:
    began = time.process_time()
    for batch in batches:
        await step(batch)
    return time.process_time() - began


def raw_batches(events: int, partitions: int) -> tuple[dict[str, list[RecordBatch]], int]:
    """A history by topic and partition, cut as the consumer would."""
    tutors = max(3, events // 328)
    of_home = Partitioner(partitions)
    runs: dict[tuple[str, int], list[Raw]] = defaultdict(list)
    total = 0
    for record in history(1, tutors, 90, datetime.now(UTC)):
        if record.topic in KINDS:
            total += 1
            partition = of_home.of_new(record.key)
            run = runs[record.topic, partition]
            value = json.dumps(record.payload).encode()
            run.append(Raw(record.topic, partition, len(run), wall_clock() // 1000, record.key.encode(), value))
    batches: dict[str, list[RecordBatch]] = defaultdict(list)
    for (topic, partition), run in runs.items():
        batches[topic] += [RecordBatch(TP(topic, partition), run[at : at + BATCH]) for at in range(0, len(run), BATCH)]
    return batches, total


def hold_all(table: MergedTable[Any], outbox: Outbox, partitions: int) -> None:
    """Give the table every partition, without a broker."""
    table.confirmed = outbox  # type: ignore[assignment]
    for partition in range(partitions):
        table.held.shelves[partition] = table.new_shelf(partition)
        table.held.writers[partition] = b"writer"


async def measure(events: int, partitions: int, directory: Path) -> None:
    batches, total = raw_batches(events, partitions)
    app = faust.App("benchmark", store="memory://", topic_partitions=partitions)
    outbox, telemetry, memory = Outbox(), Telemetry(), SharedMemory()
    homes = entities.declare(app, partitions, directory, memory)
    windows = tutor_windows.declare(app, partitions, directory, memory)
    hold_all(homes, outbox, partitions)
    hold_all(windows.table, outbox, partitions)
    common: dict[str, Any] = {"send": outbox, "dead_letters": None, "clock": wall_clock, "telemetry": telemetry}
    seconds = {"validate": 0.0}
    for topic, of_topic in batches.items():
        step = Validate(
            topic=topic,
            validated_topic="validated",
            parser=Parser(),
            breaker=Breaker(50.0, 1000, 30.0),
            home_partition=Partitioner(partitions),
            **common,
        )
        seconds["validate"] += await cpu_seconds(of_topic, step)
    enrich = Enrich(
        enriched_topic="enriched",
        facts_topic="facts",
        entities=homes,
        tutor_partition=Partitioner(partitions),
        **common,
    )
    seconds["enrich"] = await cpu_seconds(outbox.batches("validated"), enrich)

    async def note(partition: int) -> Assignment:
        return Assignment(0, 0, 0)

    aggregate = Aggregate(
        metrics_topic="metrics",
        windows=windows,
        epoch=1,
        needs_barriers=0,
        mode="normalized",
        note_assignment=note,
        **common,
    )
    incoming = outbox.batches("facts")
    seconds["aggregate"] = 2 * await cpu_seconds(incoming[::2], aggregate)
    began, published = time.process_time(), telemetry.value("published")
    while any(tutor.news for shard in aggregate.shards.values() for tutor in shard.tutors.values()):
        await aggregate.tick()
    published = telemetry.value("published") - published
    publishing = time.process_time() - began
    laid_out = 2 * await cpu_seconds(incoming[1::2], aggregate)
    print(f"{total:,} events, {partitions} partitions, CPU µs per event:")
    for name, spent in seconds.items():
        print(f"  {name:<10}{spent / total * 1e6:8.1f}")
    print(f"  {'sum':<10}{sum(seconds.values()) / total * 1e6:8.1f}")
    print(f"  the same for tutors who are laid out{laid_out / total * 1e6:8.1f} instead")
    print(f"  publishing{publishing / published * 1e6:8.1f} per tutor, all facts to be laid out")
    for topic in ("validated", "enriched", "facts"):
        size = sum(len(pack) for (name, _), packs in outbox.packs.items() if name == topic for pack in packs)
        count = sum(len(packs) for (name, _), packs in outbox.packs.items() if name == topic)
        print(f"  {topic}: {count} records, {size / total:.0f} bytes per event")
    print(f"  changelogs: {outbox.changelog_records / total:.2f} records, {outbox.changelog_bytes / total:.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--partitions", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tutormax-bench-") as directory:
        asyncio.run(measure(options.events, options.partitions, Path(directory)))


if __name__ == "__main__":
    main()
