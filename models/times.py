"""Times as producers write them, to instants: microseconds since 1970-01-01T00:00:00Z.

1. Any ISO 8601 form that `datetime.fromisoformat` reads is a time: with `Z`, with an offset, without either, a date
   alone (midnight), with a blank for the `T`. Digits beyond the microsecond are cut off.
2. A time without a zone belongs to the zone that the deployment names (UTC unless set), at the earlier of two readings
   where clocks are turned back.
3. An instant lies within the years 1 to 9999 by a day's margin, so that both `datetime` and PostgreSQL can show it in
   any zone. What does not, and what is not a time, is `NEVER_US`: no exception, and later than every limit, so that the
   one comparison with a limit catches it too.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

DAY_US: Final = 86_400_000_000
EARLIEST_US: Final = -62_135_510_400_000_000  # 0001-01-02T00:00:00Z
LATEST_US: Final = 253_402_214_400_000_000  # 9999-12-31T00:00:00Z
NEVER_US: Final = 2**100  # beyond any 64-bit time that a broker could name as now

_UNREADABLE: Final = (NEVER_US, 0)
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, unsaid as in the times it is taken from
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_fromisoformat = datetime.fromisoformat


def instant(text: str, naive_zone: tzinfo) -> tuple[int, int]:
    """The instant that `text` names, and its zone's offset from UTC in whole seconds; `NEVER_US` and 0 if none."""
    try:
        when = _fromisoformat(text)
    except ValueError:
        return _UNREADABLE
    zone = when.tzinfo
    # The two ways in which UTC is written come first: they are most of all times, and an event has up to four.
    if zone is UTC:
        instant_us = (when - _EPOCH_UTC) // _MICROSECOND
        return (instant_us, 0) if EARLIEST_US <= instant_us < LATEST_US else _UNREADABLE
    if zone is None and naive_zone is UTC:
        instant_us = (when - _EPOCH) // _MICROSECOND
        return (instant_us, 0) if EARLIEST_US <= instant_us < LATEST_US else _UNREADABLE
    offset = (when if zone is not None else when.replace(tzinfo=naive_zone)).utcoffset()
    assert offset is not None  # neither fromisoformat nor zoneinfo makes a zone without an offset
    # Never as `astimezone`: that overflows at both ends of the calendar, differences do not.
    instant_us = (when.replace(tzinfo=None) - _EPOCH - offset) // _MICROSECOND
    if not EARLIEST_US <= instant_us < LATEST_US:
        return _UNREADABLE
    return instant_us, offset.days * 86_400 + offset.seconds
