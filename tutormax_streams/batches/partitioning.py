"""Kafka's default partitioner (murmur2, in C: aiokafka's own costs forty times as much), remembered for repeated keys."""

from __future__ import annotations

from murmurhash2 import murmurhash2

_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """32-bit murmur2 of `data` with Kafka's seed, as the Java client computes it."""
    found: int = murmurhash2(data, _SEED)
    return found


class Partitioner:
    """Key -> partition, for topics of `partitions` partitions. Remembers up to `remember` keys."""

    def __init__(self, partitions: int, remember: int = 20_000) -> None:
        self.partitions = partitions
        self._remember = remember
        self._known: dict[str, int] = {}

    def __call__(self, key: str) -> int:
        """Partition of a key that comes again and again, such as a tutor id."""
        partition = self._known.get(key)
        if partition is None:
            if len(self._known) >= self._remember:
                self._known.clear()
            partition = self._known[key] = self.of_new(key)
        return partition

    def of_new(self, key: str) -> int:
        """Partition of a key that is seldom seen twice, such as a session id."""
        return (murmur2(key.encode()) & 0x7FFFFFFF) % self.partitions
