"""The document of what is not asked for but told: AsyncAPI 3.0 of the public topics, the WebSocket and the events.

Made from the models that producers' events are parsed with and records are written by. `receive` is what we read, `send`
what others may read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from agents.persist import Announcement
from models import alerts
from models.fates import LATER_REASONS, REASONS
from models.metrics import Declines, MetricsUpdated, WindowMetrics
from models.payloads import NAME_OF, PAYLOADS, TOPIC_OF
from tutormax_streams.refusals import KEPT_BYTES
from tutormax_streams.topics import Plan, Topics
from tutormax_streams.web import openapi, shapes
from tutormax_streams.web.guard import COOKIE
from tutormax_streams.web.sentences import DECLINE_FIELDS, RECORD_FIELDS, REMARKS, TIMES, TOPIC_CONTENT, WINDOW_FIELDS
from tutormax_streams.web.shapes import SCHEMAS

DESCRIPTION: Final = """\
Topics that producers write to and others read, and what a worker tells browsers. The HTTP API stands in /openapi.json.

- Producers may use any key and any partitioner, send in any order, and twice.
- A record of a raw topic is an event, or the platform's envelope around one. What is refused goes to the dead letters.
- Of two `metrics.updated` of a tutor the one with the greater (`epoch`, `position`, `as_of_us`) is right.
- Fields may be added. Times in records are UTC; `*_pct` is 0 to 100, `*_frac` a share, `*_stars` 1 to 5.
"""
RECORD_SENTENCES: Final[Mapping[str, Mapping[str, str]]] = {
    "MetricsUpdated": RECORD_FIELDS,
    "WindowMetrics": WINDOW_FIELDS,
    "Declines": DECLINE_FIELDS,
}
TIME: Final = "ISO 8601; without a zone it is UTC, unless TUTORMAX_NAIVE_TIMEZONE says otherwise"
DEAD_LETTER_HEADERS: Final = {
    "topic": "of the refused record, without prefix",
    "partition": "of the refused record",
    "offset": "of the refused record; with topic and partition the letter's identity",
    "time-ms": "Kafka time of the refused record, since 1970",
    "reason": "a word",
    "detail": "a sentence that names fields, never what a producer wrote into them",
    "content": "`original` bytes, or our `normalised` form where the original had left the log, or `cut`: the first "
    f"{KEPT_BYTES:,} bytes of a value that does not fit into a letter",
    "refused-at-ms": "since 1970",
}
CUT_HEADERS: Final = {
    "content-bytes": "size of the whole value; only where the content is `cut`",
    "content-sha256": "of the whole value, in hexadecimal digits; only where the content is `cut`",
}
ENVELOPE: Final = {
    "description": "The platform's envelope. Only `data` is read; the checksum is verified.",
    "type": "object",
    "required": ["id", "timestamp", "channel", "data", "checksum"],
    "properties": {
        "id": {},
        "timestamp": {},
        "channel": {},
        "data": {"type": "object", "description": "the event"},
        "metadata": {},
        "checksum": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "SHA-256 of `data` as JSON with sorted keys",
        },
    },
}


@dataclass(frozen=True, slots=True)
class Message:
    """What a channel carries. `schema` is the name of its payload's."""

    name: str
    title: str
    schema: str | None
    key: str | None = None  # what a record's key is
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """Where messages are. `sent`: ours to write."""

    name: str
    address: str
    says: str
    server: str
    sent: tuple[Message, ...] = ()
    received: tuple[Message, ...] = ()
    topic: Plan | None = None
    bindings: Mapping[str, Any] | None = None


_ANY_KEY: Final = "any, or none"
_ENVELOPE: Final = Message("envelope", "the platform's envelope around an event", "Envelope", _ANY_KEY)
_DEAD_LETTER: Final = Message(
    "deadLetter",
    "a refused record, bytes intact unless they do not fit",
    None,
    "the record's own",
    {
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "description": "Texts in UTF-8. The record's own headers follow, with `source-` before their names.",
            "required": list(DEAD_LETTER_HEADERS),
            "properties": {
                name: {"type": "string", "description": says}
                | ({"enum": sorted({**REASONS, **LATER_REASONS})} if name == "reason" else {})
                | ({"enum": ["original", "normalised", "cut"]} if name == "content" else {})
                for name, says in (DEAD_LETTER_HEADERS | CUT_HEADERS).items()
            },
        },
    },
)


def _channels() -> list[Channel]:
    topics = Topics("{prefix}", "")
    plans = {plan.name: plan for plan in topics.plans(partitions=1)}
    alerts_told = tuple(Message(kind.kind, kind.kind, kind.__name__, "tutor_id") for kind in alerts.KINDS)

    def topic(short: str, *, sent: tuple[Message, ...] = (), received: tuple[Message, ...] = ()) -> Channel:
        plan = plans[topics.raw(short)]
        return Channel(short, plan.name, TOPIC_CONTENT[short][1], "kafka", sent, received, plan)

    raw = [
        topic(short, received=(Message(kind, NAME_OF[kind], PAYLOADS[kind].__name__, _ANY_KEY), _ENVELOPE))
        for kind, short in TOPIC_OF.items()
    ]
    return [
        *raw,
        topic("metrics", sent=(Message("metrics.updated", "a tutor's windows", "MetricsUpdated", "tutor_id"),)),
        topic("persisted", sent=(Message("record.persisted", "a row was committed", "Announcement", "tutor_id"),)),
        topic("alerts", sent=alerts_told),
        topic("dead-letter", sent=(_DEAD_LETTER,)),
        Channel(
            "socket",
            "/ws/dashboard",
            "The platform's WebSocket, for staff: JSON texts. It ends after 15 minutes; clients come back.",
            "sockets",
            sent=(
                Message("analytics_update", "totals, and the answer to `ping`", "AnalyticsMessage"),
                Message("metrics_update", "a window of a tutor is new", "MetricsMessage"),
                Message("alert", "an alert", "AlertMessage"),
                Message("intervention", "a task that an alert calls for", "InterventionMessage"),
            ),
            received=(Message("ping", "the text `ping`, not JSON", "Ping", extra={"contentType": "text/plain"}),),
            bindings={"ws": {"method": "GET"}},
        ),
        Channel(
            "events",
            "/events",
            "Server-Sent Events, for staff. `id` goes back as `Last-Event-ID`; comments keep the connection open.",
            "events",
            sent=(
                Message("event.metrics", "`event: metrics`", "MetricsEvent"),
                Message("event.tier", "`event: tier`", "TierEvent"),
                Message("event.alert", "`event: alert`", "AlertEvent"),
                Message("event.reset", "`event: reset`", "Reset"),
            ),
        ),
    ]


