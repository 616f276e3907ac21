"""Instants between Python and PostgreSQL as integers: µs since 1970 here, µs since 2000 on the wire, no float between.

In binary format a `timestamptz` is an int64 of µs since 2000-01-01T00:00:00Z, so an int8 that carries that number can
be copied into such a column as it stands.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.abc import Buffer
from psycopg.adapt import Loader

POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01T00:00:00Z in µs since 1970."""

_INT64: Final = struct.Struct("!q")


class InstantLoader(Loader):
    """Reads a binary `timestamptz` as µs since 1970. `infinity` comes out beyond every calendar, not as an error."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> int:
        return int(_INT64.unpack(data)[0]) + POSTGRES_EPOCH_US


def register(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make binary statements of this session return instants as ints."""
    connection.adapters.register_loader("timestamptz", InstantLoader)
