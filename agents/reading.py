"""Reading our own packed records: one that cannot be read is refused alone, one of another version stops the worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from agents.ports import DeadLetters, Telemetry
from tutormax_streams.batches import RecordBatch

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def entries(
    batch: RecordBatch, unpack: Callable[[bytes], T], dead_letters: DeadLetters, telemetry: Telemetry, short_topic: str
) -> tuple[list[T], list[asyncio.Future[Any]]]:
    """What each record of the batch holds, and the confirmations of refusals. Tombstones are passed over.

    Raises `UnknownVersion`: that is no record's fault but a release's.
    """
    found: list[T] = []
    refusals: list[asyncio.Future[Any]] = []
    for record in batch.records:
        if record.value is None:
            continue
        try:
            found.append(unpack(record.value))
        except msgspec.DecodeError as exc:  # ValidationError is one too
            logger.exception("%s-%s@%s cannot be read", short_topic, record.partition, record.offset)
            detail = f"a record of the internal topic cannot be read ({type(exc).__name__}): who else writes to it?"
            telemetry.count("dead_letters", topic=short_topic, reason="internal")
            refusals.append(await dead_letters.refuse_record(record, short_topic, "internal", detail))
    return found, refusals
