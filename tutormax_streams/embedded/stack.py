"""The servers of a demo or a test run: those named by the environment, else embedded ones; and it says which."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tutormax_streams.embedded.kafka import EmbeddedKafka
from tutormax_streams.embedded.postgres import EmbeddedPostgres


class Stack:
    """A Kafka and a PostgreSQL. `start` blocks until both answer; `close` ends what was started here and only that.

    `prefer="real"` takes Apache Kafka and an installed PostgreSQL where they are; `prefer="light"` takes the wheels.
    """

    def __init__(self, *, prefer: str = "real", environ: Mapping[str, str] = os.environ) -> None:
        self.kafka: EmbeddedKafka | None = None
        self.postgres: EmbeddedPostgres | None = None
        self._bootstrap_servers = environ.get("KAFKA_BOOTSTRAP_SERVERS")
        self._conninfo = database_url(environ)
        if self._bootstrap_servers is None:
            self.kafka = EmbeddedKafka.pick("apache" if prefer == "real" else "tansu")
        if self._conninfo is None:
            self.postgres = EmbeddedPostgres.pick("binaries" if prefer == "real" else "wheel")

    @property
    def bootstrap_servers(self) -> str:
        return self._bootstrap_servers or (self.kafka.bootstrap_servers if self.kafka else "")

    @property
    def conninfo(self) -> str:
        return self._conninfo or (self.postgres.conninfo() if self.postgres else "")

    @property
    def description(self) -> str:
        """Which servers these are, in one line, without a password."""
        kafka = self.kafka.description if self.kafka else f"Kafka at {self._bootstrap_servers} (environment)"
        postgres = self.postgres.description if self.postgres else "PostgreSQL of the environment"
        return f"{kafka}; {postgres}"

    @property
    def environment(self) -> dict[str, str]:
        """What a worker process needs in its environment to use these servers."""
        environment = {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers, "TUTORMAX_DATABASE_URL": self.conninfo}
        if self.kafka is not None and not self.kafka.idempotent_producers:
            environment["KAFKA_IDEMPOTENT_PRODUCER"] = "false"
        return environment

    def start(self) -> None:
        """Start what is embedded, side by side; EmbeddedError, and nothing left running, if one does not come up."""
        servers = [server for server in (self.kafka, self.postgres) if server is not None]
        try:
            with ThreadPoolExecutor(max_workers=2) as threads:
                for started in [threads.submit(server.start) for server in servers]:
                    started.result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for server in (self.kafka, self.postgres):
            if server is not None:
                server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def database_url(environ: Mapping[str, str]) -> str | None:
    """The database that an environment names: TUTORMAX_DATABASE_URL, else the platform's variables (contract §10) where
    POSTGRES_HOST is set."""
    if environ.get("TUTORMAX_DATABASE_URL"):
        return environ["TUTORMAX_DATABASE_URL"]
    host = environ.get("POSTGRES_HOST")
    if not host:
        return None
    user = quote(environ.get("POSTGRES_USER", "tutormax"), safe="")
    password = quote(environ.get("POSTGRES_PASSWORD", "tutormax_dev"), safe="")
    port = environ.get("POSTGRES_PORT", "5432")
    return f"postgresql://{user}:{password}@{host}:{port}/{quote(environ.get('POSTGRES_DB', 'tutormax'), safe='')}"
