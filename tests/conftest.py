"""The servers that tests share, and how long hypothesis looks.

Servers: Kafka and PostgreSQL of the environment (KAFKA_BOOTSTRAP_SERVERS; TUTORMAX_DATABASE_URL or POSTGRES_HOST) if
named there, else embedded ones: Apache Kafka and an installed PostgreSQL where the machine has them, else the wheels.
One of each serves the whole run; what keeps modules apart is a database and a topic prefix of their own.

Hypothesis: HYPOTHESIS_PROFILE=quick (100 examples), ci (2,000, the default) or long (100,000). The figures are for the
properties that compare with the oracle; a test that wants fewer says so itself.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from tutormax_streams.embedded import EmbeddedError, EmbeddedKafka, EmbeddedPostgres, Stack, database_url
from tutormax_streams.postgres import schema

settings.register_profile("quick", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", parent=settings.get_profile("ci"), max_examples=100_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

JUDGES = ("Apache Kafka", "PostgreSQL 15")
NAMED_SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "TUTORMAX_DATABASE_URL", "POSTGRES_HOST")
SERVER_FIXTURES = {"kafka", "postgres", "empty_postgres"}


def pytest_report_header() -> str:
    try:
        return f"servers: {Stack(prefer='real').description}"
    except EmbeddedError as error:
        return f"servers: none, because {error}"


def pytest_sessionstart(session: pytest.Session) -> None:
    """CI has the judges: a run on the wheels passes over every fault, and would be green without them."""
    if os.environ.get("CI", "").lower() not in ("1", "true") or any(name in os.environ for name in NAMED_SERVERS):
        return
    found = Stack(prefer="real").description
    if not all(judge in found for judge in JUDGES):
        pytest.exit(f"CI wants {' and '.join(JUDGES)}, and there is {found}: install Java 17, Maven, PostgreSQL 15", 1)


def pytest_configure() -> None:
    """What ends this process at once would leave the rest of the run out, and with 0 it would look green."""
    ours, really = os.getpid(), os._exit

    def refused(status: int) -> NoReturn:
        if os.getpid() == ours:
            raise AssertionError(f"os._exit({status}) in the process of the tests")
        really(status)

    os._exit = refused


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap servers of a Kafka that all tests share."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield named
        return
    with EmbeddedKafka.pick("apache") as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def topic_prefix() -> str:
    """What the names of the module's topics and groups begin with."""
    return f"test-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database whose user may create others."""
    named = database_url(os.environ)
    if named:
        yield named
        return
    with EmbeddedPostgres.pick("binaries") as server:
        yield server.conninfo()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a database with the platform's tables and ours, to be cloned."""

    async def prepare(url: str) -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await schema.ensure_platform_tables(connection)
            await schema.ensure_side_tables(connection)

    with _fresh_database(postgres_server) as url:
        asyncio.run(prepare(url))
        yield url.rpartition("/")[2]


@pytest.fixture(scope="module")
def postgres(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """The URL of the module's own database, with the platform's tables and ours, all empty."""
    with _fresh_database(postgres_server, template=postgres_template) as url:
        yield url


@pytest.fixture(scope="module")
def empty_postgres(postgres_server: str) -> Iterator[str]:
    """The URL of the module's own database without any tables."""
    with _fresh_database(postgres_server) as url:
        yield url


@contextmanager
def _fresh_database(server: str, template: str = "template1") -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        yield f"{server.rpartition('/')[0]}/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
