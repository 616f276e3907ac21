"""The README's examples for clients, run as written: only addresses, names and dates are those of the test."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.flow.driver import Deployment
from tests.oracle import Payload
from tests.test_docs import ROOT, marked

README = (ROOT / "README.md").read_text()
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
