"""Records that miss their parent wait here, greatest version of each, until the parent's row exists.

All functions run inside the caller's transaction, so that a record is either stored, or waiting, or still in Kafka.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, LiteralString, NamedTuple

import msgspec

from models.events import Enriched, Feedback, Session
from models.versions import Version
from tutormax_streams.postgres.arrays import integers, octets, texts
from tutormax_streams.postgres.database import Connection
from tutormax_streams.postgres.staging import Stage

Key = tuple[str, str]  # kind, home id


class Parked(NamedTuple):
    """A record taken out to be written; its row stays until `settle` or `refuse`."""

    kind: str
    id: str
    record: Enriched


STAGE: Final = Stage(
    "tutormax_staged_parked",
    ("kind", "id", "version_us", "digest", "tutor_id", "student_id", "payload"),
    ("text", "text", "int8", "bytea", "text", "text", "bytea"),
)

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODER: Final = msgspec.msgpack.Decoder(Enriched)


def unpacked(payload: bytes) -> Enriched:
    """What lies in column `payload`."""
    return _DECODER.decode(payload)


_PARK: Final = """
INSERT INTO tutormax_streams.parked AS stored (kind, id, version_us, digest, tutor_id, student_id, payload)
SELECT kind, id, version_us, digest, tutor_id, student_id, payload FROM pg_temp.tutormax_staged_parked
ORDER BY kind COLLATE "C", id COLLATE "C"
ON CONFLICT (kind, id) DO UPDATE SET
    version_us = excluded.version_us, digest = excluded.digest, tutor_id = excluded.tutor_id,
    student_id = excluded.student_id, payload = excluded.payload, refused = NULL, refused_as = NULL,
    untold_since = NULL, parked_at = excluded.parked_at
WHERE (stored.version_us, stored.digest) < (excluded.version_us, excluded.digest)
"""

# Who writes an entity first takes hold of what waits of it, before any other lock, and in order; who takes along what
# waits for a parent leaves out what others hold. So nobody ever waits in a circle, and an entity has one writer.
_HOLD: Final = """
SELECT parked.kind, parked.id FROM tutormax_streams.parked AS parked
JOIN unnest(%s::text[], %s::text[]) AS own (kind, id)
    ON own.kind COLLATE "C" = parked.kind AND own.id COLLATE "C" = parked.id
ORDER BY parked.kind, parked.id FOR UPDATE OF parked
"""
_TAKE_OF_TUTORS: Final = """
SELECT kind, id, payload FROM tutormax_streams.parked WHERE tutor_id = ANY(%s::text[]) AND refused IS NULL
ORDER BY kind DESC, id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_TAKE_OF_SESSIONS: Final = """
SELECT kind, id, payload FROM tutormax_streams.parked
WHERE kind = 'feedback' AND id = ANY(%s::text[]) AND refused IS NULL
ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
"""
# Looks into the platform's indexes, a row of ours at a time. They are in the collation of the database, our ids in "C":
# left so, each waiting feedback would have read all sessions. And each look is a subquery with a value, because EXISTS
# would be answered by reading all parents whenever statistics are not what they should be.
_TAKE_READY: Final = """
SELECT kind, id, payload FROM tutormax_streams.parked AS parked
WHERE refused IS NULL
    AND (SELECT true FROM tutors WHERE tutors.tutor_id = parked.tutor_id)
    AND (student_id IS NULL OR (SELECT true FROM students WHERE students.student_id = parked.student_id))
    AND (kind <> 'feedback' OR (SELECT true FROM sessions WHERE sessions.session_id = parked.id COLLATE "default"))
ORDER BY kind DESC, id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_MISSING_STUDENTS: Final = """
SELECT DISTINCT student_id FROM tutormax_streams.parked AS parked
WHERE student_id IS NOT NULL AND refused IS NULL
    AND NOT EXISTS (SELECT FROM students WHERE students.student_id = parked.student_id)
LIMIT %s
"""
_SETTLE: Final = """
DELETE FROM tutormax_streams.parked AS parked
USING unnest(%s::text[], %s::text[], %s::int8[], %s::bytea[]) AS done (kind, id, version_us, digest)
WHERE parked.kind = done.kind AND parked.id = done.id
    AND (parked.version_us, parked.digest) <= (done.version_us, done.digest)
