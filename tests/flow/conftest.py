"""Deployments for the tests of the whole flow.

`deploy` begins new ones, which end with the module. `living` is one deployment with one worker for all tests that only
watch: each brings tutors of its own, and leaves everything right.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from tests.flow import users
from tests.flow.driver import Deployment
from tests.flow.processes import Worker
from tests.flow.stories import Deploy

BREAKER_WINDOW = 200
BREAKER_COOLDOWN_SECONDS = 1.0
HYSTERESIS_PCT = 20
RATE_PER_MINUTE = 30
ORIGIN = "https://platform.example.org"


@pytest.fixture(scope="session")
def new_database(postgres_server: str, postgres_template: str) -> Iterator[Callable[[], str]]:
    """Makes databases with the platform's tables and ours: the URL of one more."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        made: list[str] = []

        def make() -> str:
            made.append(f"test_flow_{uuid.uuid4().hex[:8]}")
            create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
            connection.execute(create.format(sql.Identifier(made[-1]), sql.Identifier(postgres_template)))
            return f"{postgres_server.rpartition('/')[0]}/{made[-1]}"

        yield make
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def deploy(kafka: str, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """A new deployment, with the options of `Deployment`, and a database of its own unless one is given."""
    home = tmp_path_factory.mktemp("flow")
    made: list[Deployment] = []

    def begin(*, servers: str = kafka, database: str | None = None, **options: object) -> Deployment:
        made.append(Deployment(servers, database or new_database(), home, **options))  # type: ignore[arg-type]
        return made[-1]

    yield begin
    for deployment in made:
        deployment.close()


@pytest.fixture(scope="session")
def living(
    kafka: str, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A deployment whose one worker is ready, with settings that are not the usual ones."""
    database = new_database()
    users.make(database)
    deployment = Deployment(
        kafka,
        database,
        tmp_path_factory.mktemp("living"),
        settings={
            "TUTORMAX_BREAKER_WINDOW": str(BREAKER_WINDOW),
            "TUTORMAX_BREAKER_COOLDOWN_SECONDS": str(BREAKER_COOLDOWN_SECONDS),
            "TUTORMAX_ALERT_SETTLE_SECONDS": "6",
            "TUTORMAX_ALERT_HYSTERESIS_PCT": str(HYSTERESIS_PCT),
            "TUTORMAX_WEB_RATE_PER_MINUTE": str(RATE_PER_MINUTE),
            "TUTORMAX_WEB_CORS_ORIGINS": ORIGIN,
            "SECRET_KEY": users.KEY,
        },
    )
    worker = deployment.worker()
    worker.start()
    try:
        asyncio.run(worker.until_ready())
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def worker(living: Deployment) -> Worker:
    """The worker of `living`."""
    return living.workers[0]
