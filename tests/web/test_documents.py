"""The documents for clients: valid, current, complete, and what they say of bodies is what is answered."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import msgspec
import pytest
from aiohttp import web
from aiohttp.web import StaticResource
from openapi_spec_validator import validate

from agents.persist import Announcement
from docs import generate
from models import alerts
from models.metrics import WINDOW_DAYS, encode, metrics_updated
from models.payloads import PAYLOADS, TOPIC_OF
from models.rows import STATUS_VALUES, TIER_NAMES
from models.windows import TutorFacts
from tests.samples import feedback_payload, session_payload, tutor_payload
from tests.web.test_operations import OWNERS, Clock, Worker, said_by
from tutormax_streams.app import Runtime, create_sink_app, create_stream_app
from tutormax_streams.epoch import Epoch
from tutormax_streams.postgres.stored_figures import Prediction, StoredTutor
from tutormax_streams.refusals import DeadLetterBox
from tutormax_streams.settings import Settings
from tutormax_streams.topics import Topics
from tutormax_streams.web import alert_messages, answers, asyncapi, docs_page, health, lists, openapi, shapes
from tutormax_streams.web.answers import DECIMALS, Found
from tutormax_streams.web.deployment import Silent, deployment
from tutormax_streams.web.feed import Standings
from tutormax_streams.web.guard import HEADERS, OPEN
from tutormax_streams.web.routes import ROUTES
from tutormax_streams.web.worker_state import WorkerState

ROOT = Path(__file__).parent.parent.parent
HTTP, TOLD = openapi.document(), asyncapi.document()
NOW_US = 1_769_860_800_123_456


def held(document: dict[str, Any], name: str, body: Any) -> None:
    """A body is what its schema says, and holds nothing else."""
    components = json.loads(json.dumps(document["components"]["schemas"]))
    for schema in components.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}}
    jsonschema.Draft202012Validator(whole).validate(json.loads(msgspec.json.encode(body)))


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


# --- the documents themselves -----------------------------------------------------------------------------------------


def test_the_document_of_http_is_openapi():
    validate(HTTP)


def test_the_document_of_topics_is_asyncapi():
    # From @asyncapi/specs 6.11.1 of npm (Apache-2.0), schemas/3.0.0-without-$id.json as it is there.
    schema = json.loads(gzip.decompress((Path(__file__).parent / "asyncapi-3.0.0.schema.json.gz").read_bytes()))
    jsonschema.Draft7Validator(schema).validate(TOLD)


@pytest.mark.parametrize("document", [HTTP, TOLD], ids=["openapi", "asyncapi"])
def test_references_lead_somewhere(document: dict[str, Any]):
    for reference in set(references(document)):
        assert reference.startswith("#/")
        part: Any = document
        for step in reference[2:].split("/"):
            part = part[step]


@pytest.mark.parametrize("name", generate.DOCUMENTS)
def test_the_files_are_current(name: str):
    assert (ROOT / name).read_bytes() == generate.DOCUMENTS[name](), "run `python docs/generate.py`"


def test_every_schema_says_what_it_is():
    for document in (HTTP, TOLD):
        for name, schema in document["components"]["schemas"].items():
            assert schema.get("description") or "const" in schema, name
            assert "contract" not in schema.get("description", ""), name


# --- routes -----------------------------------------------------------------------------------------------------------


def served(app: Any) -> set[tuple[str, str]]:
    """(method, path) of all that a worker's web server has, as it is when it starts."""
    app.web.blueprints.apply(app.web)
    app.web.init_server()
    found = set()
    for route in app.web.web_app.router.routes():
        if isinstance(route.resource, StaticResource) or route.method == "HEAD":
            continue
        found.add((route.method.lower(), route.resource.canonical))
    return found


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    settings = Settings(data_dir=tmp_path, store="memory", secret_key="0f4c7be02b9d4d3aa1f0c2d5e6b7a899")  # type: ignore[arg-type]
    return Runtime(settings, Epoch(1, 4, "empty", "complete", NOW_US))


