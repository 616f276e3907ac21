"""Public records about tutors, each under its tutor, as few producer batches: how persist and flush speak."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from agents.ports import Sender
from tutormax_streams.batches import Partitioner


async def tell(
    send: Sender, topic: str, partition_of: Partitioner, records: Iterable[tuple[str, bytes]]
) -> list[asyncio.Future[Any]]:
    """Send values by tutor id, those of one tutor in their order; the futures are done when the broker has them."""
    by_partition: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
    for tutor_id, value in records:
        by_partition[partition_of(tutor_id)].append((tutor_id.encode(), value))
    return [
        future
        for partition, items in by_partition.items()
        for future, _ in await send.send_run(topic, partition, items)
    ]
