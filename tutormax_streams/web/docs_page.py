"""The page at `/docs`: both documents for people, as plain HTML without a script, so that it needs no other host.

Viewers of npm render one of the two documents each, bring more than 800 kB apiece, and the one for AsyncAPI needs
`unsafe-eval`, which our Content-Security-Policy does not give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from typing import Any, Final

import faust
from aiohttp import web

from tutormax_streams.web import asyncapi, openapi

Document = Mapping[str, Any]

_WORDS: Final = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
_BOUNDS: Final = (
    ("minimum", "at least {}"),
    ("maximum", "at most {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("pattern", "matches {}"),
    ("default", "absent means {}"),
)


@cache
def page() -> bytes:
    """The page as a file."""
    http, told = openapi.document(), asyncapi.document()
    body = [*_http(http), *_told(told)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tutormax-streams: HTTP, topics and sockets</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/docs.css">
</head>
<body>
<a class="skip" href="#main">To the documents</a>
<header>
<h1>tutormax-streams <small>{escape(http["info"]["version"])}</small></h1>
<p>The same for programs: <a href="/openapi.json">openapi.json</a> (OpenAPI {http["openapi"]}),
<a href="/asyncapi.json">asyncapi.json</a> (AsyncAPI {told["asyncapi"]}).</p>
</header>
<nav aria-label="Contents">{_contents(http, told)}</nav>
<main id="main">
{chr(10).join(body)}
</main>
</body>
</html>
""".encode()


def attach(app: faust.App) -> None:
    """Serve the page and both documents from `app`'s web server."""

    def serve(path: str, content: Any, kind: str) -> None:
        async def view(_: Any, request: Any) -> Any:
            headers = {"Cache-Control": "no-cache"}
            return web.Response(body=content(), content_type=kind, charset="utf-8", headers=headers)

        app.page(path, name=path.strip("/"))(view)

    serve("/docs", page, "text/html")
    serve("/openapi.json", openapi.written, "application/json")
    serve("/asyncapi.json", asyncapi.written, "application/json")


# -- the two documents -------------------------------------------------------------------------------------------------


def _http(document: Document) -> Iterator[str]:
    yield f'<section aria-labelledby="http"><h2 id="http">HTTP</h2>{_prose(document["info"]["description"])}'
    for tag in document["tags"]:
        yield f'<h3 id="tag-{tag["name"]}">{escape(tag["name"].capitalize())}</h3>{_prose(tag["description"])}'
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"] and not path.startswith("/api/"):
                    yield _operation(document, path, method, operation)
    yield from _schemas(document, "http")
    yield "</section>"


def _operation(document: Document, path: str, method: str, operation: Document) -> str:
    parts = [
        f'<article id="{operation["operationId"]}" aria-labelledby="{operation["operationId"]}-name">',
        f'<h4 id="{operation["operationId"]}-name"><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h4>',
        _prose(operation["summary"]),
    ]
    notes = [operation.get("description", "") or ("" if operation["security"] else "For anyone.")]
    if f"/api{path}" in document["paths"]:
        notes.append(f"Also at `/api{path}`.")
    parts.append(_prose(" ".join(filter(None, notes))))
    if parameters := operation.get("parameters"):
        rows = (
            [
                _code(p["name"]),
                p["in"],
                _type(p["schema"], "http"),
                "required" if p["required"] else "",
                _text(p["description"]),
            ]
            for p in parameters
        )
        parts.append(_table("Parameters", ("name", "in", "type", "presence", "what it is"), rows))
    answers = (
        [status, _text(found["description"]), _content(found), ", ".join(map(_code, found.get("headers", ())))]
        for status, found in operation["responses"].items()
    )
    parts.append(_table("Answers", ("status", "means", "body", "headers"), answers))
    return "\n".join([*filter(None, parts), "</article>"])


def _content(response: Document) -> str:
    return ", ".join(
        _type(media["schema"], "http") if "$ref" in media["schema"] else _code(kind)
        for kind, media in response.get("content", {}).items()
    )


def _told(document: Document) -> Iterator[str]:
    yield f'<section aria-labelledby="told"><h2 id="told">Topics, sockets and events</h2>{_prose(document["info"]["description"])}'
    for name, channel in document["channels"].items():
        servers = [document["servers"][_named(server)]["protocol"] for server in channel["servers"]]
        yield f'<article id="channel-{name}" aria-labelledby="channel-{name}-name">'
        yield f'<h3 id="channel-{name}-name"><span class="method">{servers[0]}</span> <code>{escape(channel["address"])}</code></h3>'
        yield _prose(channel["description"])
        rows = []
        for action, whose in (("receive", "yours to send"), ("send", "ours")):
            operation = document["operations"].get(f"{action}.{name}", {})
            for reference in operation.get("messages", ()):
                message = document["components"]["messages"][_named(reference)]
                key = message.get("bindings", {}).get("kafka", {}).get("key", {}).get("description", "")
                payload = _type(message["payload"], "told") if "payload" in message else "bytes"
                rows.append([_code(message["name"]), _text(message["title"]), whose, payload, _text(key)])
                yield from _headers(message)
        yield _table("Messages", ("message", "what it is", "whose", "body", "key"), rows)
        yield "</article>"
    yield from _schemas(document, "told")
    yield "</section>"


