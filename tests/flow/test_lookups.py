"""Lookups at real workers: the owner's figures from anywhere, rows where it cannot answer, and nothing for strangers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, LiteralString, TypeVar
from urllib.parse import quote

import aiohttp
import psycopg
import pytest

from tests.flow import users
from tests.flow.driver import Deployment, eventually
from tests.flow.judge import rows
from tests.flow.moving import Moving
from tests.flow.processes import Worker
from tests.flow.stories import Deploy
from tests.flow.streams import NeverReads, Stream, listening, resident_bytes
from tests.flow.users import KEY, STAFF, STRANGER, TUTOR, token
from tests.oracle import DAY_US, TIER_NAME, WINDOW_NAME, Oracle, Payload, instant_us
from tests.samples import feedback_payload, session_payload, tutor_event_payload, tutor_payload
from tutormax_streams.batches import Partitioner
from tutormax_streams.web.push import LONGEST_WRITE_SECONDS

TUTORS = 12
MOVING = 6
MANY = 300  # tutors whose changes fill what the kernel keeps for who does not read: some megabytes
SLOW = 5  # clients of each kind
MOST_GROWTH = 96 * 2**20  # what they would be told in this time, kept for each of them, is half as much again


def ask(worker: Worker, path: str, user_id: int | None = STAFF, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    if user_id is not None:
        headers["Authorization"] = f"Bearer {token(user_id)}"
    request = urllib.request.Request(f"http://127.0.0.1:{worker.port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def strictly(worker: Worker, path: str, user_id: int = STAFF) -> tuple[int, str | None]:
    """Status, and when to ask again."""
    headers = {"Authorization": f"Bearer {token(user_id)}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{worker.port}{path}", headers=headers), timeout=10
        ) as response:
            return response.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Retry-After")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The oracle's row as a lookup shows it, rounded as the platform does."""
    return {
        name: round(value, 1) if name in RATES and value is not None else value
        for name, value in row.items()
        if name in SHOWN
    }


def assert_true(told: dict[str, Any], oracle: Oracle) -> None:
    """Every figure of an answer about one tutor, of one window or of all, is the oracle's as of the answer's instant."""
    expected = oracle.metrics(told["tutor_id"], instant_us(told["as_of"]))
    for window, figures in (told.get("windows") or {told["window"]: told["metrics"]}).items():
        right = shown(expected[window])
        assert {name: figures[name] for name in right} == right, f"never a false zero: {window} of {told}"
    if "windows" in told:
        assert told["performance_tier"] == expected["30day"]["performance_tier"], told
        assert told["tutor_status"] == oracle.tutors[told["tutor_id"]]["status"].lower(), told
        lost = declines(expected) if told["source"] == "stream" else None  # rows do not have it
        assert told["declines_7day_vs_30day"] == (lost and pytest.approx(lost, abs=0.005 + 1e-9)), told


def declines(windows: dict[str, dict[str, Any]]) -> dict[str, float | None]:
    """By how much the last week is worse than the last 30 days (contract, as documented): in rounded figures, sessions
    scheduled a week, and the latter as a share."""
    week, month = windows["7day"], windows["30day"]

    def lost(name: str) -> float | None:
        return None if month[name] is None or week[name] is None else month[name] - week[name]

    a_week = month["sessions_scheduled"] * 7 / 30
    return {
        "avg_rating_stars": lost("avg_rating"),
        "engagement_score_pct": lost("engagement_score"),
        "sessions_per_week": a_week - week["sessions_scheduled"],
        "sessions_per_week_frac": 1 - week["sessions_scheduled"] / a_week if a_week else None,
    }


RATES = ("first_session_success_rate", "reschedule_rate", "learning_objectives_met_pct", "response_time_avg_minutes")
SHOWN = ("performance_tier", "sessions_completed", "avg_rating", "no_show_count", "engagement_score", *RATES)
WINDOWS = ("7day", "30day", "90day")
STATUSES = ("active", "inactive")
Told = TypeVar("Told")
OLD = "t7"
"""A tutor with sessions that have left the longest window, and were in it within the last 30 days."""