def test_every_route_is_documented_and_every_documented_route_is_served(runtime: Runtime):
    app = create_stream_app(runtime)
    health.attach(app, health.probes(runtime.health, runtime.telemetry, runtime.refresh))
    documented = {(method, path) for path, methods in HTTP["paths"].items() for method in methods}
    assert served(app) == documented


def test_what_a_worker_without_tables_serves_is_documented(runtime: Runtime):
    documented = {(method, path) for path, methods in HTTP["paths"].items() for method in methods}
    app = create_sink_app(runtime, web=True)
    found = served(app)
    assert ("get", "/operations/state") in found
    assert found <= documented


def test_what_needs_no_token_says_so():
    open_to_all = {route.path for route in ROUTES if route.who == "anyone"}
    assert open_to_all == set(OPEN)
    for path, methods in HTTP["paths"].items():
        for operation in methods.values():
            assert ("401" in operation["responses"]) is bool(operation["security"]), path


# --- bodies -----------------------------------------------------------------------------------------------------------

UPDATE = metrics_updated(
    "t1", TutorFacts("t1").windows(NOW_US, "normalized"), as_of_us=NOW_US, epoch=1, position=5, tutor_name="Ada",
    tutor_status="active",
)  # fmt: skip
OF_STREAM = Found.of(UPDATE)
ROW: dict[str, Any] = {**answers.figures(UPDATE.windows["30day"]), "avg_rating": 4.256, "response_time_avg_minutes": 3}
OF_ROWS = Found.of_rows(StoredTutor("t1", "Ada", "active", NOW_US, {"30day": ROW}, {"30day": NOW_US}))
WITHOUT = Found.of_rows(StoredTutor("t1", "Ada", "churned", None, {}, {}))


PREDICTION = Prediction(62, "HIGH", NOW_US, "1.0", None, {"1day": None, "7day": 0.1, "30day": 0.62, "90day": 0.9})


def test_constants_of_the_documents_are_those_of_the_code():
    assert list(shapes.Figures.__struct_fields__) == list(DECIMALS)
    assert set(msgspec.json.schema(shapes.Window)["enum"]) == set(WINDOW_DAYS)
    assert set(msgspec.json.schema(shapes.Tier)["enum"]) == set(TIER_NAMES)
    assert set(msgspec.json.schema(shapes.Status)["enum"]) >= set(STATUS_VALUES.values())


@pytest.mark.parametrize("found", [OF_STREAM, OF_ROWS, WITHOUT], ids=["stream", "rows", "nothing"])
def test_answers_about_a_tutor_are_as_documented(found: Found):
    for window in WINDOW_DAYS:
        held(HTTP, "Metrics", answers.metrics_answer(found, window, NOW_US + 5))
    performance = answers.performance_answer(found, NOW_US + 5)
    held(HTTP, "Performance", {**performance, "churn": None, "churn_message": "why"})
    held(HTTP, "Performance", {**performance, "churn": answers.churn(PREDICTION)})
    held(HTTP, "Error", answers.error("why", NOW_US))


class Stored:
    """Committed rows without PostgreSQL."""

    async def page(self, page: Any) -> list[Any]:
        return [(None, StoredTutor("t1", "Ada", "active", NOW_US, {page.window: ROW}, {}))] * 2

    async def tutors(self, ids: Any) -> dict[str, StoredTutor]:
        return {"t1": StoredTutor("t1", "Ada", "active", NOW_US, {"30day": ROW}, {})}

    async def analytics(self) -> tuple[Any, ...]:
        return 1, 1, {"STRONG": 1}, 4.256, None, 3, 5, NOW_US


class Request(dict[Any, Any]):
    """A request of staff."""

    query: ClassVar[dict[str, str]] = {"ids": "t1,nobody", "limit": "1"}

    def __missing__(self, key: Any) -> Any:
        class Staff:
            is_staff = True

            def may_read(self, tutor_id: str) -> bool:
                return True

        return Staff()