def document() -> dict[str, Any]:
    """The whole of it, as JSON."""
    channels = _channels()
    messages = {message.name: message for channel in channels for message in (*channel.sent, *channel.received)}
    security = [{"$ref": "#/components/securitySchemes/bearer"}, {"$ref": "#/components/securitySchemes/cookie"}]
    worker = {"host": "{worker}", "variables": {"worker": {"default": "localhost:6066", "description": "any worker"}}}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tutormax-streams: topics, sockets and events",
            "version": version("tutormax-streams"),
            "description": DESCRIPTION,
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {"bootstrap": {"default": "localhost:9092", "description": "KAFKA_BOOTSTRAP_SERVERS"}},
            },
            "sockets": {**worker, "protocol": "ws", "security": security},
            "events": {**worker, "protocol": "http", "security": security},
        },
        "channels": {channel.name: _channel(channel) for channel in channels},
        "operations": dict(_operations(channels)),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "httpApiKey", "in": "cookie", "name": COOKIE},
            },
            "messages": {name: _message(message) for name, message in messages.items()},
            "schemas": _schemas(),
        },
    }


@cache
def written() -> bytes:
    """The document as a file."""
    return openapi.as_file(document())


def _channel(channel: Channel) -> dict[str, Any]:
    found: dict[str, Any] = {
        "address": channel.address,
        "description": channel.says,
        "servers": [{"$ref": f"#/servers/{channel.server}"}],
        "messages": {
            message.name: {"$ref": f"#/components/messages/{message.name}"}
            for message in (*channel.sent, *channel.received)
        },
    }
    if channel.topic is not None:
        plan = channel.topic
        configuration: dict[str, Any] = {"cleanup.policy": [plan.cleanup]}
        if "retention.ms" in plan.configs:
            configuration["retention.ms"] = int(plan.configs["retention.ms"])
        found["parameters"] = {"prefix": {"default": "tutormax.", "description": "KAFKA_TOPIC_PREFIX"}}
        found["bindings"] = {"kafka": {"topicConfiguration": configuration, "bindingVersion": "0.5.0"}}
    elif channel.bindings is not None:
        found["bindings"] = dict(channel.bindings)
    return found


def _operations(channels: Iterable[Channel]) -> Iterable[tuple[str, dict[str, Any]]]:
    for channel in channels:
        for action, messages in (("send", channel.sent), ("receive", channel.received)):
            if messages:
                yield (
                    f"{action}.{channel.name}",
                    {
                        "action": action,
                        "channel": {"$ref": f"#/channels/{channel.name}"},
                        "messages": [
                            {"$ref": f"#/channels/{channel.name}/messages/{message.name}"} for message in messages
                        ],
                    },
                )


def _message(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"name": message.name, "title": message.title}
    if message.schema is not None:
        found["payload"] = {"$ref": f"{SCHEMAS}/{message.schema}"}
    if message.key is not None:
        key = {"type": "string", "description": message.key}
        found["bindings"] = {"kafka": {"key": key, "bindingVersion": "0.5.0"}}
    return found | dict(message.extra or {})


def _schemas() -> dict[str, Any]:
    types = [shapes.MetricsMessage, shapes.AnalyticsMessage, shapes.AlertMessage, shapes.InterventionMessage]
    types += [shapes.Analytics, shapes.Pong, shapes.Unavailable]
    types += [shapes.MetricsEvent, shapes.TierEvent, shapes.AlertEvent, shapes.Reset]
    found = openapi.schemas([MetricsUpdated, WindowMetrics, Declines, Announcement, *alerts.KINDS, *types])
    for name, sentences in RECORD_SENTENCES.items():
        for field, says in sentences.items():
            found[name]["properties"][field]["description"] = says
    found["MetricsUpdated"]["description"] = "All that is known of a tutor's windows as of an instant."
    found["WindowMetrics"]["description"] = "One window's figures."
    found["Announcement"]["properties"]["kind"] = {"enum": sorted(PAYLOADS)}
    for kind, payload in PAYLOADS.items():
        schema = openapi.cleaned(payload.model_json_schema(ref_template=SCHEMAS + "/{model}"))
        schema["description"] = f"A {NAME_OF[kind]}. Unknown fields are ignored. Rules between fields: docs/events.md."
        for field, part in schema["properties"].items():
            told = "; ".join(filter(None, (TIME if field in TIMES else "", REMARKS.get((kind, field), ""))))
            if told:
                part["description"] = told
        found[payload.__name__] = schema
    found |= {"Envelope": dict(ENVELOPE), "Ping": {"const": "ping"}}
    return dict(sorted(found.items()))
