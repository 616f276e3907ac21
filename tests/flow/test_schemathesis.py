"""A running worker keeps what its document promises, whatever it is asked: schemathesis makes up the questions.

`SCHEMATHESIS_SECONDS` is how long all callers ask together; `make test-long` gives them five minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.flow import users
from tests.flow.documented import assert_documented
from tests.flow.driver import Deployment
from tests.flow.processes import Worker
from tests.flow.stories import Deploy
from tests.flow.users import KEY, STAFF, TUTOR, token
from tests.oracle import DAY_US
from tests.samples import feedback_payload, session_payload, tutor_payload

TUTORS = 4
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "30"))
SEED = 20260131
NEVER_ENDING = "/events|/ws/dashboard"  # asked by hand below
FAILED = "a request to"  # what a worker logs with a 500


@pytest.fixture(scope="module")
def asked(deploy: Deploy, new_database: Callable[[], str]) -> Deployment:
    """A worker and a few tutors."""
    database = new_database()
    users.make(database)
    deployment = deploy(database=database, settings={"SECRET_KEY": KEY, "TUTORMAX_WEB_RATE_PER_MINUTE": "0"})
    now_us = time.time_ns() // 1000

    async def begin() -> None:
        worker = deployment.worker()
        worker.start()
        await worker.until_ready()
        await tell(deployment, now_us)
        await deployment.assert_right()

    asyncio.run(begin())
    users.link(database, "t1")
    return deployment


async def tell(deployment: Deployment, now_us: int) -> None:
    tutors = range(TUTORS)
    sessions = [(n, f"s{n}-{m}", now_us - (m + 1) * DAY_US) for n in tutors for m in range(n)]
    await deployment.tell(
        *(("tutors", tutor_payload(f"t{n}", now_us)) for n in tutors),
        *(("sessions", session_payload(id_, f"t{n}", at_us, now_us - DAY_US // 2)) for n, id_, at_us in sessions),
        *(("feedback", feedback_payload(f"f{n}", f"s{n}-0", f"t{n}", 5, now_us - DAY_US // 4)) for n in tutors if n),
    )


CONFIGURATION = f"""
[generation]
database = "none"

[[operations]]
include-path-regex = "{NEVER_ENDING}"
enabled = false

[[operations]]
include-path-regex = "/tutors$"
# A cursor is what a page gave; no schema says which texts are.
checks.positive_data_acceptance.expected-statuses = [200, 400, 401, 403, 503]

[[operations]]
include-path-regex = "/tutors/metrics$"
# What is no list of texts becomes one in a query: `ids=false` is a tutor of that name.
checks.negative_data_rejection.expected-statuses = [200, 400, 401, 403, 405, 413, 429, 503]
"""


def with_tutors(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it is served, knowing tutors that exist."""
    known: dict[str, list[Any]] = {
        "tutor_id": [*(f"t{n}" for n in range(TUTORS)), "nobody"],
        "ids": [["t1"], ["t3", "t0", "nobody"]],
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in known:
                    values = enumerate(known[parameter["name"]])
                    parameter["examples"] = {f"of-{number}": {"value": value} for number, value in values}
    return document


def schemathesis(worker: Worker, home: Path, seconds: int, *options: str) -> tuple[int, str]:
    """Exit code and words."""
    configuration = home / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    document = home / "openapi.json"
    document.write_text(json.dumps(with_tutors(json.loads(worker.get("/openapi.json") or b""))))
    command = [
        *(str(Path(sys.executable).parent / "st"), "--no-color", "--config-file", str(configuration)),
        *("run", str(document), "--url", f"http://127.0.0.1:{worker.port}"),
        *("--seed", str(SEED), "--max-time", str(seconds)),
        *("--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all", "--request-timeout", "20"),
        *("--warnings", "off", "--continue-on-failure", *options),
    ]
    ended = subprocess.run(
        command, cwd=home, capture_output=True, text=True, timeout=seconds + 240, check=False,
        env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize(
    ("caller", "share"), [(STAFF, 0.6), (TUTOR, 0.2), (None, 0.2)], ids=["staff", "tutor", "stranger"]
)
def test_whatever_is_asked_the_answer_is_a_documented_one(
    asked: Deployment, tmp_path: Path, caller: int | None, share: float
):
    (worker,) = asked.workers
    bearer = [] if caller is None else ["--header", f"Authorization: Bearer {token(caller)}"]
    code, said = schemathesis(worker, tmp_path, int(SECONDS * share), *bearer)
    assert code == 0, said[-20_000:]
    assert FAILED not in worker.log.read_text(errors="replace")
    if caller == STAFF:
        assert worker.metric("lookups", source="stream") > 0, "tutors that exist were asked for"


@pytest.mark.parametrize(
    "target",
    [
        b"/tutors/\xff\xfe/metrics",
        b"/tutors/\xed\xa0\x80/trends",
        b"/tutors?search=\xed\xa0\x80",
        b"/tutors?search=%ED%A0%80%FF",
        b"/tutors/metrics?ids=\xff,%FF,t1",
        b"/tutors?sort=--avg_rating",
        b"/tutors/" + 9000 * b"x" + b"/metrics",
    ],
)
async def test_bytes_that_are_no_text_are_refused_or_found_nowhere(asked: Deployment, target: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", asked.workers[0].port)
    authorization = f"Authorization: Bearer {token(STAFF)}\r\nConnection: close".encode()
    writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + authorization + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert int(answer.split()[1]) in (200, 400, 404), answer


async def test_what_is_pushed_is_documented(asked: Deployment):
    base = f"http://127.0.0.1:{asked.workers[0].port}"
    told: dict[tuple[str, str], Any] = {}  # the last, by channel and message
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token(STAFF)}"}) as client,
        client.ws_connect(f"{base}/ws/dashboard") as socket,
        client.get(f"{base}/events") as events,
    ):
        assert (events.status, events.content_type) == (200, "text/event-stream")

        async def listen() -> None:
            event = ""
            async for line in events.content:
                name, _, value = line.decode().rstrip().partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    told["events", f"event.{event}"] = json.loads(value)

        async def hear() -> None:
            async for message in socket:
                body = json.loads(message.data)
                told["socket", body["type"]] = body

        listening = [asyncio.create_task(listen()), asyncio.create_task(hear())]
        number = 0
        awaited = {("events", "event.metrics"), ("socket", "metrics_update"), ("socket", "analytics_update")}
        while not awaited <= set(told):  # it begins with its first listener
            number += 1
            assert number < 30, told
            now_us = time.time_ns() // 1000
            await asked.tell(("sessions", session_payload(f"p{number}", "t2", now_us - DAY_US, now_us)))
            await asyncio.sleep(1)
        for task in listening:
            task.cancel()
    for (channel, message), body in told.items():
        assert_documented(channel, message, body)
