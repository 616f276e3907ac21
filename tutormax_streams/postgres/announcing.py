"""Rows that had been parked and were written: each stands here from its transaction until it has been announced.

Of all other rows a replay repeats the announcement; these were done with when they were parked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agents.ports import Persisted
from tutormax_streams.postgres.arrays import integers, texts
from tutormax_streams.postgres.database import Connection

# A greater version replaces a lesser one; of equal ones the first stays. Ids are the rows' primary keys.
_NOTE: Final = """
INSERT INTO tutormax_streams.unannounced AS noted (kind, id, tutor_id, version_us)
SELECT DISTINCT ON (kind COLLATE "C", id COLLATE "C") kind, id, tutor_id, version_us
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[]) AS written (kind, id, tutor_id, version_us)
ORDER BY kind COLLATE "C", id COLLATE "C", version_us DESC
ON CONFLICT (kind, id) DO UPDATE SET
    tutor_id = excluded.tutor_id, version_us = excluded.version_us, written_at = excluded.written_at
WHERE noted.version_us < excluded.version_us
"""
_OVERDUE: Final = """
SELECT kind, id, tutor_id, version_us FROM tutormax_streams.unannounced
WHERE written_at < now() - make_interval(secs => %s) ORDER BY kind, id LIMIT %s
"""
_FORGET: Final = """
DELETE FROM tutormax_streams.unannounced AS noted
USING unnest(%s::text[], %s::text[], %s::int8[]) AS done (kind, id, version_us)
WHERE noted.kind = done.kind COLLATE "C" AND noted.id = done.id COLLATE "C" AND noted.version_us <= done.version_us
"""


async def note(connection: Connection, written: Sequence[Persisted]) -> None:
    """In the transaction that writes them: these rows must be announced."""
    if written:
        kinds, ids, tutor_ids, versions = zip(*written, strict=True)
        await connection.execute(_NOTE, [texts(kinds), texts(ids), texts(tutor_ids), integers(versions)])


async def overdue(connection: Connection, seconds: float, limit: int) -> list[Persisted]:
    """What was written longer ago than that and is not known to have been announced."""
    found = await connection.execute(_OVERDUE, [seconds, limit])
    return [Persisted(*row) for row in await found.fetchall()]


async def forget(connection: Connection, announced: Sequence[Persisted]) -> None:
    """The announcements of these rows are confirmed."""
    if announced:
        kinds, ids, _, versions = zip(*announced, strict=True)
        await connection.execute(_FORGET, [texts(kinds), texts(ids), integers(versions)])