def _headers(message: Document) -> Iterator[str]:
    if headers := message.get("headers"):
        yield _prose(headers["description"])
        rows = (
            [_code(name), _type(of, "told"), _text(of["description"])] for name, of in headers["properties"].items()
        )
        yield _table("Headers", ("header", "type", "what it is"), rows)


def _schemas(document: Document, group: str) -> Iterator[str]:
    yield f'<h3 id="{group}-bodies">Bodies</h3>'
    for name, schema in document["components"]["schemas"].items():
        yield f'<article id="{group}-{name}" aria-labelledby="{group}-{name}-name">'
        yield f'<h4 id="{group}-{name}-name">{escape(name)}</h4>{_prose(schema.get("description", ""))}'
        if properties := schema.get("properties"):
            needed = schema.get("required", ())
            rows = (
                [
                    _code(field),
                    _type(of, group),
                    "" if field in needed else "may be absent",
                    _text(of.get("description", "")),
                ]
                for field, of in properties.items()
            )
            yield _table(f"Fields of {name}", ("field", "type", "presence", "what it is"), rows)
        elif "const" in schema or "enum" in schema:
            yield f"<p>{_type(schema, group)}</p>"
        yield "</article>"


def _contents(http: Document, told: Document) -> str:
    tags = "".join(
        f'<li><a href="#tag-{tag["name"]}">{escape(tag["name"].capitalize())}</a></li>' for tag in http["tags"]
    )
    channels = "".join(f'<li><a href="#channel-{name}">{escape(name)}</a></li>' for name in told["channels"])
    return (
        f'<h2>Contents</h2><ul><li><a href="#http">HTTP</a><ul>{tags}<li><a href="#http-bodies">Bodies</a></li></ul></li>'
        f'<li><a href="#told">Topics, sockets and events</a><ul>{channels}<li><a href="#told-bodies">Bodies</a></li></ul></li></ul>'
    )


# -- pieces ------------------------------------------------------------------------------------------------------------


def _named(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _type(schema: Document, group: str) -> str:
    """What a JSON Schema admits, in words."""
    if "$ref" in schema:
        return f'<a href="#{group}-{_named(schema)}">{escape(_named(schema))}</a>'
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return " or ".join(_type(part, group) for part in schema[either])
    if "const" in schema:
        return _code(_value(schema["const"]))
    if "enum" in schema:
        values = ", ".join(_code(_value(value)) for value in schema["enum"])
        word = values if len(schema["enum"]) == 1 else f"one of {values}"
    elif schema.get("type") == "array":
        items = [_type(part, group) for part in schema.get("prefixItems", ())] or [
            _type(schema.get("items") or {}, group)
        ]
        word = "list of " + ", ".join(items)
    elif isinstance(schema.get("additionalProperties"), Mapping):
        word = "object of " + _type(schema["additionalProperties"], group)
    else:
        word = _WORDS.get(schema.get("type", ""), escape(schema.get("type", "anything")))
    bounds = [says.format(_code(_value(schema[bound]))) for bound, says in _BOUNDS if bound in schema]
    return ", ".join([word, *bounds])


def _value(value: Any) -> str:
    return "(empty)" if value == "" else value if isinstance(value, str) else str(value).lower()


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _text(sentence: str) -> str:
    """A sentence, its `code` marked."""
    return re.sub(r"`([^`]+)`", lambda found: f"<code>{found[1]}</code>", escape(sentence))


def _prose(text: str) -> str:
    """Paragraphs and lists of the little Markdown that the documents hold."""
    parts: list[str] = []
    for block in re.split(r"\n\n+", text.strip()):
        if block.startswith("- "):
            items = re.split(r"\n(?=- )", block)
            parts.append("<ul>" + "".join(f"<li>{_text(' '.join(item[2:].split()))}</li>" for item in items) + "</ul>")
        elif block:
            parts.append(f"<p>{_text(' '.join(block.split()))}</p>")
    return "".join(parts)


def _table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f'<th scope="col">{name}</th>' for name in head)
    lines = "".join(
        "<tr>"
        + "".join(f"<td>{cell}</td>" if n else f'<th scope="row">{cell}</th>' for n, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption)}">{table}</div>'
