"""A real worker with tutors, for a real browser. Without a Chromium these tests are skipped, but never in CI."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser import chromium
from tests.browser.served import one_worker
from tests.flow import users
from tests.flow.driver import Deployment, eventually
from tests.oracle import DAY_US
from tests.samples import feedback_payload, session_payload, tutor_payload

TUTORS = 14
MANY = 1_200  # rows of tutors that no event comes for

FILL = (
    """
    INSERT INTO tutors SELECT copy.* FROM tutors AS t, generate_series(1, %(many)s) AS n, jsonb_populate_record(
        t, jsonb_build_object('tutor_id', 'z' || n, 'name', 'Zoe ' || n, 'email', 'z' || n || '@example.org')) AS copy
    WHERE t.tutor_id = 't1'
    """,
    """
    INSERT INTO tutor_performance_metrics SELECT copy.*
    FROM tutor_performance_metrics AS m, generate_series(1, %(many)s) AS n, jsonb_populate_record(
        m, jsonb_build_object('metric_id', 'tms_z' || n || m."window", 'tutor_id', 'z' || n)) AS copy
    WHERE m.tutor_id = 't1'
    """,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if chromium.executable() is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(chromium.MISSING)
        pytest.skip(chromium.MISSING)
    async with chromium.launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(
    browser: Browser, kafka: str, postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployment]:
    """One worker with a dozen tutors, all committed, and rows of some thousand more."""
    with one_worker(kafka, postgres, tmp_path_factory.mktemp("browser")) as deployment:
        await _history(deployment)
        with psycopg.connect(postgres, autocommit=True) as connection:
            for statement in FILL:
                connection.execute(statement, {"many": MANY})
        users.link(postgres, "t3")
        yield deployment


async def _history(deployment: Deployment) -> None:
    now_us = time.time_ns() // 1000
    numbers = range(TUTORS)
    await deployment.workers[0].until_ready()
    await deployment.tell(
        *(("tutors", tutor_payload(f"t{n}", now_us)) for n in numbers),
        *(
            ("sessions", session_payload(f"s{n}-{m}", f"t{n}", now_us - (m + 1) * DAY_US, now_us - DAY_US // 2))
            for n in numbers
            for m in range(n + 1)
        ),
        *(
            ("feedback", feedback_payload(f"f{n}", f"s{n}-0", f"t{n}", 1 + n % 5, now_us - DAY_US // 4))
            for n in numbers
        ),
    )
    await eventually(lambda: _sums(deployment) == (TUTORS, TUTORS, TUTORS * (TUTORS + 1) // 2), seconds=60)


def _sums(deployment: Deployment) -> tuple[int, int, int]:
    """Rows over 30 days, how many of them have a rating, and their sessions."""
    with psycopg.connect(deployment.database) as connection:
        found = connection.execute(
            "SELECT count(*), count(avg_rating), coalesce(sum(sessions_completed), 0) FROM tutor_performance_metrics"
            """ WHERE "window" = 'THIRTY_DAY'"""
        ).fetchone()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def address(ground: Deployment) -> str:
    return f"http://127.0.0.1:{ground.workers[0].port}"
