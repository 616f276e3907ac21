"""Where benchmarks happen: real servers, and on them deployments of their own with one measured worker each."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import psycopg
from psycopg import sql

from tutormax_streams import topics
from tutormax_streams.embedded import EmbeddedWorker, Stack
from tutormax_streams.postgres import schema
from tutormax_streams.producer import publisher
from tutormax_streams.settings import Settings
from tutormax_streams.simulation import Record

ROOT = Path(__file__).resolve().parents[1]
ID_OF = {"tutors": "tutor_id", "sessions": "session_id", "feedback": "feedback_id", "tutor-events": "event_id"}
TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """What a process has used so far."""

    cpu_seconds: float  # of all its threads, in user and system mode
    rss_mib: float
    peak_rss_mib: float


class MeasuredWorker(EmbeddedWorker):
    """One worker process whose CPU and memory are read from /proc."""

    def __init__(self, environment: Mapping[str, str], mark: Path) -> None:
        super().__init__({**environment, "BENCHMARK_MARK": str(mark), "PYTHONPATH": str(ROOT)})
        self._mark = mark

    def _command(self, home: Path) -> Sequence[str]:
        return [sys.executable, "-m", "benchmarks.child"]

    @property
    def usage(self) -> Usage:
        """As of now. EmbeddedError if the worker has ended."""
        self.ensure_running()
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in status) if "kB" in rest}
        return Usage((int(stat[11]) + int(stat[12])) / TICKS, kib["VmRSS"] / 1024, kib["VmHWM"] / 1024)

    def last_words(self) -> str:
        return self._last_words()

    @property
    def cpu_seconds_before_work(self) -> float:
        """What start-up cost: CPU seconds used when the first batch of raw records was handed to `validate`."""
        return float(self._mark.read_text())


@dataclass(slots=True)
class Loaded:
    """What was published."""

    events: Counter[str] = field(default_factory=Counter)
    value_bytes: Counter[str] = field(default_factory=Counter)
    ids: dict[str, set[str]] = field(default_factory=dict)  # topic -> ids of different entities
    sampled: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # topic -> payloads of sampled tutors

    @property
    def total(self) -> int:
        return self.events.total()

    @property
    def mean_bytes(self) -> float:
        return self.value_bytes.total() / max(self.total, 1)


def platform_bytes(record: Record) -> bytes:
    """The value as the platform's own producers write it: Python's json, with spaces."""
    return json.dumps(record.payload).encode()


@dataclass(slots=True)
class Deployment:
    """Topics, a database and a directory that nobody else uses."""

    settings: Settings
    environment: dict[str, str]
    directory: Path

    @property
    def conninfo(self) -> str:
        return self.settings.conninfo

    async def load(
        self, records: Iterable[Record], is_sampled: Callable[[str], bool] = lambda tutor_id: False
    ) -> Loaded:
        """Publish `records` as fast as the broker takes them, and keep the payloads of sampled tutors."""
        await topics.ensure(self.settings)
        loaded = Loaded()
        async with publisher(self.settings) as out:
            for record in records:
                value = platform_bytes(record)
                loaded.events[record.topic] += 1
                loaded.value_bytes[record.topic] += len(value)
                loaded.ids.setdefault(record.topic, set()).add(record.payload[ID_OF[record.topic]])
                if is_sampled(record.payload["tutor_id"]):
                    loaded.sampled.setdefault(record.topic, []).append(record.payload)
                await out.add(record.topic, record.key.encode(), value)
        return loaded

    @contextmanager
    def worker(self, *roles: str) -> Iterator[MeasuredWorker]:
        """A running worker, stopped at the end."""
        mark = self.directory / f"mark-{uuid.uuid4().hex[:8]}"
        with MeasuredWorker({**self.environment, "TUTORMAX_ROLES": ",".join(roles)}, mark) as worker:
            yield worker


class Ground:
    """Servers for benchmarks: those of the environment if named there, else Apache Kafka and an installed PostgreSQL."""

    def __init__(self) -> None:
        self.stack = Stack(prefer="real")

    def __enter__(self) -> Self:
        # Partitions just created refuse what comes for a moment; the client tries again, and says so each time.
        logging.getLogger("aiokafka").setLevel(logging.ERROR)
        self.stack.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @contextmanager
    def deployment(self, *, partitions: int = 24, **environment: str) -> Iterator[Deployment]:
        """A fresh one; its database and directory are removed at the end, its topics go with the servers."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        server = self.stack.conninfo
        directory = Path(tempfile.mkdtemp(prefix="tutormax-bench-"))
        url = f"{server.rpartition('/')[0]}/{name}"
        given = {
            **self.stack.environment,
            "TUTORMAX_DATABASE_URL": url,
            "KAFKA_TOPIC_PREFIX": f"{name}.",
            "KAFKA_PARTITIONS": str(partitions),
            "TUTORMAX_APP_ID": name,
            "TUTORMAX_DATA_DIR": str(directory / "tables"),
            **environment,
        }
        try:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            settings = Settings(
                kafka_bootstrap_servers=given["KAFKA_BOOTSTRAP_SERVERS"],
                kafka_idempotent_producer=given.get("KAFKA_IDEMPOTENT_PRODUCER", "true") == "true",
                kafka_topic_prefix=given["KAFKA_TOPIC_PREFIX"],
                kafka_partitions=partitions,
                app_id=name,
                database_url=url,  # type: ignore[arg-type]
                data_dir=Path(given["TUTORMAX_DATA_DIR"]),
            )
            yield Deployment(settings, given, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


async def prepare_database(url: str) -> None:
    """The platform's tables and ours."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await schema.ensure_platform_tables(connection)
        await schema.ensure_side_tables(connection)