async def test_answers_about_many_are_as_documented():
    asked = lists.Lists(Stored(), lambda: NOW_US)  # type: ignore[arg-type]
    for name, handler in (("Listing", asked.listing), ("Batch", asked.batch), ("Analytics", asked.analytics)):
        answer = await handler(Request())  # type: ignore[arg-type]
        assert isinstance(answer.body, bytes)
        held(HTTP, name, json.loads(answer.body))


@pytest.mark.parametrize(
    "ids", ["", "t1,,t2", "t1,", ",".join(["t1"] * (lists.MOST_IDS + 1))], ids=["none", "empty", "last", "too many"]
)
async def test_a_batch_refuses_what_the_document_does_not_admit(ids: str, monkeypatch: pytest.MonkeyPatch):
    """Schemathesis found that one id could be named any number of times."""
    monkeypatch.setattr(Request, "query", {"ids": ids})
    with pytest.raises(web.HTTPBadRequest, match="ids must name 1 to 500 tutors"):
        await lists.Lists(Stored(), lambda: NOW_US).batch(Request())  # type: ignore[arg-type]


def test_answers_about_the_deployment_are_as_documented():
    head = {"success": True, "timestamp": answers.naive(NOW_US), "asked": "w1"}
    said = health.Health()
    said.watch("stream", lambda: ["something"])
    said.watch_start("stream", lambda: ["something"])
    held(HTTP, "Ready", said.report())
    held(HTTP, "Started", said.startup())
    held(HTTP, "Versions", health.versions())
    worker, clock = Worker(), Clock()
    looking = WorkerState(worker, clock)
    worker.telemetry.count("dead_letters", 4, topic="sessions", reason="invalid")
    worker.telemetry.observe("freshness", 0.4)
    for backlog in (worker.recovery, worker.backlog):
        backlog.look(0.0, 4_000_000)
        backlog.look(1.0, 3_000_000)
    assert worker.holding is not None
    worker.holding.reasons["flush"] = "connection refused"
    without_tables = {**looking.answer(), "name": "w2", "tables": None, "sink": None, "backlog": None}
    states = [looking.answer(), without_tables]
    assert states[0]["backlog"]
    assert states[0]["sink"]["waiting"]
    assert states[0]["dead_letters"]
    state = deployment(states, [Silent("http://b:6066", None, 12.3)], OWNERS, 5)
    assert state["problems"]
    assert state["topics"] == {}
    held(HTTP, "Operations", {**head, **state})
    fresh, versions = states[0]["freshness"], health.versions()
    named = [said_by(name, [n], freshness=fresh, versions=versions) for n, name in enumerate("ab")]
    state = deployment(named, [], OWNERS, 4)
    assert state["topics"]
    held(HTTP, "Operations", {**head, **state})


# --- what is told -----------------------------------------------------------------------------------------------------


def an_alert_of_each_kind() -> Iterator[alerts.Alert]:
    head: dict[str, Any] = {"id": "t1/x/1", "sequence": 1, "tutor_id": "t1", "tutor_name": "Ada", "as_of": UPDATE.as_of}
    yield alerts.TierChanged(**head, window="30day", old_tier="Strong", new_tier="Developing")
    yield alerts.AlertRaised(
        **head, window="30day", figure="avg_rating_stars", severity="critical", old_severity=None, value=2, threshold=3
    )
    yield alerts.AlertCleared(**head, window="30day", figure="no_show_count", old_severity="warning", value=None)
    yield alerts.FirstSessionPoor(**head, session_id="s1", rating_stars=None, is_late=True)
    yield alerts.ReschedulePattern(**head, reschedules_7day_count=3, reschedules_14day_count=6, escalated=True)


def test_records_that_we_write_are_as_documented():
    held(TOLD, "MetricsUpdated", json.loads(encode(UPDATE)))
    held(TOLD, "Announcement", Announcement("tutor_event", "e1", "t1", UPDATE.as_of))
    kinds = set()
    for alert in an_alert_of_each_kind():
        held(TOLD, type(alert).__name__, json.loads(alerts.encode(alert)))
        held(TOLD, "AlertEvent", alert_messages.event(alert))
        held(TOLD, "AlertMessageData", alert_messages.platform_alert(alert))
        if task := alert_messages.platform_intervention(alert):
            held(TOLD, "InterventionData", task)
        kinds.add(alert.kind)
    assert kinds == {kind.kind for kind in alerts.KINDS} == set(TOLD["channels"]["alerts"]["messages"])


