"""The README's examples, run as written: only addresses, names, places and dates are those of the test."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.flow import judge, users
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker, environment
from tests.flow.stories import Deploy
from tests.oracle import Payload
from tests.samples import bare
from tests.test_docs import ROOT, marked
from tutormax_streams.embedded.server import HOST

README = (ROOT / "README.md").read_text()
PROGRAMS = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
WRITTEN = datetime(2026, 1, 22, tzinfo=UTC)  # just after all that the examples tell


def block(language: str, word: str) -> str:
    """The one fenced block of a language that holds `word`."""
    (found,) = (text for text in re.findall(rf"(?s)```{language}\n(.*?)```", README) if word in text)
    return str(found)


def adapted(text: str, **changes: str) -> str:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def events() -> dict[str, Payload]:
    """The example of each kind, its dates moved by as many days as it takes to be news."""
    days = datetime.now(UTC) - WRITTEN

    def moved(date: re.Match[str]) -> str:
        return (datetime.fromisoformat(date[0]) + timedelta(days.days)).date().isoformat()

    return {kind: json.loads(re.sub(r"\d{4}-\d\d-\d\d(?=T)", moved, text)) for kind, text in marked("event", "json")}


async def test_what_the_python_example_publishes_is_what_the_sql_example_shows(living: Deployment, tmp_path: Path):
    told = events()
    (tmp_path / "session.json").write_text(json.dumps(told["session"]))
    example = adapted(
        block("python", "AIOKafkaProducer"),
        **{
            "localhost:9092": living.settings.kafka_bootstrap_servers,
            "tutormax.sessions": living.topics.raw("sessions"),
        },
    )
    living.payloads["sessions"].append(told["session"])
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=60)
    await living.tell(("tutors", told["tutor"]), ("feedback", told["feedback"]), ("tutor-events", told["tutor_event"]))
    await living.assert_right()
    with psycopg.connect(living.database, row_factory=dict_row) as connection:
        shown: list[dict[str, Any]] = connection.execute(block("sql", "performance_tier").encode()).fetchall()
    (row,) = shown
    stored = living.rows_of(told["tutor"]["tutor_id"])["THIRTY_DAY"]
    assert (row["avg_rating"], row["sessions_completed"]) == (5.0, 1)
    assert (row["engagement_score"], str(row["performance_tier"])) == (
        stored["engagement_score"],
        str(stored["performance_tier"]),
    )


async def test_what_the_example_with_another_client_publishes_comes_through(living: Deployment, tmp_path: Path):
    told = events()["session"] | {"session_id": "by-another-client"}
    (tmp_path / "session.json").write_text(json.dumps(told))
    example = adapted(
        block("python", "confluent_kafka"),
        **{
            "localhost:9092": living.settings.kafka_bootstrap_servers,
            "tutormax.sessions": living.topics.raw("sessions"),
        },
    )
    living.payloads["sessions"].append(told)
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", example], cwd=tmp_path, check=True, timeout=60)
    await living.assert_right()


def shell(script: str, given: Mapping[str, str]) -> str:
    """What the script's commands print; each must succeed."""
    done = subprocess.run(
        ["/bin/sh", "-ec", script], env=environment({**given, **PROGRAMS}), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
async def test_a_worker_begun_as_written_answers_curl_and_what_it_refuses_is_mended_as_written(
    deploy: Deploy, empty_postgres: str
):
    deployment = deploy(database=empty_postgres, settings={"SECRET_KEY": users.KEY})
    given = dict(deployment.given)
    begin = adapted(
        block("sh", "tutormax-streams worker"),
        **{
            "pip install .": "true",  # that the wheel will do is shown by tests/deploy
            "kafka:9092": given.pop("KAFKA_BOOTSTRAP_SERVERS"),
            "FACTOR=3": "FACTOR=1",
            "postgresql://tutormax:secret@db/tutormax": given.pop("TUTORMAX_DATABASE_URL"),
            "tutormax-streams worker": "exec tutormax-streams worker",  # so that signals reach it, not the shell
        },
    )
    worker = Worker("begun-as-written", deployment.home, {**given, **PROGRAMS}, ["/bin/sh", "-ec", begin])
    deployment.workers.append(worker)
    worker.start()
    await worker.until_ready()

    users.make(empty_postgres)
    told = events()
    await deployment.tell(("tutors", told["tutor"]), ("tutor-events", told["tutor_event"]))
    async with deployment.producer() as producer:
        sessions = deployment.topics.raw("sessions")
        invalid = await producer.send_and_wait(sessions, bare(told["session"] | {"late_start_minutes": -1}))
        await producer.send_and_wait(sessions, bare(told["feedback"]))
    await eventually(lambda: worker.metric("dead_letters") == 2)
    mend = adapted(
        block("sh", "dead-letters list"), **{"sessions/3/120": f"sessions/{invalid.partition}/{invalid.offset}"}
    )
    printed = await asyncio.to_thread(shell, mend, deployment.given)
    assert "late_start_minutes" in printed
    deployment.payloads["sessions"].append(told["session"] | {"late_start_minutes": 0})
    deployment.payloads["feedback"].append(told["feedback"])
    await deployment.quiet()
    assert not judge.wrong_tables(deployment.database, deployment.oracle())
    assert worker.metric("dead_letters") == 2, "what was replayed is not refused again"

    asked = adapted(block("sh", "curl"), **{"localhost:6066": f"{HOST}:{worker.port}"})
    answer = json.loads(await asyncio.to_thread(shell, asked, {"TOKEN": users.token(users.STAFF)}))
    assert (answer["success"], answer["tutor_id"], answer["window"]) == (True, told["tutor"]["tutor_id"], "7day")
    assert answer["metrics"]["sessions_completed"] == 1
    assert await worker.stop() == 0
