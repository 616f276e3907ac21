"""The referee that reads nothing but PostgreSQL: every current metrics row is computed again in SQL from the raw tables.

1. A row is judged at its own `calculation_date`, whatever has happened since.
2. Figures are computed exactly and may differ from the stored ones by what rounding to two decimals explains; counts
   must be equal; the tier must follow from the stored figures.
3. Raw rows may be committed a moment before or after the metrics that count them. So what differs is looked at again,
   and only what differs each time is reported.
4. Tutors of whom records wait for a parent are not judged: the windows count what the tables do not hold yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from typing import Final, NamedTuple

from models.metrics import EngagementMode
from models.rows import WINDOW_NAMES, metric_id
from tutormax_streams.postgres.database import Connection, Database

STATEMENT_SECONDS: Final = 300.0


class Difference(NamedTuple):
    """One column of one row that is not what the raw tables say."""

    tutor_id: str
    window: str
    calculation_date: str | None
    column: str  # "row" if there is none at all
    stored: str | None
    expected: str | None


@dataclass(slots=True)
class AuditResult:
    """What an audit found. `ok` if nothing stood every look."""

    tutors: int = 0
    rows: int = 0
    unjudged: int = 0  # tutors of whom records wait for a parent
    differences: list[Difference] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.differences

    def table(self, most: int = 50) -> list[tuple[str, ...]]:
        """The differences as text, the heading first, at most `most` of them."""
        lines = [tuple("-" if value is None else value for value in line) for line in self.differences[:most]]
        return [tuple(name.replace("_", " ") for name in Difference._fields), *lines]


async def audit(
    database: Database,
    mode: EngagementMode,
    *,
    looks: int = 3,
    wait_seconds: float = 3.0,
    tutors_at_once: int = 500,
    progress: Callable[[int, int], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AuditResult:
    """Judge every row; look again `looks - 1` times, `wait_seconds` apart, at tutors who differ.

    `progress` is told how many of how many tutors were judged in the first look. Raises `SinkUnavailable`.
    """
    result = AuditResult()
    suspects = await database.run(_tutors)
    result.tutors, result.rows = len(suspects), len(suspects) * len(WINDOW_NAMES)
    standing: dict[tuple[str, str], list[Difference]] = {}
    for look in range(looks):
        if look:
            await sleep(wait_seconds)
        found: dict[tuple[str, str], list[Difference]] = {}
        for start in range(0, len(suspects), tutors_at_once):
            part = suspects[start : start + tutors_at_once]
            for difference in await _differences(database, part, mode):
                found.setdefault((difference.tutor_id, difference.window), []).append(difference)
            if progress is not None and not look:
                progress(start + len(part), len(suspects))
        standing = {row: differences for row, differences in found.items() if not look or row in standing}
        suspects = sorted({tutor_id for tutor_id, _ in standing})
        if not suspects:
            break
    waiting = await database.run(_waiting)
    result.unjudged = len(waiting)
    for (tutor_id, _), differences in sorted(standing.items()):
        if tutor_id not in waiting:
            result.differences += differences
    return result


# Everyone: a tutor without sessions has rows too (contract §4.3).
_TUTORS: Final = "SELECT tutor_id FROM tutors ORDER BY tutor_id"
_WITHOUT_FENCE: Final = """
SELECT wanted.tutor_id FROM unnest(%s::text[]) AS wanted (tutor_id) JOIN tutors ON tutors.tutor_id = wanted.tutor_id
WHERE NOT EXISTS (SELECT FROM tutormax_streams.metric_fences AS fence WHERE fence.tutor_id = wanted.tutor_id)
"""
# Tutors named by a waiting record, and tutors of the stored rows that a waiting record would replace or accompany.
_WAITING: Final = """
SELECT tutor_id FROM tutormax_streams.parked
UNION SELECT s.tutor_id FROM tutormax_streams.parked AS p JOIN sessions AS s ON s.session_id = p.id
UNION SELECT f.tutor_id FROM tutormax_streams.parked AS p JOIN student_feedback AS f ON f.session_id = p.id
UNION SELECT e.tutor_id FROM tutormax_streams.parked AS p JOIN tutor_events AS e ON e.event_id = p.id
"""


async def _tutors(connection: Connection) -> list[str]:
    found = await connection.execute(_TUTORS)
    return [tutor_id for (tutor_id,) in await found.fetchall()]


async def _waiting(connection: Connection) -> set[str]:
    found = await connection.execute(_WAITING)
    return {tutor_id for (tutor_id,) in await found.fetchall()}


async def _differences(database: Database, tutor_ids: Sequence[str], mode: EngagementMode) -> list[Difference]:
    work = partial(_judge, tutor_ids=tutor_ids, mode=mode)
    return await database.transaction(work, seconds=STATEMENT_SECONDS * 1.1)


async def _judge(connection: Connection, tutor_ids: Sequence[str], mode: EngagementMode) -> list[Difference]:
    milliseconds = str(round(STATEMENT_SECONDS * 1000))
    await connection.execute("SELECT set_config('statement_timeout', %s, true)", [milliseconds])
    rows = [
        (tutor_id, name, metric_id(tutor_id, window)) for tutor_id in tutor_ids for window, name in WINDOW_NAMES.items()
    ]
    wanted = dict(zip(("tutor_ids", "windows", "metric_ids"), map(list, zip(*rows, strict=True)), strict=True))
    found = await connection.execute(_SQL, {**wanted, "normalized": mode == "normalized"})
    differences = [Difference(*line) for line in await found.fetchall()]
    found = await connection.execute(_WITHOUT_FENCE, [list(tutor_ids)])
    for (tutor_id,) in await found.fetchall():
        differences += [Difference(tutor_id, name, None, "row", "none", "one") for name in WINDOW_NAMES.values()]
    return differences


_SQL: Final = resources.files(__package__).joinpath("audit.sql").read_bytes()
