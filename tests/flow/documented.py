"""What was really told, against docs/asyncapi.json as clients have it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "asyncapi.json"


@cache
def _document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    for schema in found["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return found


def assert_documented(channel: str, message: str, body: Any) -> None:
    """A message of this name of this channel looks like that, and holds nothing else."""
    document = _document()
    assert message in document["channels"][channel]["messages"], f"{channel} tells no {message}"
    payload = document["components"]["messages"][message]["payload"]
    jsonschema.Draft202012Validator({**document, **payload}).validate(body)
