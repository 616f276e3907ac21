"""Forgetting what has expired, a few keys at a time, so that no pass over a table ever holds up the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any

from tutormax_streams.batches import MergedTable


class Sweeper:
    """Walks round every owned partition of a table, one step a call."""

    def __init__(self, table: MergedTable[Any], expired: Callable[[bytes, int], bool]) -> None:
        self._table = table
        self._expired = expired
        self._cursors: dict[int, bytes] = {}

    async def step(self, partition: int, now_us: int, keys: int = 50) -> tuple[list[bytes], list[asyncio.Future[Any]]]:
        """Look at the next `keys` keys and discard the expired ones: (keys discarded, confirmations)."""
        start = self._cursors.get(partition, b"")
        seen = list(islice(self._table.scan(partition, start), keys))
        self._cursors[partition] = seen[-1][0] + b"\x00" if len(seen) == keys else b""
        old = [key for key, payload in seen if not key.startswith(b"\x00") and self._expired(payload, now_us)]
        if not old:
            return [], []
        return await self._table.discard(partition, old, lambda payload: self._expired(payload, now_us))
