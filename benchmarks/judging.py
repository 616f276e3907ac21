"""Whether what a benchmark produced is right: a figure for wrong rows is worth nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import dict_row

from benchmarks.ground import Deployment, Loaded
from models import metrics
from models.metrics import MetricsUpdated
from tests.oracle import Oracle
from tutormax_streams import scans
from tutormax_streams.audit import audit
from tutormax_streams.postgres.database import Database
from tutormax_streams.topics import Topics

TABLES = {"tutors": "tutors", "sessions": "sessions", "feedback": "student_feedback", "tutor-events": "tutor_events"}


class Wrong(Exception):
    """The pipeline's figures are not the referee's. Holds the first differences."""


async def newest_metrics(deployment: Deployment) -> dict[str, MetricsUpdated]:
    """The record with the greatest fence of every tutor."""
    newest: dict[str, MetricsUpdated] = {}
    async for record in scans.scan(deployment.settings, [Topics.of(deployment.settings).metrics]):
        update = metrics.decode(record.value)
        known = newest.get(update.tutor_id)
        if known is None or known.fence < update.fence:
            newest[update.tutor_id] = update
    return newest


async def judge_metrics(deployment: Deployment, loaded: Loaded, now_us: int) -> str:
    """Published metrics of the sampled tutors against the oracle. Raises `Wrong`; a sentence if all is right."""
    oracle, newest = Oracle(loaded.sampled, now_us), await newest_metrics(deployment)
    differences = []
    for tutor_id in sorted(oracle.tutors):
        if tutor_id not in newest:
            differences.append(f"{tutor_id}: nothing published")
            continue
        update = newest[tutor_id]
        for window, expected in oracle.metrics(tutor_id, update.as_of_us).items():
            found = {name: getattr(update.windows[window], name) for name in expected}
            differences += _differences(f"{tutor_id} {window}", expected, found)
    if len(newest) != loaded.events["tutors"]:
        differences.append(f"{len(newest)} tutors published, {loaded.events['tutors']} expected")
    _raise_for(differences)
    return f"metrics records of all {len(newest)} tutors there, {len(oracle.tutors)} compared with the oracle"


async def judge_rows(deployment: Deployment, loaded: Loaded, now_us: int) -> str:
    """Rows of PostgreSQL: all counts, the sampled tutors against the oracle, everyone by the SQL audit.

    Raises `Wrong`; a sentence if all is right.
    """
    oracle = Oracle(loaded.sampled, now_us)
    differences = []
    with psycopg.connect(deployment.conninfo, row_factory=dict_row) as connection:
        for topic, table in TABLES.items():
            if (found := _one(connection, f"SELECT count(*) AS n FROM {table}")["n"]) != len(loaded.ids.get(topic, ())):
                differences.append(f"{table}: {found} rows, {len(loaded.ids.get(topic, ()))} expected")
        parked = _one(connection, "SELECT count(*) AS n FROM tutormax_streams.parked")["n"]
        if parked:
            differences.append(f"{parked} records are parked")
        rows = connection.execute(
            "SELECT *, (extract(epoch FROM calculation_date) * 1000000)::int8 AS as_of_us FROM tutor_performance_metrics "
            "WHERE tutor_id = ANY(%s)",
            [sorted(oracle.tutors)],
        ).fetchall()
        if len(rows) != 3 * len(oracle.tutors):
            differences.append(f"{len(rows)} rows of metrics for {len(oracle.tutors)} tutors")
        for row in rows:
            expected = oracle.stored_metrics(row["tutor_id"], row["as_of_us"])[row["window"]]
            differences += _differences(f"{row['tutor_id']} {row['window']}", expected, row)
    async with Database(deployment.conninfo, size=1) as database:
        audited = await audit(database, "normalized")
    differences += [str(difference) for difference in audited.differences]
    _raise_for(differences)
    return f"{audited.rows} rows of metrics audited in SQL, {len(rows)} compared with the oracle; raw rows complete"


def _differences(where: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{where} {name}: {found[name]!r}, not {value!r}" for name, value in expected.items() if found[name] != value
    ]


def _raise_for(differences: list[str]) -> None:
    if differences:
        raise Wrong(f"{len(differences)} differences: " + "; ".join(differences[:5]))


def _one(connection: psycopg.Connection[dict[str, Any]], query: str) -> dict[str, Any]:
    found = connection.execute(query).fetchone()
    assert found is not None
    return found
