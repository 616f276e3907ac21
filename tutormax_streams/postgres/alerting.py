"""Alerts are born in the transaction that writes a tutor's rows, against what was announced of that tutor before.

1. What was announced and what is to be told change together with the rows, or not at all. The holder of a tutor's
   fence alone comes here, so nobody else looks at the same tutor.
2. What is to be told stands in `alert_outbox` until the broker has confirmed it; who finds it there late tells it
   again, under the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agents.ports import Clock
from models import alerts
from models.alerts import Alert, AlertRaised, Announced
from models.metrics import MetricsUpdated
from tutormax_streams.postgres.arrays import integers, octets, texts
from tutormax_streams.postgres.database import Connection

_ANNOUNCED: Final = "SELECT tutor_id, payload FROM tutormax_streams.announced WHERE tutor_id = ANY(%s::text[])"
_ANNOUNCE: Final = """
INSERT INTO tutormax_streams.announced (tutor_id, payload) SELECT * FROM unnest(%s::text[], %s::bytea[])
ON CONFLICT (tutor_id) DO UPDATE SET payload = excluded.payload
"""
_NOTE: Final = """
INSERT INTO tutormax_streams.alert_outbox (tutor_id, sequence, payload)
SELECT * FROM unnest(%s::text[], %s::int8[], %s::bytea[])
"""
# A tutor that left the platform's table has no alerts. The text is looked for so that few rows are decoded.
_STANDING: Final = """
SELECT t.name, said.payload FROM tutormax_streams.announced AS said JOIN tutors AS t
    ON t.tutor_id = said.tutor_id COLLATE "default"
WHERE position('"standing":' IN said.payload) > 0
"""
_OVERDUE: Final = """
SELECT payload FROM tutormax_streams.alert_outbox WHERE born_at < now() - make_interval(secs => %s)
ORDER BY tutor_id, sequence LIMIT %s
"""
_FORGET: Final = """
DELETE FROM tutormax_streams.alert_outbox AS noted USING unnest(%s::text[], %s::int8[]) AS done (tutor_id, sequence)
WHERE noted.tutor_id = done.tutor_id COLLATE "C" AND noted.sequence = done.sequence
"""

_decoder = msgspec.json.Decoder(Announced)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Judge:
    """By which clock figures are of now, and how much better than its threshold a figure must be to clear an alert."""

    clock: Clock
    hysteresis_pct: float

    async def note(self, connection: Connection, updates: Sequence[MetricsUpdated]) -> list[Alert]:
        """In the transaction that wrote the rows of these tutors, one update each: what is to be told of them."""
        now_us = self.clock()
        worth_it = [update for update in updates if alerts.may_tell(update, now_us)]
        return await _note(connection, worth_it, self.hysteresis_pct) if worth_it else []


async def _note(connection: Connection, updates: Sequence[MetricsUpdated], hysteresis_pct: float) -> list[Alert]:
    found = await connection.execute(_ANNOUNCED, [texts([update.tutor_id for update in updates])], binary=True)
    known: dict[str, bytes] = dict(await found.fetchall())
    born: list[Alert] = []
    said: dict[str, bytes] = {}
    for update in updates:
        before = known.get(update.tutor_id)
        announced, told = alerts.changes(_decoder.decode(before) if before else None, update, hysteresis_pct)
        payload = _encoder.encode(announced)
        if payload != before:
            said[update.tutor_id] = payload
        born += told
    if said:
        await connection.execute(_ANNOUNCE, [texts(said.keys()), octets(said.values())])
    if born:
        await connection.execute(_NOTE, [*_keys(born), octets(map(alerts.encode, born))])
    return born


async def standing(connection: Connection) -> list[AlertRaised]:
    """What was raised of any tutor and has not been cleared, under the tutors' present names."""
    found = await connection.execute(_STANDING, binary=True)
    return [
        msgspec.structs.replace(alert, tutor_name=name)
        for name, payload in await found.fetchall()
        for alert in _decoder.decode(payload).standing
    ]


async def overdue(connection: Connection, seconds: float, limit: int) -> list[Alert]:
    """What was born longer ago than that and is not known to have been told."""
    found = await connection.execute(_OVERDUE, [seconds, limit], binary=True)
    return [alerts.decode(payload) for (payload,) in await found.fetchall()]


async def forget(connection: Connection, told: Sequence[Alert]) -> None:
    """The broker has confirmed these."""
    await connection.execute(_FORGET, [*_keys(told)])


def _keys(some: Sequence[Alert]) -> tuple[str, str]:
    return texts([alert.tutor_id for alert in some]), integers(alert.sequence for alert in some)
