"""The servers of a campaign, which may be killed: an Apache Kafka that is known to each worker by a door of its own,
and a PostgreSQL with databases to give away.
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import NamedTuple, Self

import psycopg
from psycopg import sql

from tests.faults.proxy import Door, Switchboard
from tests.flow import users
from tutormax_streams.embedded import EmbeddedPostgres
from tutormax_streams.embedded.kafka import ApacheKafka
from tutormax_streams.embedded.server import HOST, free_port
from tutormax_streams.postgres import schema

DOORS = 8


class DoorKafka(ApacheKafka):
    """Besides the usual one it has listeners that name the port of a proxy as their address."""

    def __init__(self) -> None:
        super().__init__(heap_mib=768)
        self.behind = [free_port() for _ in range(DOORS)]
        self.before = [free_port() for _ in range(DOORS)]

    def _properties(self, home: Path) -> dict[str, str]:
        properties = super()._properties(home)
        names = [f"DOOR{number}" for number in range(DOORS)]
        listeners = [f"{name}://{HOST}:{port}" for name, port in zip(names, self.behind, strict=True)]
        advertised = [f"{name}://{HOST}:{port}" for name, port in zip(names, self.before, strict=True)]
        return {
            **properties,
            "listeners": ",".join([properties["listeners"], *listeners]),
            "advertised.listeners": ",".join([properties["advertised.listeners"], *advertised]),
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(
                f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)
            ),
        }


class Doors(NamedTuple):
    """One worker's ways to the servers."""

    kafka: Door
    postgres: Door


class Ground:
    """Use as a context manager."""

    def __init__(self) -> None:
        self.kafka = DoorKafka()
        self.postgres = EmbeddedPostgres.pick("binaries")
        self._template = f"template_{uuid.uuid4().hex[:8]}"
        self._doors: list[Doors] = []
        self._free_doors: list[Doors] = []

    def __enter__(self) -> Self:
        self.kafka.start()
        try:
            self.postgres.start()
            asyncio.run(self._prepare())
            self._switchboard = Switchboard()
            self._doors = [
                Doors(self._switchboard.door(behind, before), self._switchboard.door(self.postgres.port))
                for behind, before in zip(self.kafka.behind, self.kafka.before, strict=True)
            ]
            self._free_doors = list(self._doors)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._switchboard.close()
        self.close()

    def close(self) -> None:
        self.kafka.close()
        self.postgres.close()

    def mend(self) -> None:
        """Both servers run."""
        self.kafka.start()
        self.postgres.start()

    def take_doors(self, count: int) -> list[Doors]:
        """For workers that nobody else's faults concern."""
        taken, self._free_doors = self._free_doors[:count], self._free_doors[count:]
        assert len(taken) == count, "no doors are left"
        return taken

    def give_back(self, doors: list[Doors]) -> None:
        for pair in doors:
            pair.kafka.mend()
            pair.postgres.mend()
        self._free_doors += doors

    async def _prepare(self) -> None:
        with self._admin() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self._template)))
        url = self.postgres.conninfo(self._template)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection_to_it:
            await schema.ensure_platform_tables(connection_to_it)
            await schema.ensure_side_tables(connection_to_it)
        users.make(url)

    def new_database(self) -> str:
        """The name of a database with the platform's tables and ours."""
        name = f"campaign_{uuid.uuid4().hex[:8]}"
        with self._admin() as connection:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(self._template)))
        return name

    def drop_database(self, name: str) -> None:
        with self._admin() as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def database_behind(self, door: Door, name: str) -> str:
        """The URL of a database through a door."""
        return self.postgres.conninfo(name).replace(f":{self.postgres.port}/", f":{door.port}/")

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.postgres.conninfo("postgres"), autocommit=True)
