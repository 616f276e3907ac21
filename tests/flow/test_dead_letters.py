"""Dead letters on a real broker: refused by a worker, listed, shown, mended and replayed by the command line."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.flow import judge, users
from tests.flow.driver import Deployment, eventually
from tests.flow.stories import Deploy
from tests.flow.test_lookups import ask
from tests.oracle import Payload
from tests.samples import bare, enveloped, feedback_payload, session_payload, tutor_payload
from tutormax_streams.cli import app

NOT_JSON = b'{"session_id": "s-not-json", oops \xff}'
KEY = b"my own key"


async def command(deployment: Deployment, *arguments: str) -> Result:
    """The command line as an operator of the deployment runs it."""
    environ = {name: value for name, value in deployment.given.items() if name != "TUTORMAX_FLUSH_INTERVAL_SECONDS"}
    return await asyncio.to_thread(CliRunner().invoke, app, ["dead-letters", *arguments], env=environ)


async def listed(deployment: Deployment, *options: str) -> dict[str, dict[str, Any]]:
    """Reason -> letter."""
    result = await command(deployment, "list", "--json", *options)
    assert result.exit_code == 0, result.output
    letters = [json.loads(line) for line in result.stdout.splitlines()]
    return {letter["reason"]: letter for letter in letters}


def ids(deployment: Deployment, table: Any, column: str) -> set[str]:
    return {row[column] for row in judge.rows(deployment.database, f"SELECT {column} FROM {table}")}


class Refused:
    """What a producer did wrong, and how it should have been."""

    def __init__(self, now_us: int) -> None:
        self.tutor = tutor_payload("t1", now_us)
        self.late: Payload = session_payload("s-late", "t1", now_us, now_us, late_start_minutes=-5)
        self.astray = feedback_payload("f-astray", "s-late", "t1", 4, now_us)
        self.repaired = session_payload("s-repaired", "t1", now_us, now_us)
        self.damaged = enveloped(
            session_payload("s-damaged", "t1", now_us, now_us), random.Random(1), checksum="0" * 64
        )

    async def publish(self, deployment: Deployment) -> None:
        sessions = deployment.topics.raw("sessions")
        async with deployment.producer() as producer:
            await producer.send_and_wait(deployment.topics.raw("tutors"), bare(self.tutor))
            await producer.send_and_wait(sessions, bare(self.late), key=KEY, headers=[("trace", b"42")])
            await producer.send_and_wait(sessions, bare(self.astray))
            await producer.send_and_wait(sessions, NOT_JSON)
            await producer.send_and_wait(sessions, self.damaged)


@pytest.mark.slow
async def test_what_was_refused_can_be_listed_shown_mended_and_replayed(
    deploy: Deploy, new_database: Callable[[], str], tmp_path: Path
):
    database = new_database()
    users.make(database)
    deployment = deploy(database=database, settings={"SECRET_KEY": users.KEY})
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    refused = Refused(time.time_ns() // 1000)
    await refused.publish(deployment)

    # They are counted by reason, and listed with what is wrong.
    await eventually(lambda: worker.metric("dead_letters") == 4)
    status, state = await asyncio.to_thread(ask, worker, "/operations/state")
    assert status == 200
    assert sorted(state["dead_letters"], key=lambda counted: counted["reason"]) == [
        {"topic": "sessions", "reason": reason, "count": 1, "recent": 1}
        for reason in ("checksum", "invalid", "not_json", "wrong_kind")
    ]
    assert state["problems"] == [{"level": "odd", "text": "4 events were refused in the last minutes"}]
    letters = await listed(deployment)
    assert letters.keys() == {"invalid", "wrong_kind", "not_json", "checksum"}
    assert letters["invalid"]["key"] == KEY.decode()
    assert letters["invalid"]["headers"] == {"trace": "42"}
    assert "late_start_minutes" in letters["invalid"]["detail"]
    assert (await listed(deployment, "--reason", "not_json", "--reason", "checksum")).keys() == {"not_json", "checksum"}
    assert await listed(deployment, "--topic", "feedback") == {}
    table = await command(deployment, "list", "--limit", "1")
    assert "the newest 1 of 4" in table.stdout

    # One is shown by its source or by its own place, its bytes intact.
    place = {reason: letter["letter"] for reason, letter in letters.items()}
    shown = await command(deployment, "show", place["invalid"])
    assert '"late_start_minutes": -5' in shown.stdout
    assert (await command(deployment, "show", letters["invalid"]["stands_at"])).stdout == shown.stdout
    assert (await command(deployment, "show", place["not_json"], "--raw")).stdout_bytes == NOT_JSON
    assert (await command(deployment, "show", "sessions/0/999999")).exit_code == 1

    # As they are they would be refused again, so nothing is published.
    tried = await command(deployment, "replay", "--all")
    assert tried.exit_code == 1
    assert tried.stdout.count("would be refused again") == 4
    dry = await command(deployment, "replay", "--reason", "invalid", "--fix", '{"late_start_minutes": 5}', "--dry-run")
    assert dry.exit_code == 0
    assert "would be accepted" in dry.stdout
    assert len(await deployment.read(deployment.topics.raw("sessions"))) == 4

    # Mended, redirected or edited they come through.
    fixed = await command(deployment, "replay", place["invalid"], "--fix", '{"late_start_minutes": 5}')
    assert fixed.exit_code == 0, fixed.output
    assert (await command(deployment, "replay", "--reason", "wrong_kind", "--to", "feedback")).exit_code == 0
    edited = tmp_path / "event.json"
    edited.write_bytes(bare(refused.repaired))
    assert (await command(deployment, "replay", place["not_json"], "--with", str(edited))).exit_code == 0
    await eventually(lambda: ids(deployment, "sessions", "session_id") == {"s-late", "s-repaired"})
    await eventually(lambda: ids(deployment, "student_feedback", "feedback_id") == {"f-astray"})
    again = next(r for r in await deployment.read(deployment.topics.raw("sessions")) if ("trace", b"42") in r.headers[:1]
                 and len(r.headers) == 2)  # fmt: skip
    assert again.key == KEY
    assert dict(again.headers)["replay-of"].decode() == place["invalid"]

    # What was replayed is out of sight; forced, what is still wrong comes back as a letter that knows its first self.
    assert (await listed(deployment)).keys() == {"checksum"}
    assert (await listed(deployment, "--replayed")).keys() == letters.keys()
    assert (await command(deployment, "replay", "--all", "--force")).exit_code == 0
    await eventually(lambda: worker.metric("dead_letters") == 5)
    (returned,) = (await listed(deployment)).values()
    assert returned["letter"] != place["checksum"]
    assert returned["headers"] == {"replay-of": place["checksum"]}

    # Once more by name does no harm.
    before = judge.rows(deployment.database, "SELECT * FROM sessions ORDER BY session_id")
    repeated = await command(deployment, "replay", place["invalid"], "--fix", '{"late_start_minutes": 5}')
    assert repeated.exit_code == 0
    await deployment.quiet()
    assert judge.rows(deployment.database, "SELECT * FROM sessions ORDER BY session_id") == before
    assert await worker.stop() == 0
