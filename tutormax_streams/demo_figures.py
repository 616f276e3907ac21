"""The figures that the demo shows: from the worker's /metrics, and from the tables that anyone may look into."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from models.rows import TIER_NAMES, WINDOW_NAMES
from tutormax_streams.embedded import EmbeddedWorker
from tutormax_streams.postgres.database import Connection, Database

TIERS: Final = tuple(TIER_NAMES)  # display names, the best first
TABLES: Final = {
    "tutors": "tutors",
    "sessions": "sessions",
    "feedback": "student_feedback",
    "tutor-events": "tutor_events",
}
"""Short name of a raw topic -> the table that its events end in."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One look at a worker's metrics."""

    at: float  # monotonic seconds
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples that bear these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    @property
    def events(self) -> int:
        return int(self.total("tutormax_events_total"))

    @property
    def dead_letters(self) -> int:
        return int(self.total("tutormax_dead_letters_total"))

    @property
    def lag(self) -> int:
        return int(self.total("tutormax_lag_records"))

    def buckets(self, name: str) -> dict[float, float]:
        """Upper bound in seconds -> how many observations were not greater."""
        return {
            float(dict(labels)["le"]): value
            for (found, labels), value in self.samples.items()
            if found == f"{name}_bucket"
        }


async def scrape(worker: EmbeddedWorker) -> Scrape | None:
    """The worker's metrics, or None while it does not answer."""
    try:
        _, body = await asyncio.to_thread(worker.get, "/metrics")
    except OSError:
        return None
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    return Scrape(time.monotonic(), samples)


def quantile(earlier: Scrape, later: Scrape, name: str, share: float) -> float | None:
    """The `share` quantile in seconds of what a histogram observed in between, straight lines inside its buckets."""
    before, after = earlier.buckets(name), later.buckets(name)
    counts = {bound: count - before.get(bound, 0) for bound, count in sorted(after.items())}
    total = counts.get(float("inf"), 0)
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in counts.items():
        if count >= rank and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


class Standing(NamedTuple):
    """What a tutor's row of one window says."""

    name: str
    tier: str  # display name
    engagement_score: float | None
    avg_rating: float | None
    no_show_count: int


class Tables:
    """The platform's tables as the demo looks at them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self) -> Counter[str]:
        """Rows by the short name of the raw topic, and under "metrics" the rows of metrics."""

        async def read(connection: Connection) -> Counter[str]:
            found = await connection.execute(_COUNTS)
            row = await found.fetchone()
            assert row is not None
            return Counter(dict(zip((*TABLES, "metrics"), row, strict=True)))

        return await self._database.run(read)

    async def standings(self) -> dict[tuple[str, str], Standing]:
        """(tutor id, window) -> what its row says."""

        async def read(connection: Connection) -> dict[tuple[str, str], Standing]:
            found = await connection.execute(_STANDINGS)
            return {
                (tutor_id, _WINDOWS[window]): Standing(name, _TIERS[tier], *figures)
                for tutor_id, window, name, tier, *figures in await found.fetchall()
            }

        return await self._database.run(read)


def cpu_seconds(pid: int | None) -> float | None:
    """Processor time that a process has used so far; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None


def resident_megabytes(pid: int | None) -> float | None:
    """Memory that a process holds; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return None


_WINDOWS: Final = {name: window for window, name in WINDOW_NAMES.items()}
_TIERS: Final = {name: tier for tier, name in TIER_NAMES.items()}
_COUNTS: Final = """
SELECT (SELECT count(*) FROM tutors), (SELECT count(*) FROM sessions), (SELECT count(*) FROM student_feedback),
    (SELECT count(*) FROM tutor_events), (SELECT count(*) FROM tutor_performance_metrics)
"""
_STANDINGS: Final = """
SELECT m.tutor_id, m."window", t.name, m.performance_tier, m.engagement_score, m.avg_rating, m.no_show_count
FROM tutor_performance_metrics AS m JOIN tutors AS t ON t.tutor_id = m.tutor_id
"""