"""
_REFUSE: Final = """
UPDATE tutormax_streams.parked SET refused = %s, refused_as = %s, untold_since = now() WHERE kind = %s AND id = %s
"""
# Without its event there can be no letter, so none is owed.
_REFUSE_UNREADABLE: Final = """
UPDATE tutormax_streams.parked SET refused = %s, refused_as = NULL, untold_since = NULL WHERE kind = %s AND id = %s
"""
_OVERDUE: Final = """
SELECT kind, id, payload, refused_as, refused FROM tutormax_streams.parked
WHERE untold_since < now() - make_interval(secs => %s) AND refused IS NOT NULL ORDER BY kind, id LIMIT %s FOR UPDATE SKIP LOCKED
"""
_TOLD: Final = """
UPDATE tutormax_streams.parked SET untold_since = NULL
WHERE kind = %s AND id = %s AND version_us = %s AND digest = %s
"""


async def is_empty(connection: Connection) -> bool:
    """Nothing waits; the rest can be spared."""
    found = await connection.execute("SELECT FROM tutormax_streams.parked LIMIT 1")
    return await found.fetchone() is None


async def hold(connection: Connection, keys: Sequence[Key]) -> set[Key]:
    """Lock what waits of these entities, which are about to be written, and say of which of them something does. To be
    called before anything else is locked."""
    if not keys:
        return set()
    kinds, ids = zip(*keys, strict=True)
    found = await connection.execute(_HOLD, [texts(kinds), texts(ids)])
    return set(await found.fetchall())


async def park(connection: Connection, waiting: Sequence[tuple[str, Enriched]]) -> None:
    """Keep records, given with their kind, unless a greater version of them waits already."""
    if not waiting:
        return
    await STAGE.fill(connection, (_row(kind, record) for kind, record in waiting))
    await connection.execute(_PARK)


async def take_of_tutors(connection: Connection, tutor_ids: Sequence[str], limit: int) -> list[Parked]:
    """What waits for one of these tutors."""
    return await _take(connection, _TAKE_OF_TUTORS, texts(tutor_ids), limit)


async def take_of_sessions(connection: Connection, session_ids: Sequence[str], limit: int) -> list[Parked]:
    """Feedback that waits for one of these sessions."""
    return await _take(connection, _TAKE_OF_SESSIONS, texts(session_ids), limit)


async def take_ready(connection: Connection, limit: int) -> list[Parked]:
    """What has all its parents by now, sessions before what hangs on them."""
    return await _take(connection, _TAKE_READY, limit)


async def missing_students(connection: Connection, limit: int) -> list[str]:
    """Students that waiting records name and nobody has created."""
    found = await connection.execute(_MISSING_STUDENTS, [limit])
    return [student_id for (student_id,) in await found.fetchall()]


async def settle(connection: Connection, done: Mapping[Key, Version]) -> None:
    """Let go of what was written or superseded: each of `done` up to its version."""
    if not done:
        return
    kinds, ids = zip(*done.keys(), strict=True)
    times, digests = zip(*done.values(), strict=True)
    await connection.execute(_SETTLE, [texts(kinds), texts(ids), integers(times), octets(digests)])


async def refuse(connection: Connection, refused: Iterable[tuple[Key, str, str]]) -> None:
    """Keep what PostgreSQL would not take, with reason code and sentence; it is not tried again until a newer version
    comes. Its dead letter is owed until it is `told`."""
    for (kind, id_), code, why in refused:
        await connection.execute(_REFUSE, [why, code, kind, id_])


async def overdue(connection: Connection, seconds: float, limit: int) -> list[tuple[Enriched, str, str]]:
    """What was refused longer ago than that, with code and sentence, and is not known to be a dead letter."""
    found = await connection.execute(_OVERDUE, [seconds, limit], binary=True)
    refused = []
    for kind, id_, payload, code, why in await found.fetchall():
        try:
            refused.append((unpacked(payload), code, why))
        except msgspec.DecodeError as error:
            await connection.execute(_REFUSE_UNREADABLE, [f"unreadable: {error}", kind, id_])
    return refused


async def told(connection: Connection, refused: Iterable[tuple[Key, Enriched]]) -> None:
    """The dead letters of these records are confirmed."""
    for (kind, id_), record in sorted(refused, key=lambda entry: entry[0]):
        await connection.execute(_TOLD, [kind, id_, record.event.version_us, record.digest])


async def _take(connection: Connection, query: LiteralString, *values: object) -> list[Parked]:
    found = await connection.execute(query, list(values), binary=True)
    taken = []
    for kind, id_, payload in await found.fetchall():
        try:
            taken.append(Parked(kind, id_, unpacked(payload)))
        except msgspec.DecodeError as error:
            await connection.execute(_REFUSE_UNREADABLE, [f"unreadable: {error}", kind, id_])
    return taken


def _row(kind: str, record: Enriched) -> tuple[object, ...]:
    event = record.event
    student_id = event.student_id if isinstance(event, Session | Feedback) else None
    return (kind, event.home_id, event.version_us, record.digest, event.tutor_id, student_id, _ENCODE(record))
