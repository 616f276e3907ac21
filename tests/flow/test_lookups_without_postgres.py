"""Lookups while PostgreSQL is away or hangs, without a key, and what of secrets is in the log: two real workers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict

from tests.faults.proxy import Door, Switchboard
from tests.flow import users
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.flow.stories import Deploy
from tests.flow.test_lookups import ask
from tests.flow.users import KEY, token
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_payload
from tutormax_streams.web.guard import COOKIE

TUTORS = 8
WITHIN_SECONDS = 2.0
"""What a lookup may take whatever PostgreSQL does. A machine with two cores runs all servers besides."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


def is_ready(worker: Worker, query: str = "") -> bool:
    return bool(json.loads(worker.get(f"/readyz{query}") or "{}").get("ready"))


class Ground(NamedTuple):
    deployment: Deployment
    door: Door


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(deploy: Deploy, new_database: Callable[[], str]) -> AsyncIterator[Ground]:
    """Two workers that reach PostgreSQL through a door, and some tutors of each, looked up once already. The second logs
    whatever there is to log."""
    database = new_database()
    users.make(database)
    port = int(str(conninfo_to_dict(database)["port"]))
    board = Switchboard()
    try:
        door = board.door(port)
        deployment = deploy(database=database, settings={"SECRET_KEY": KEY, "TUTORMAX_WEB_RATE_PER_MINUTE": "0"})
        loud = {"TUTORMAX_LOG_LEVEL": "DEBUG", "TUTORMAX_LOG_FORMAT": "json"}
        for log in ({}, loud):
            deployment.worker(TUTORMAX_DATABASE_URL=database.replace(f":{port}/", f":{door.port}/"), **log).start()
        for worker in deployment.workers:
            await worker.until_ready()
        now_us = time.time_ns() // 1000
        await deployment.tell(*(("tutors", tutor_payload(f"t{n}", now_us)) for n in range(TUTORS)))
        await deployment.quiet()
        for worker in deployment.workers:
            assert ask(worker, "/tutors/t1/metrics")[0] == 200
        yield Ground(deployment, door)
    finally:
        board.close()


@pytest.mark.parametrize("how", ["cut", "stall"])
async def test_lookups_never_go_away_because_postgresql_did(ground: Ground, how: str):
    """Even when the row of who asks would have to be looked up again, and at any worker that knows who asks, whether or
    not the tutor's owner does."""
    deployment, door = ground
    now_us, began_at = time.time_ns() // 1000, time.monotonic()
    for worker in deployment.workers:
        assert ask(worker, "/tutors/t1/metrics")[0] == 200
    first, second = deployment.workers
    assert ask(first, "/whoami", users.MANAGER)[0] == 200
    getattr(door, how)()
    try:
        number = 0
        while any(is_ready(worker) for worker in deployment.workers):
            number += 1
            session = session_payload(f"{how}-{number}", "t1", now_us - DAY_US, now_us)
            await deployment.tell(("sessions", session))  # somebody has to want PostgreSQL
            await asyncio.sleep(1)
            assert number < 60
        assert all(is_ready(worker, "?role=stream") for worker in deployment.workers)
        sources, slowest = set(), 0.0
        # A user's row is fresh for 30 s. One way of going away is enough to see it grow old.
        until = max(time.monotonic() + 3, began_at + 32 if how == "stall" else 0)
        while time.monotonic() < until:
            for tutor in range(TUTORS):
                for worker in deployment.workers:
                    for path in ("metrics", "performance"):
                        began = time.monotonic()
                        status, body = await asyncio.to_thread(ask, worker, f"/tutors/t{tutor}/{path}")
                        slowest = max(slowest, time.monotonic() - began)
                        assert status == 200, body
                        sources.add(body["source"])
                        if path == "performance":
                            assert body["churn"] is None
            await asyncio.sleep(1)
        assert sources == {"stream"}
        for tutor in range(TUTORS):
            status, body = await asyncio.to_thread(ask, first, f"/tutors/t{tutor}/metrics", users.MANAGER)
            assert (status, body.get("source")) == (200, "stream"), body
        if how == "cut":  # where it hangs this takes long
            assert ask(second, "/tutors/t1/metrics", users.MANAGER)[0] == 503, "it has never heard of them"
        assert slowest < WITHIN_SECONDS
        status, body = await asyncio.to_thread(ask, deployment.workers[0], "/tutors?limit=5")
        assert (status, body["error"]) == (503, "PostgreSQL does not answer"), "and not who, where and why"
        number += 1
        await deployment.tell(("sessions", session_payload(f"{how}-{number}", "t1", now_us - DAY_US, now_us)))
        counted = deployment.oracle().metrics("t1", time.time_ns() // 1000)["30day"]["sessions_completed"]

        def looked_up() -> int:
            found: int = ask(deployment.workers[0], "/tutors/t1/metrics")[1]["metrics"]["sessions_completed"]
            return found

        await eventually(lambda: looked_up() == counted)
    finally:
        door.mend()
    for worker in deployment.workers:
        await worker.until_ready()
    await deployment.assert_right()


async def test_no_secret_is_in_the_logs(ground: Ground):
    """Of the tokens that the tests above sent, and of one that is sent to every door here, in every way, whoever's it is."""
    deployment, _ = ground
    password = str(conninfo_to_dict(deployment.database)["password"])
    for worker in deployment.workers:
        for user_id, expected in ((users.STAFF, 200), (users.TUTOR, 403), (users.STRANGER, 401)):
            for name, value in (("Authorization", "Bearer {}"), ("Cookie", f"{COOKIE}={{}}")):
                headers = {name: value.format(token(user_id))}
                assert ask(worker, "/tutors/t2/performance", None, **headers)[0] == expected
        forged = f"{token(users.STAFF)}x"
        assert ask(worker, "/tutors/t2/trends", None, Authorization=f"Bearer {forged}")[0] == 401
        assert worker.metric("lookups"), "it was asked, and answered"
    secrets = {KEY, password}
    for sent in users.given:
        header, payload, signature = sent.split(".")
        secrets |= {header, f"{payload}.{signature}", signature}
    assert len(users.given) > 3
    for worker in deployment.workers:
        text = worker.log.read_text(errors="replace")
        assert "Worker ready" in text, "the log is the one that is meant"
        assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize("key", ["", "change-me-in-production"])
async def test_without_a_key_that_is_secret_lookups_do_not_open(ground: Ground, key: str):
    deployment, _ = ground
    worker = deployment.worker(SECRET_KEY=key)
    worker.start()
    try:
        await worker.until_ready()
        for path in ("/tutors/t1/metrics", "/tutors", "/dashboard/analytics", "/dashboard/alerts", "/events"):
            status, body = await asyncio.to_thread(ask, worker, path)
            assert (status, "SECRET_KEY" in body["error"]) == (503, True), body
    finally:
        worker.kill()
