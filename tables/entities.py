"""Enrich's memory: home id -> the winning versions of an entity and every tutor ever named for it."""

from __future__ import annotations

from pathlib import Path

import faust

from models import homes
from models.homes import Home
from tables.sweeping import Sweeper
from tutormax_streams.batches import MergedTable
from tutormax_streams.batches.shelves import SharedMemory

NAME = "entities"


def declare(app: faust.App, partitions: int, directory: Path | None, memory: SharedMemory) -> MergedTable[Home]:
    """Add the table to `app`; its changelog has the partitions of topic `validated`."""
    return MergedTable.declare(
        app,
        NAME,
        partitions,
        encode=homes.encode,
        decode=homes.decode,
        merge=homes.merge,
        directory=directory,
        memory=memory,
        is_sound=homes.lies_at,
        is_marked=True,
    )


def sweeper(table: MergedTable[Home]) -> Sweeper:
    """Forgets homes that can change no window any more."""
    return Sweeper(table, lambda payload, now_us: homes.expired(homes.decode(payload), now_us))