def story(number: int, now_us: int) -> Iterator[tuple[str, Payload]]:
    """What happened to a tutor: as many sessions as its number says, one a day, and of everything some. t9 alone has one
    rating."""
    tutor_id = f"t{number}"
    for m in range(number):
        id_, mixed = f"s{number}-{m}", number + m
        changes = {
            "session_number": 1 if m % 3 == 0 else 2,
            "no_show": (mixed + m) % 8 == 7,
            "tutor_initiated_reschedule": mixed % 6 == 5,
            "learning_objectives_met": mixed % 5 != 2,
            "engagement_score": (40 + (7 * number + 11 * m) % 60) / 100,
            "late_start_minutes": 12 if mixed % 4 == 3 else 0,
        }
        start_us = now_us - (m + 1) * DAY_US
        yield "sessions", session_payload(id_, tutor_id, start_us, now_us - DAY_US // 2, **changes)
        if m == 0 or (m % 3 == 0 and number != 9):
            yield "feedback", feedback_payload(f"f{number}-{m}", id_, tutor_id, 1 + mixed % 5, now_us - DAY_US // 4)
    for k in range(number % 4):
        told = {"metadata": {"response_time_minutes": 3.37 * number + 2.9 * k}}
        at_us = now_us - (5 * k + 1) * DAY_US
        yield "tutor-events", tutor_event_payload(f"r{number}-{k}", tutor_id, "message_response", at_us, **told)
    if number % 3 == 1:
        yield "tutor-events", tutor_event_payload(f"l{number}", tutor_id, "login", now_us - 2 * DAY_US)
    for days in (100, 118) if tutor_id == OLD else ():
        id_, start_us = f"s{number}-old{days}", now_us - days * DAY_US
        changes = {"session_number": 1, "learning_objectives_met": days == 100}
        yield "sessions", session_payload(id_, tutor_id, start_us, start_us + DAY_US, **changes)
        yield "feedback", feedback_payload(f"f{id_}", id_, tutor_id, 5 if days == 100 else 3, start_us + DAY_US)
        told = {"metadata": {"response_time_minutes": days / 7}}
        yield "tutor-events", tutor_event_payload(f"r{id_}", tutor_id, "message_response", start_us, **told)


@pytest.fixture(scope="module")
def looked_up(deploy: Deploy, new_database: Callable[[], str]) -> Deployment:
    """Three workers and a dozen tutors, everything committed."""
    database = new_database()
    users.make(database)
    deployment = deploy(
        database=database,
        settings={"SECRET_KEY": KEY, "TUTORMAX_WEB_RATE_PER_MINUTE": "0", "TUTORMAX_ALERT_SETTLE_SECONDS": "1"},
    )
    now_us = time.time_ns() // 1000

    async def begin() -> None:
        for _ in range(3):
            deployment.worker().start()
        for worker in deployment.workers:
            await worker.until_ready()
        await deployment.tell(
            *(("tutors", tutor_payload(f"t{n}", now_us, status=STATUSES[n % 2])) for n in range(TUTORS)),
            *(event for n in range(TUTORS) for event in story(n, now_us)),
        )
        await deployment.assert_right()

    asyncio.run(begin())
    users.link(database, "t3")
    return deployment


def test_every_worker_answers_for_every_tutor_with_the_oracles_figures(looked_up: Deployment):
    oracle = looked_up.oracle()
    for number in range(TUTORS):
        for worker in looked_up.workers:
            for window in WINDOWS:
                began_us = time.time_ns() // 1000
                status, body = ask(worker, f"/tutors/t{number}/metrics?window={window}")
                assert (status, body["source"], body["tutor_id"]) == (200, "stream", f"t{number}")
                assert body["age_seconds"] < 1
                assert began_us <= instant_us(body["as_of"]) <= time.time_ns() // 1000
                assert_true(body, oracle)
    served = {worker.name: worker.metric("lookups", source="stream") for worker in looked_up.workers}
    assert all(served.values()), f"each owns some tutors: {served}"
    assert sum(worker.metric("lookups", source="forwarded") for worker in looked_up.workers) > 0
    now_us = time.time_ns() // 1000
    right = [row for n in range(TUTORS) for row in oracle.metrics(f"t{n}", now_us).values()]
    for name in SHOWN:
        values = {row[name] for row in right} - {None}
        assert len(values) > 2, f"nothing is shown where {name} is hardly ever anything else: {values}"
        assert name not in RATES or any(round(value, 1) != value for value in values), "rounding shows"


def test_performance_says_why_it_is_this_tier(looked_up: Deployment):
    oracle = looked_up.oracle()
    for number in range(TUTORS):
        status, body = ask(looked_up.workers[number % 3], f"/tutors/t{number}/performance")
        assert (status, body["source"], set(body["windows"])) == (200, "stream", set(WINDOWS))
        assert_true(body, oracle)
    status, body = ask(looked_up.workers[0], "/api/tutors/t5/performance")
    assert status == 200
    assert body["performance_tier"] == body["windows"]["30day"]["performance_tier"]
    assert {flag["flag"] for flag in body["windows"]["30day"]["flags"]} <= {"green", "red", None}
    assert body["declines_7day_vs_30day"]["avg_rating_stars"] == 0.0
    now_us = time.time_ns() // 1000
    lost = [declines(oracle.metrics(f"t{n}", now_us)) for n in range(TUTORS)]
    for name in lost[0]:
        assert len({line[name] for line in lost}) > 2, f"nothing is shown where {name} is hardly ever anything else"
    assert {row["status"] for row in oracle.tutors.values()} == {"ACTIVE", "INACTIVE"}


def test_churn_is_told_when_somebody_has_predicted_it(looked_up: Deployment):
    worker = looked_up.workers[0]
    status, body = ask(worker, "/tutors/t5/performance")
    assert (status, body["churn"]) == (200, None), "the platform may not even have the table"
    users.predict(looked_up.database, "t5", 62, "HIGH")
    for worker in looked_up.workers:
        status, body = ask(worker, "/tutors/t5/performance")
        assert status == 200
        assert "churn_message" not in body
        assert body["churn"] == {
            "churn_score": 62,
            "risk_level": "HIGH",
            "prediction_date": "2025-11-02T00:00:00",
            "window_1day_probability": None,
            "window_7day_probability": None,
            "window_30day_probability": 0.62,
            "window_90day_probability": None,
            "contributing_factors": {"no_show_rate_30d": {"importance": 0.4, "value": 0.25}},
            "model_version": "1.0",
        }
    assert ask(worker, "/tutors/t6/performance")[1]["churn"] is None


def test_five_hundred_long_ids_fit_into_a_batch(looked_up: Deployment):
    ids = [f"{number:03}-{'x' * 46}" for number in range(499)] + ["t3"]
    status, body = ask(looked_up.workers[0], f"/tutors/metrics?ids={','.join(ids)}")
    assert status == 200, body
    assert ([row["tutor_id"] for row in body["tutors"]], len(body["unknown"])) == (["t3"], 499)


def test_a_tutor_that_the_platform_wrote_into_its_table_itself_is_known(looked_up: Deployment):
    with psycopg.connect(looked_up.database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tutors SELECT copy.* FROM tutors AS t, jsonb_populate_record(t, jsonb_build_object("
            "'tutor_id', 'by-sql', 'name', 'Sue', 'email', 'sue@example.org')) AS copy WHERE t.tutor_id = 't1'"
        )
    try:
        for worker in looked_up.workers:
            status, body = ask(worker, "/tutors/by-sql/metrics")
            assert (status, body.get("metrics"), body.get("tutor_name")) == (200, None, "Sue"), body
            assert ask(worker, "/tutors/by-sql/trends")[0] == 200
            assert ask(worker, "/tutors/nobody/metrics")[0] == 404
    finally:
        with psycopg.connect(looked_up.database, autocommit=True) as connection:
            connection.execute("DELETE FROM tutors WHERE tutor_id = 'by-sql'")


def test_a_trend_is_what_the_oracle_says_of_each_day(looked_up: Deployment):
    oracle = looked_up.oracle()
    for worker, tutor_id, window in itertools.product(looked_up.workers, ("t9", OLD), WINDOWS):
        status, body = ask(worker, f"/tutors/{tutor_id}/trends?window={window}")
        assert (status, body["window"], body["source"]) == (200, window, "stream")
        instants = [instant_us(day["as_of"]) for day in body["days"]]
        assert instants == [instants[-1] - days * DAY_US for days in range(29, -1, -1)]
        assert abs(instants[-1] - instant_us(body["as_of"])) < 1_000_000
        for day, at_us in zip(body["days"], instants, strict=True):
            expected = shown(oracle.metrics(tutor_id, at_us)[window])
            assert {key: day[key] for key in expected} == expected, (tutor_id, window, day["as_of"])
        if (tutor_id, window) == (OLD, "90day"):
            first, eleven_days_ago, last = body["days"][0], body["days"][18], body["days"][-1]
            told = [(day["avg_rating"], day["first_session_success_rate"]) for day in (first, eleven_days_ago)]
            assert told == [(4.0, 50.0), (5.0, 100.0)], "the older one has left the window by then"
            assert last["avg_rating"] < 4, "and so has the other"


def test_the_sessions_behind_a_figure_are_those_of_the_oracle(looked_up: Deployment):
    worker = looked_up.workers[0]
    stored = looked_up.oracle().tables()["sessions"].values()
    expected = sorted((row for row in stored if row["tutor_id"] == "t9"), key=lambda row: -row["scheduled_start"])
    week = [row["session_id"] for row in expected if row["scheduled_start"] > time.time_ns() // 1000 - 7 * DAY_US]
    assert 0 < len(week) < len(expected)
    status, body = ask(worker, "/tutors/t9/sessions?window=7day")
    assert status == 200
    assert [line["session_id"] for line in body["sessions"]] == week
    assert body["pagination"] == {"total": len(week), "limit": 20, "offset": 0, "has_more": False}
    seen = []
    for offset in range(0, len(expected), 4):
        page = ask(worker, f"/tutors/t9/sessions?limit=4&offset={offset}")[1]
        assert page["pagination"]["has_more"] == (offset + 4 < len(expected))
        seen += page["sessions"]
    for line, row in zip(seen, expected, strict=True):
        assert instant_us(line["scheduled_start"]) == row["scheduled_start"]
        assert {key: line[key] for key in line if key in row} | {"scheduled_start": 0, "actual_start": 0} == {
            key: row[key] for key in line if key in row
        } | {"scheduled_start": 0, "actual_start": 0}
    assert {line["session_id"]: line["overall_rating"] for line in seen}["s9-0"] == 1 + 9 % 5
    assert {line["overall_rating"] for line in seen} == {None, 1 + 9 % 5}
    assert ask(worker, "/tutors/nobody/sessions")[0] == 404
    assert ask(worker, "/tutors/t9/sessions", TUTOR)[0] == 403
    assert ask(worker, "/tutors/t3/sessions", TUTOR)[0] == 200
    assert ask(worker, "/tutors/t9/sessions?limit=0")[0] == 400


def test_lists_are_complete_in_order_and_paged(looked_up: Deployment):
    worker = looked_up.workers[0]
    for sort in ("tutor_id", "-tutor_name", "avg_rating", "-avg_rating", "-sessions_completed"):
        seen = pages(worker, f"sort={sort}")
        assert sorted(row["tutor_id"] for row in seen) == sorted(f"t{n}" for n in range(TUTORS)), sort
        values = [row[sort.lstrip("-")] for row in seen]
        known = [value for value in values if value is not None]
        assert values == known + [None] * (len(values) - len(known)), "nothing to stand on comes last"
        assert known == sorted(known, reverse=sort.startswith("-")), sort
    assert [row["tutor_id"] for row in ask(worker, "/tutors?search=t11")[1]["tutors"]] == ["t11"]
    body = ask(worker, "/tutors/metrics?ids=t2,nobody,t1&window=90day")[1]
    assert ([row["tutor_id"] for row in body["tutors"]], body["unknown"]) == (["t2", "t1"], ["nobody"])


def pages(worker: Worker, query: str) -> list[dict[str, Any]]:
    """All lines of a list, five at a time. `now`: of the answer that a line came with."""
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        status, body = ask(worker, f"/tutors?{query}&limit=5&cursor={cursor}")
        assert status == 200, body
        seen += [{**line, "now": body["timestamp"]} for line in body["tutors"]]
        cursor = body["next_cursor"]
    return seen


def with_rows(deployment: Deployment, told: Callable[[], Told]) -> tuple[dict[tuple[str, str], dict[str, Any]], Told]:
    """What is told while no row changes; and by tutor and window the figures that the oracle has for the rows' instants,
    which are `at_us`."""

    def instants() -> dict[tuple[str, str], int]:
        query: LiteralString = 'SELECT tutor_id, "window", calculation_date FROM tutor_performance_metrics'
        names = {name: window for window, name in WINDOW_NAME.items()}
        stored = rows(deployment.database, query)
        return {(row["tutor_id"], names[row["window"]]): row["calculation_date"] for row in stored}

    oracle = deployment.oracle()
    for _ in range(20):
        before, answer = instants(), told()
        if instants() == before:
            return {
                (id_, w): {**oracle.metrics(id_, at_us)[w], "at_us": at_us} for (id_, w), at_us in before.items()
            }, answer
    raise AssertionError("rows changed all the while")


def assert_as_old(line: dict[str, Any], at_us: int, now: str) -> None:
    assert instant_us(line["as_of"]) == at_us
    assert line["age_seconds"] == round((instant_us(now) - at_us) / 1e6, 3)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_line_of_a_list_is_its_row_in_the_order_of_the_rows(looked_up: Deployment, window: str):
    for worker, sort in zip(itertools.cycle(looked_up.workers), (*RATES, "avg_rating", "-no_show_count"), strict=False):
        figures, lines = with_rows(looked_up, partial(pages, worker, f"sort={sort}&window={window}"))
        assert sorted(line["tutor_id"] for line in lines) == sorted(f"t{n}" for n in range(TUTORS))
        stored = [figures[line["tutor_id"], window] for line in lines]
        known = [row[sort.removeprefix("-")] for row in stored if row[sort.removeprefix("-")] is not None]
        assert known == sorted(known, reverse=sort.startswith("-")), "by the row's decimals, not by the shown ones"
        assert [row[sort.removeprefix("-")] for row in stored[: len(known)]] == known
        for line, row in zip(lines, stored, strict=True):
            assert {name: line[name] for name in SHOWN} == shown(row), line
            assert_as_old(line, row["at_us"], line["now"])


@pytest.mark.parametrize("window", WINDOWS)
def test_a_batch_is_the_rows_of_its_window(looked_up: Deployment, window: str):
    path = f"/tutors/metrics?window={window}&ids={','.join(f't{n}' for n in range(TUTORS))}"
    figures, (status, body) = with_rows(looked_up, partial(ask, looked_up.workers[2], path))
    assert (status, body["window"], len(body["tutors"])) == (200, window, TUTORS)
    for line in body["tutors"]:
        row = figures[line["tutor_id"], window]
        assert {name: line["metrics"][name] for name in SHOWN} == shown(row), line
        assert_as_old(line, row["at_us"], body["timestamp"])
        assert instant_us(line["calculation_date"]) == row["at_us"]
        assert (line["window"], line["source"]) == (window, "database")


def test_a_list_of_one_tier_has_all_tutors_of_that_tier_in_that_window(looked_up: Deployment):
    for window in WINDOWS:
        found = dict[str, list[str]]()
        for tier in TIER_NAME:
            query = f"tier={quote(tier)}&window={window}&sort=-engagement_score"
            figures, lines = with_rows(looked_up, partial(pages, looked_up.workers[0], query))
            found[tier] = [line["tutor_id"] for line in lines]
            expected = {f"t{n}" for n in range(TUTORS) if figures[f"t{n}", window]["performance_tier"] == tier}
            assert (set(found[tier]), len(lines)) == (expected, len(expected))
            engaged = [line["engagement_score"] for line in lines if line["engagement_score"] is not None]
            assert engaged == sorted(engaged, reverse=True)
        assert sorted(len(ids) > 1 for ids in found.values())[-2:] == [True, True], (
            f"two of them show something: {found}"
        )


def test_totals_are_sums_over_all_tutors(looked_up: Deployment):
    figures, (status, totals) = with_rows(looked_up, partial(ask, looked_up.workers[0], "/dashboard/analytics"))
    month = [row for (_, window), row in figures.items() if window == "30day"]
    assert (status, totals["total_tutors"], totals["active_tutors"], len(month)) == (200, TUTORS, TUTORS, TUTORS)
    tiers = Counter(row["performance_tier"] for row in month)
    assert totals["performance_distribution"] == {tier: tiers[tier] for tier in TIER_NAME}
    assert totals["alerts_count"] == {
        "critical": tiers["At Risk"] + tiers["Needs Attention"],
        "warning": tiers["Developing"],
        "info": 0,
    }
    assert all(totals["alerts_count"][level] for level in ("critical", "warning")), "else nothing is shown"
    for told, name in (("avg_rating", "avg_rating"), ("avg_engagement_score", "engagement_score")):
        values = [row[name] for row in month if row[name] is not None]
        assert 0 < len(values) < TUTORS, "who has no figure does not count as a zero"
        assert totals[told] == pytest.approx(sum(values) / len(values), abs=0.005 + 1e-9)
        assert totals[told] == round(totals[told], 2)
    for days in (7, 30):
        sessions = [row["sessions_completed"] for (_, window), row in figures.items() if window == f"{days}day"]
        assert totals[f"total_sessions_{days}day"] == sum(sessions)
    assert totals["total_sessions_7day"] < totals["total_sessions_30day"]
    assert instant_us(totals["oldest_as_of"]) == min(row["at_us"] for row in month)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tutors/t1/metrics?window=8day", 400),
        ("/tutors/t1/metrics?max_age=soon", 400),
        ("/tutors/nobody/metrics", 404),
        ("/tutors/no%00body/metrics", 404),
        ("/tutors?sort=hashed_password", 400),
        ("/tutors?limit=0", 400),
        ("/tutors?cursor=rubbish", 400),
        ("/tutors/metrics?ids=", 400),
        ("/nothing/here", 404),
    ],
)
def test_what_is_wrong_with_a_request_is_said(looked_up: Deployment, path: str, status: int):
    for worker in looked_up.workers:
        found, body = ask(worker, path)
        assert (found, body["success"]) == (status, False), body
        assert set(body) == {"success", "error", "timestamp"}


def test_a_tutor_reads_itself_staff_everyone_and_strangers_nothing(looked_up: Deployment):
    for worker in looked_up.workers:
        assert ask(worker, "/tutors/t3/metrics", TUTOR)[0] == 200
        for path in (
            "/tutors/t4/metrics",
            "/tutors/nobody/metrics",
            "/tutors",
            "/dashboard/analytics",
            "/dashboard/alerts",
            "/events",
        ):
            assert ask(worker, path, TUTOR)[0] == 403, path
        assert ask(worker, "/tutors/metrics?ids=t3,t4", TUTOR)[0] == 403
        for path in ("/tutors/t3/metrics", "/tutors", "/whoami", "/ws/dashboard", "/api/tutors/t3/trends"):
            assert ask(worker, path, STRANGER)[0] == 401, path
            assert ask(worker, path, None) == (401, {"success": False, "error": "Unauthorized", "timestamp": ANY})
        assert ask(worker, "/livez", None)[0] == 200


async def test_the_state_of_operations_names_every_worker_and_every_partition_once(looked_up: Deployment):
    for worker in looked_up.workers:
        status, body = await asyncio.to_thread(ask, worker, "/operations/state")
        assert (status, body["asked"]) == (200, worker.name)
        assert [(told["name"], told["answers"]) for told in body["workers"]] == [
            (name, True) for name in sorted(worker.name for worker in looked_up.workers)
        ]
        partitions = looked_up.settings.kafka_partitions
        assert [entry["partition"] for entry in body["partitions"]] == list(range(partitions))
        assert {entry["state"] for entry in body["partitions"]} == {"serving"}
        for told in body["workers"]:
            owned = [entry["partition"] for entry in body["partitions"] if entry["owner"] == told["name"]]
            assert owned == told["tables"]["partitions"] == told["tables"]["serving"] != []
            assert all(role["ready"] for role in told["readiness"].values()), told
            assert told["started"]
        for topic in (looked_up.topics.validated, looked_up.topics.facts, looked_up.topics.enriched):
            assert body["topics"][topic]["partitions"] == partitions, "each is read by exactly one worker"
        assert body["freshness"]["events"] > 0
        assert 0 < body["freshness"]["p50_seconds"] <= body["freshness"]["p99_seconds"] < 60
        assert (body["sink"]["workers"], body["sink"]["waiting"]) == (3, [])
        assert (body["all_well"], body["problems"]) == (True, [])
        assert ask(worker, "/operations/state", TUTOR)[0] == 403
        assert ask(worker, "/operations/state", None)[0] == 401


async def test_who_asks_for_a_tutor_of_a_frozen_worker_gets_rows_and_soon(looked_up: Deployment):
    """The kernel still takes connections for it, and nothing answers them."""
    oracle = looked_up.oracle()
    held = (await asyncio.to_thread(ask, looked_up.workers[0], "/operations/state"))[1]["partitions"]
    partition = Partitioner(looked_up.settings.kafka_partitions)
    frozen = next(worker for worker in looked_up.workers if worker.name == held[partition("t9")]["owner"])
    asked = next(worker for worker in looked_up.workers if worker is not frozen)

    def timed(path: str) -> tuple[int, dict[str, Any], float]:
        began = time.monotonic()
        return *ask(asked, f"/tutors/t9/{path}"), time.monotonic() - began

    frozen.freeze()
    try:
        answers = await asyncio.gather(
            *(asyncio.to_thread(timed, path) for path in ("metrics?window=90day", "performance", "trends"))
        )
    finally:
        frozen.thaw()
    (status, metrics, _), (also, performance, _), (no_history, _, _) = answers
    assert (status, also, no_history) == (200, 200, 503), "only the owner knows how it was day by day"
    for body in (metrics, performance):
        assert body["source"] == "database"
        assert_true(body, oracle)
    assert max(seconds for _, _, seconds in answers) < 5
    await eventually(lambda: timed("metrics")[1]["source"] == "stream")
    await frozen.until_ready()


class Anything:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANY = Anything()


async def test_a_socket_speaks_the_platforms_messages(looked_up: Deployment):
    url = f"ws://127.0.0.1:{looked_up.workers[0].port}/ws/dashboard"
    headers = {"Authorization": f"Bearer {token(STAFF)}"}
    async with aiohttp.ClientSession(headers=headers) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await client.ws_connect(url, headers={"Origin": "https://elsewhere.example.org"})
        async with client.ws_connect(url) as socket:
            first = await socket.receive_json(timeout=10)
            assert (first["type"], first["data"]["total_tutors"]) == ("analytics_update", TUTORS)
            await socket.send_str("ping")
            # The feed begins when its first listener comes; once it stands, totals are told anew.
            while (answered := await socket.receive_json(timeout=10))["data"] != {"pong": True}:
                assert answered["type"] == "analytics_update"
            now_us, number, update = time.time_ns() // 1000, 0, answered
            while update["type"] != "metrics_update":  # totals, alerts
                number += 1
                assert number < 20
                await looked_up.tell(("sessions", session_payload(f"ws-{number}", "t2", now_us - DAY_US, now_us)))
                with contextlib.suppress(TimeoutError):
                    update = await socket.receive_json(timeout=2)
            assert update["type"] == "metrics_update"
            assert update["data"]["tutor_id"] == "t2"
            assert update["data"]["window"] in WINDOWS
            assert set(update["data"]) >= {"tutor_name", "calculation_date", "performance_tier", *SHOWN}


async def test_what_falls_below_its_threshold_is_told_once(looked_up: Deployment):
    url = f"ws://127.0.0.1:{looked_up.workers[1].port}/ws/dashboard"
    seen: dict[str, list[dict[str, Any]]] = {"metrics_update": [], "alert": [], "intervention": []}

    async def listen(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            update = json.loads(message.data)
            seen.setdefault(update["type"], []).append(update["data"])

    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token(STAFF)}"}) as client,
        client.ws_connect(url) as socket,
    ):
        listening = asyncio.create_task(listen(socket))
        number = 0
        while not seen["metrics_update"]:  # the feed begins when its first listener comes
            number += 1
            now_us = time.time_ns() // 1000
            await looked_up.tell(("sessions", session_payload(f"al-{number}", "t1", now_us - DAY_US, now_us)))
            await asyncio.sleep(1)
        for n in range(1, 5):
            now_us = time.time_ns() // 1000
            await looked_up.tell(("feedback", feedback_payload(f"low{n}", f"s9-{n}", "t9", 1, now_us)))
        await eventually(lambda: [a for a in seen["alert"] if a["tutor_id"] == "t9" and a["alert_type"] == "critical"])
        await eventually(lambda: [task for task in seen["intervention"] if task["task_type"] == "review"])
        listening.cancel()
    await looked_up.quiet()
    await looked_up.assert_told()
    raised = [
        json.loads(record.value) for record in await looked_up.read(looked_up.topics.alerts) if record.key == b"t9"
    ]
    ratings = [alert for alert in raised if alert.get("figure") == "avg_rating_stars"]
    assert ratings[-1]["severity"] == "critical"
    assert [alert["sequence"] for alert in raised] == list(range(1, len(raised) + 1)), "each once, in order"
    assert {alert["id"] for alert in seen["alert"] if alert["tutor_id"] == "t9"} <= {alert["id"] for alert in raised}
    status, body = ask(looked_up.workers[2], "/dashboard/alerts")
    severities = [alert["severity"] for alert in body["alerts"]]
    assert (status, body["total"], severities) == (200, len(severities), sorted(severities)), "the worst first"
    assert ratings[-1]["id"] in {alert["id"] for alert in body["alerts"]}


async def heard(deployment: Deployment, tutor_id: str, *streams: Stream) -> None:
    """Events of a tutor until each of these is told of one: a feed begins when its first listener comes."""
    before = [len(stream.metrics(tutor_id)) for stream in streams]

    async def all_heard() -> bool:
        now_us = time.time_ns() // 1000
        await deployment.tell(("sessions", session_payload(f"heard-{now_us}", tutor_id, now_us - DAY_US, now_us)))
        await asyncio.sleep(1)
        return all(len(stream.metrics(tutor_id)) > was for stream, was in zip(streams, before, strict=True))

    await eventually(all_heard)


async def test_who_comes_back_hears_exactly_what_was_missed_or_is_told_to_load_anew(looked_up: Deployment):
    first, second, third = looked_up.workers
    async with listening(first) as here, listening(second) as there:
        await heard(looked_up, "t2", here, there)
        async with listening(first) as leaving:
            await heard(looked_up, "t2", leaving)
        left_at = leaving.last_id
        await heard(looked_up, "t4", here, there)
        await heard(looked_up, "t5", here, there)
        assert here.since(left_at)
        async with listening(first, left_at) as again, listening(second, left_at) as elsewhere:
            await heard(looked_up, "t6", here, there, again, elsewhere)
            missed = here.since(left_at)
            await eventually(lambda: len(again.events) >= len(missed))
            assert again.events[: len(missed)] == missed, "exactly what was missed, in order"
            await eventually(lambda: all(event.data in [other.data for other in elsewhere.events] for event in missed))
            assert "reset" not in {event.kind for event in (*again.events, *elsewhere.events)}
        async with listening(third, left_at) as cold:
            await eventually(lambda: cold.events)
            assert cold.events[0].kind == "reset", "where nobody listened, nobody knows what was missed"


async def load(deployment: Deployment, moving: Moving) -> None:
    """Some 200 events a second of tutors that nobody asks for, and some of `moving`."""
    for number in range(1_000_000):
        now_us = time.time_ns() // 1000
        await moving.move()
        await deployment.tell(
            *(("sessions", session_payload(f"x{number}-{n}", f"busy{n}", now_us - DAY_US, now_us)) for n in range(40))
        )
        await asyncio.sleep(0.2)


async def joined(worker: Worker, oracle: Oracle) -> Counter[str]:
    """How often a worker that begins answered with what (a source, no connection or 503), until it is a member like
    the others. It is asked for tutors that rest from its start on: what it says of them is right or it says nothing."""
    heard = Counter[str]()
    for number in itertools.count():
        path = "performance" if number % 2 else "metrics?window=90day"
        try:
            status, body = await asyncio.to_thread(ask, worker, f"/tutors/t{number * 5 % TUTORS}/{path}")
        except OSError:
            heard["no connection"] += 1
            await asyncio.sleep(0.1)
            continue
        assert status in (200, 503), body
        if status == 200:
            assert_true(body, oracle)
        heard[body["source"] if status == 200 else "503"] += 1
        if heard["stream"] > 3 * TUTORS:
            break
    return heard


async def until_the_owners_answer(
    deployment: Deployment,
    moving: Moving,
    oracle: Oracle,
    asked: tuple[Worker, Worker],
    leaving: asyncio.Task[int] | None = None,
) -> tuple[set[str], int]:
    """Ask two workers for every tutor, for 20 to 40 s and until rows are no longer what they answer from: each answer is
    right. Answers with the sources of the answers, and how many times rows were refused for their age."""
    sources, refused, rounds = set(), 0, 0
    began = time.monotonic()
    while time.monotonic() < began + 40:
        rounds += 1
        for number in range(TUTORS):
            path = "performance" if (rounds + number) % 2 else f"metrics?window={WINDOWS[rounds % 3]}"
            status, body = await asyncio.to_thread(ask, asked[number % 2], f"/tutors/t{number}/{path}")
            assert status == 200, body
            assert_true(body, oracle)
            sources.add(body["source"])
            if body["source"] == "database":
                strict, wait = await asyncio.to_thread(strictly, asked[0], f"/tutors/t{number}/metrics?max_age=0.001")
                assert (strict, wait) in ((200, None), (503, "1"))  # the owner may be back by now
                refused += strict == 503
        for number, tutor_id in enumerate(moving.ids):
            path = "performance" if (rounds + number) % 2 else f"metrics?window={WINDOWS[number % 3]}"
            await moving.judge(tutor_id, partial(ask, asked[number % 2], f"/tutors/{tutor_id}/{path}"))
        has_settled = body["source"] == "stream" and ("database" in sources or (leaving is not None and leaving.done()))
        if has_settled and time.monotonic() > began + 20:
            break
    return sources, refused


async def test_rows_answer_while_the_owner_is_away_and_say_so(looked_up: Deployment):
    """Under load one worker of three is killed, another begins, and a third is told to leave: three rebalances. Tutors that
    rest have one right answer; those that the load is about have one for every event."""
    first, second, third = looked_up.workers
    moving = Moving(looked_up, MOVING)
    await moving.begin()
    await looked_up.assert_right()  # rows are as of their last commit
    oracle = looked_up.oracle()
    loading = asyncio.create_task(load(looked_up, moving))
    second.kill()
    silent = (await asyncio.to_thread(ask, first, "/operations/state"))[1]
    assert [(told["name"], told["answers"]) for told in silent["workers"]] == [
        *((worker.name, True) for worker in sorted((first, third), key=lambda worker: worker.name)),
        (ANY, False),
    ]
    assert any("no answer" in problem["text"] for problem in silent["problems"])
    assert "no answer" in {entry["state"] for entry in silent["partitions"]}
    joins = looked_up.worker()
    joins.start()
    joining = asyncio.create_task(joined(joins, oracle))
    sources, refused = await until_the_owners_answer(looked_up, moving, oracle, (first, third))
    assert sources == set(moving.judged) == {"stream", "database"}
    assert refused, "rows that are too old for who asks are refused, and when to come back is said"
    assert (await asyncio.wait_for(joining, 60))["stream"] > 0
    leaving = asyncio.create_task(third.stop())
    await until_the_owners_answer(looked_up, moving, oracle, (first, joins), leaving)
    assert await leaving == 0
    assert not loading.done(), "the load went on all the while"
    loading.cancel()
    await eventually(lambda: ask(first, "/tutors/t7/metrics?max_age=1")[0] == 200)


async def test_changes_are_pushed_and_a_client_may_hang_on_while_the_worker_stops(looked_up: Deployment):
    worker = looked_up.workers[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(STAFF)}\r\n\r\n".encode())
    told = bytearray()

    async def listen() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                told.extend(data)

    listening = asyncio.create_task(listen())
    await eventually(lambda: b"retry: 2000" in told)
    now_us = time.time_ns() // 1000
    number = 0
    while b'"tutor_id":"t0"' not in told:  # the feed begins when its first listener comes
        number += 1
        assert number < 20, told
        await looked_up.tell(("sessions", session_payload(f"new-{number}", "t0", now_us - DAY_US, now_us)))
        await asyncio.sleep(1.5)
    assert b"event: metrics" in told
    began = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - began < 20
    await listening


async def change(deployment: Deployment, tutor_ids: list[str], prompt: Stream) -> None:
    """A figure of each of these tutors, every second, or when the last change has been told: no load grows by itself."""
    while True:
        now_us, told = time.time_ns() // 1000, prompt.told[tutor_ids[-1]]
        await deployment.tell(
            *(("sessions", session_payload(f"{id_}-moves", id_, now_us - DAY_US, now_us)) for id_ in tutor_ids)
        )
        await asyncio.sleep(1)
        await eventually(lambda before=told: prompt.told[tutor_ids[-1]] > before, seconds=120)


async def test_who_never_reads_is_dropped_and_nobody_waits_for_it(looked_up: Deployment):
    worker = next(worker for worker in looked_up.workers if worker.running)
    now_us = time.time_ns() // 1000
    await looked_up.tell(*(("tutors", tutor_payload(f"many{n}", now_us, name="語" * 200)) for n in range(MANY)))
    slow: list[NeverReads] = []
    delays: list[float] = []
    async with listening(worker, comes_back=True) as prompt:

        async def time_one_more() -> None:
            """The way of one more event to a client that does read."""
            number, now_us = prompt.told["t3"], time.time_ns() // 1000
            await looked_up.tell(("sessions", session_payload(f"p-{now_us}", "t3", now_us - DAY_US, now_us)))
            await eventually(lambda: prompt.told["t3"] > number, seconds=100)
            delays.append(time.time() - now_us / 1e6)

        async def are_dropped() -> bool:
            await time_one_more()
            return not any(client.is_held() for client in slow)

        loading = asyncio.create_task(change(looked_up, [f"many{n}" for n in range(MANY)], prompt))
        await eventually(lambda: len(prompt.events) > 3 * MANY, seconds=120)  # all that grows once has grown
        for _ in range(3):
            await time_one_more()
        usual = max(delays)
        before = resident_bytes(worker)
        paths = ["/events", "/ws/dashboard"] * SLOW
        slow += [NeverReads(worker.port, path, token(STAFF)) for path in paths]
        await eventually(lambda: all(client.is_held() for client in slow))
        await eventually(are_dropped, seconds=120)
        assert not loading.done(), loading
        loading.cancel()
        assert max(delays) < usual + LONGEST_WRITE_SECONDS, "one wait for one of them would take as long"
        assert resident_bytes(worker) - before < MOST_GROWTH
    for client in slow:
        client.close()
