"""The document of the HTTP API: OpenAPI 3.1, made from `routes` and the types that answers are held against."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from tutormax_streams.web.guard import COOKIE
from tutormax_streams.web.routes import JSON, ROUTES, TAGS, Body, Parameter, Route
from tutormax_streams.web.shapes import SCHEMAS, Error
from tutormax_streams.web.state_shapes import AnsweringWorker, SilentWorker

DESCRIPTION: Final = """\
Figures of tutors over the last 7, 30 and 90 days, from any worker, and what a deployment says of itself.

- Rates are percentages, 0 to 100; ratings are stars, 1 to 5. `null` means that a figure has nothing to stand on.
- Every refusal has the same body. 429 and 503 say in `Retry-After` after how many seconds to ask again.
- `source` says where figures come from: `stream`, the owner's state as of the request, or `database`, committed rows.
- A token is the platform's own. Staff read everything, a tutor reads only itself.
- `HEAD` is answered wherever `GET` is. A request that is no HTTP, whose line is longer than 64 KiB or a header of it than
  8 KiB, is answered 400 in plain text, before anything else is looked at.
- A worker of the role `sink` alone serves health and `/operations/state` only.
"""
RETRY_AFTER: Final = {
    "description": "seconds to wait before asking again",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
CHALLENGE: Final = {"description": "how to sign in", "required": True, "schema": {"const": "Bearer"}}
_SOURCE: Final = re.compile(r" \(contract §[^)]*\)")  # what a docstring stands on; readers of documents need not know


def document() -> dict[str, Any]:
    """The whole of it, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        for prefix in ("", "/api") if route.has_twin else ("",):
            paths.setdefault(prefix + route.path, {})[route.method] = _operation(route, is_twin=bool(prefix))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tutormax-streams: HTTP",
            "version": version("tutormax-streams"),
            "description": DESCRIPTION,
        },
        "servers": [{"url": "/", "description": "any worker"}],
        "tags": [{"name": name, "description": says} for name, says in TAGS.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
            "schemas": schemas([Error, AnsweringWorker, SilentWorker, *_shapes()]),
        },
    }


@cache
def written() -> bytes:
    """The document as a file."""
    return as_file(document())


def as_file(document: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def schemas(types: Iterable[Any]) -> dict[str, Any]:
    """JSON Schemas by name, of these types and all that they hold."""
    _, found = msgspec.json.schema_components(types, ref_template=SCHEMAS + "/{name}")
    return {name: cleaned(found[name]) for name in sorted(found)}


def cleaned(part: Any) -> Any:
    """A schema without titles that repeat its name, and without references to the contract."""
    if isinstance(part, list):
        return [cleaned(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _sentence(value) if key == "description" and isinstance(value, str) else cleaned(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
    }


def _sentence(docstring: str) -> str:
    return _SOURCE.sub("", " ".join(docstring.partition("\n\n")[0].split())).replace("``", "`")


def _shapes() -> list[Any]:
    used = [body.shape for route in ROUTES for body in route.answers.values()]
    return [shape for shape in dict.fromkeys(used) if shape not in (None, Any)]


def _operation(route: Route, *, is_twin: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.name}Api" if is_twin else route.name,
        "summary": route.says,
        "tags": [route.tag],
    }
    if route.who in ("staff", "own"):
        operation["description"] = "For staff." if route.who == "staff" else "For staff, and a tutor about itself."
    if route.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in route.parameters]
    operation["responses"] = {str(status): _response(body, status) for status, body in sorted(_answers(route).items())}
    # `POST /session` makes the cookie, and so does not take it.
    operation["security"] = (
        []
        if route.who == "anyone"
        else [{"bearer": []}]
        if route.method == "post"
        else [{"bearer": []}, {"cookie": []}]
    )
    return operation


def _answers(route: Route) -> dict[int, Body]:
    """What the route says itself, and the refusals that its kind has."""
    found: dict[int, Body] = {}
    if any(parameter.where == "query" for parameter in route.parameters):
        found[400] = Body("a parameter is missing or wrong, or the request too long", Error)
    if route.who != "anyone":
        found[401] = Body("sign in", Error)
        found[503] = Body("closed: nobody can be let in at present, or neither owner nor PostgreSQL answers", Error)
        if route.method == "get":
            found[429] = Body("too many requests of this user", Error)
    if route.who in ("staff", "own"):
        found[403] = Body("not for this user", Error)
    return found | dict(route.answers)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.says,
        "required": parameter.required,
        **({"style": "form", "explode": False} if parameter.commas else {}),
        "schema": dict(parameter.schema),
    }


def _response(body: Body, status: int) -> dict[str, Any]:
    headers: dict[str, Any] = {
        name: {"description": says, "schema": {"type": "string"}} for name, says in body.headers.items()
    }
    if body.shape is Error:
        headers |= {401: {"WWW-Authenticate": CHALLENGE}, 429: {"Retry-After": RETRY_AFTER}}.get(status, {})
        headers |= {"Retry-After": RETRY_AFTER} if status == 503 else {}
    response: dict[str, Any] = {"description": body.says}
    if headers:
        response["headers"] = headers
    if body.shape is Any:
        response["content"] = {body.content: {"schema": {"type": "object"}}}
    elif body.shape is not None:
        response["content"] = {body.content: {"schema": {"$ref": f"{SCHEMAS}/{body.shape.__name__}"}}}
        if status == 400:  # a request line beyond 64 KiB is refused before anything of ours sees it
            response["content"]["text/plain"] = {"schema": {"type": "string"}}
    elif body.content != JSON:
        response["content"] = {body.content: {"schema": {"type": "string"}}}
    return response