def test_events_are_as_documented():
    standings = Standings()
    standings.news(UPDATE)
    better = {
        name: msgspec.structs.replace(window, performance_tier="Exemplary") for name, window in UPDATE.windows.items()
    }
    told = standings.news(msgspec.structs.replace(UPDATE, position=6, windows=better))
    assert [event for event, _ in told] == ["metrics", "tier"]
    for event, data in told:
        held(TOLD, f"{event.capitalize()}Event", data)


def test_the_platforms_messages_are_as_documented():
    row = answers.shown(answers.figures(UPDATE.windows["7day"]))
    timestamp = answers.naive(NOW_US)
    data = {"tutor_id": "t1", "tutor_name": "Ada", "window": "7day", "calculation_date": UPDATE.as_of[:-1], **row}
    held(TOLD, "MetricsMessage", {"type": "metrics_update", "data": data, "timestamp": timestamp})
    for pong in ({"pong": True}, {"unavailable": "PostgreSQL is away"}):
        held(TOLD, "AnalyticsMessage", {"type": "analytics_update", "data": pong, "timestamp": timestamp})


def test_events_of_producers_are_as_documented():
    now_us = time.time_ns() // 1000
    for kind, payload in (
        ("tutor", tutor_payload("t1", now_us)),
        ("session", session_payload("s1", "t1", now_us, now_us)),
        ("feedback", feedback_payload("f1", "s1", "t1", 5, now_us)),
    ):
        held(TOLD, PAYLOADS[kind].__name__, payload)
        assert kind in TOLD["channels"][TOPIC_OF[kind]]["messages"]


def test_every_public_topic_is_there_and_no_other():
    topics = {name for name, channel in TOLD["channels"].items() if channel["servers"][0]["$ref"] == "#/servers/kafka"}
    assert topics == {*TOPIC_OF.values(), "metrics", "persisted", "alerts", "dead-letter"}


async def test_headers_of_dead_letters_are_as_documented():
    written: dict[str, bytes] = {}

    class Sender:
        async def send(self, *_: Any, headers: list[tuple[str, bytes]], **__: Any) -> None:
            written.update(headers)

    class Record:
        partition, offset, timestamp, headers, value, key = 1, 2, 3, [("trace", b"x")], b"?", None

    box = DeadLetterBox(Topics("", ""), Sender(), None)  # type: ignore[arg-type]
    await box.refuse_record(Record(), "sessions", "not_json", "why")
    assert written.pop("source-trace") == b"x"
    schema = TOLD["components"]["messages"]["deadLetter"]["headers"]
    jsonschema.Draft202012Validator(schema).validate({name: value.decode() for name, value in written.items()})
    assert set(written) == set(schema["required"])
    await box.refuse_record(type("Large", (Record,), {"value": bytes(9 << 20)}), "sessions", "too_large", "why")
    assert set(written) - {"source-trace"} == set(schema["properties"])


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(docs_page.page().decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src"):
                self.links.append(str(value))


def test_the_page_holds_both_documents_and_asks_no_other_host():
    page = Page()
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith(("#", "/", "data:")), link
        if link.startswith("#"):
            assert link[1:] in page.ids, link
    assert not page.tags & {"script", "style", "iframe"}, HEADERS["Content-Security-Policy"]
    assert not any(name == "style" or name.startswith("on") for name in page.attributes)
    text = docs_page.page().decode()
    for route in ROUTES:
        assert f"<code>{route.path}</code>" in text
    for channel in TOLD["channels"].values():
        assert f"<code>{channel['address']}</code>" in text
    assert set(re.findall(r"/static/[\w.]+", text)) == {"/static/docs.css"}
