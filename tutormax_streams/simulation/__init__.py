"""Synthetic events of the platform: months of history and a live trickle, the same for the same seed.

    for topic, key, payload in history(seed=1, tutors=300, days=90, now=now): ...
    live = Trickle(seed=1, tutors=300, start=now)
    for topic, key, payload in live.due(now + timedelta(seconds=1)): ...

Payloads have the keys and ranges of contract §2 (column Generator), with UTC times and `updated_at` never ahead of now.
Nothing here knows Kafka: `encode` gives the bytes, the caller sends them.
"""

from __future__ import annotations

from tutormax_streams.simulation.history import history
from tutormax_streams.simulation.payloads import Record, encode
from tutormax_streams.simulation.profiles import FALLING_TUTOR_ID
from tutormax_streams.simulation.trickle import Trickle

__all__ = ["FALLING_TUTOR_ID", "Record", "Trickle", "encode", "history"]
