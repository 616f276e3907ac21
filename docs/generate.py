"""Writes the parts of the documents that follow from the code: `python docs/generate.py`.

A page holds pairs of marks, `<!-- generated: NAME -->` and `<!-- end -->`; what stands between them is replaced. A test
fails while a page is not up to date. What the code does not say (a sentence about a topic or a field) stands in
`tutormax_streams/web/sentences.py`, and a missing one stops the generation.

Beside them it writes the documents for clients, docs/openapi.json and docs/asyncapi.json, as workers serve them.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
import typer

from models import alerts, metrics, rules
from models.facts import FeedbackPart, SessionFact, SessionPart
from models.fates import LATER_REASONS, REASONS
from models.metrics import Declines, MetricsUpdated, WindowMetrics
from models.payloads import PAYLOADS
from models.windows import TutorFacts
from tutormax_streams import environment
from tutormax_streams.cli import app as cli
from tutormax_streams.cli.exits import EXIT_CODES
from tutormax_streams.telemetry import METRICS
from tutormax_streams.topics import DAY_MS, Topics
from tutormax_streams.web import asyncapi, openapi
from tutormax_streams.web.sentences import (
    DECLINE_FIELDS,
    RECORD_FIELDS,
    REMARKS,
    TIMES,
    TOPIC_CONTENT,
    WINDOW_FIELDS,
)

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = ("README.md", "docs/events.md", "docs/metrics.md", "docs/telemetry.md")
DOCUMENTS: Final = {"docs/openapi.json": openapi.written, "docs/asyncapi.json": asyncapi.written}
SPEED: Final = ROOT / "docs" / "benchmarks.md"
"""Written by `make bench`."""


# --- tables -----------------------------------------------------------------------------------------------------------


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def without_source(sentence: str) -> str:
    """A sentence without the number of the contradiction that it resolves, which readers of the pages need not know."""
    return re.sub(r" \(C\d+\)", "", sentence)


def topics() -> str:
    prefix = "tutormax."
    names = Topics(prefix, "tutormax-stream")
    rows = []
    for plan in names.plans(partitions=24):
        key, content = TOPIC_CONTENT[plan.name.removeprefix(prefix)]
        partitions = "any" if plan.partitions is None else "1" if plan.partitions == 1 else "`KAFKA_PARTITIONS`"
        days = f"{int(plan.configs['retention.ms']) // DAY_MS} days" if "retention.ms" in plan.configs else "compacted"
        rows.append([f"`{plan.name}`", key, partitions, days, content])
    return table(["topic", "key", "partitions", "kept", "what it carries"], rows)


def reasons() -> str:
    return table(["reason", "what it means"], [[f"`{code}`", text] for code, text in (REASONS | LATER_REASONS).items()])


def warnings() -> str:
    return table(
        ["warning", "what is odd"], [[f"`{code}`", without_source(text)] for code, text in rules.WARNINGS.items()]
    )


def settings() -> str:
    found = environment.defaults()
    rows = [[f"`{s.name}`", f"`{s.value}`" if s.value else "", s.help] for s in found]
    return table(["variable", "default", "what it is for"], rows)


def commands() -> str:
    return table(["command", "does"], [[f"`tutormax-streams {name}`", text] for name, text in all_commands()])


def all_commands() -> Iterator[tuple[str, str]]:
    """(name, first sentence of its help) of every command, as in `topics tail`."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub, f"{name} {sub.name}".strip())
        if not hasattr(command, "commands"):
            yield name, " ".join(command.help.split("\n\n")[0].split())

    yield from walk(typer.main.get_command(cli), "")


def exit_codes() -> str:
    codes = re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, flags=re.MULTILINE)
    return table(["exit code", "means"], codes)


def telemetry() -> str:
    rows = []
    for name, metric in METRICS.items():
        kind = metric.kind.__name__.lower()
        full_name = f"tutormax_{name}" + ("_total" if kind == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append([f"`{full_name}`", kind, labels, metric.sentence])
    return table(["metric", "kind", "labels", "what it says"], rows)


def tiers() -> str:
    rows = []
    for figure, green, red, more_is_better in metrics.TIER_THRESHOLDS:
        green_text = f"{'≥' if more_is_better else '≤'} {green:g}" if green or more_is_better else "0"
        rows.append([f"`{figure}`", green_text, f"{'<' if more_is_better else '>'} {red:g}"])
    return table(["figure", "green", "red"], rows)


# --- fields -----------------------------------------------------------------------------------------------------------


def fields_of(kind: str) -> str:
    schema = PAYLOADS[kind].model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        needed = "yes" if name in schema.get("required", ()) else "no"
        rows.append([f"`{name}`", _json_type(name, field), needed, REMARKS.get((kind, name), "")])
    return table(["field", "type", "required", "remark"], rows)


def _json_type(name: str, schema: dict[str, Any]) -> str:
    """What a JSON Schema admits, in words."""
    if "anyOf" in schema:
        return " or ".join(_json_type(name, part) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    kind: str = schema["type"]
    if name in TIMES and kind == "string":
        return "time"
    if kind == "array":
        return f"array{_span(schema, 'Items', 'items')} of {_json_type('', schema['items'])}"
    word = {"integer": "whole number"}.get(kind, kind)
    if "minimum" in schema:
        most = schema.get("maximum")
        return (
            f"{word}, {schema['minimum']:g} to {most}" if most is not None else f"{word}, {schema['minimum']} or more"
        )
    return word + _span(schema, "Length", "characters")


def _span(schema: dict[str, Any], what: str, unit: str) -> str:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    if most is None:
        return ", not empty" if least else ""
    return f" of {least} to {most} {unit}" if least else f" of up to {most} {unit}"


def record_fields() -> str:
    return _struct_fields(MetricsUpdated, RECORD_FIELDS)


def window_fields() -> str:
    return _struct_fields(WindowMetrics, WINDOW_FIELDS)


def decline_fields() -> str:
    return _struct_fields(Declines, DECLINE_FIELDS)


def _struct_fields(struct: type[msgspec.Struct], sentences: dict[str, str]) -> str:
    hints = get_type_hints(struct)
    found = {field.encode_name: _wire_type(hints[field.name]) for field in msgspec.structs.fields(struct)}
    tag = struct.__struct_config__.tag
    if tag is not None:
        found = {"type": "string", **found}
    if missing := found.keys() ^ sentences.keys():
        raise KeyError(f"{struct.__name__}: {', '.join(sorted(missing))}")
    return table(["field", "type", "what it is"], [[f"`{name}`", found[name], sentences[name]] for name in found])


def _wire_type(hint: Any) -> str:
    if get_origin(hint) is types.UnionType:
        return " or ".join(_wire_type(argument) for argument in get_args(hint))
    if get_origin(hint) is Literal:
        return f"`{get_args(hint)[0]}`"
    if get_origin(hint) is tuple:
        return "array"
    names = {str: "string", bool: "boolean", int: "whole number", float: "number", type(None): "null"}
    return names.get(hint, "object")


def record_example() -> str:
    """A record made by the code, its longer windows left out."""
    tutor_id, as_of_us, hour_us = "tutor_00001", 1_769_860_800_000_000, 3_600_000_000
    facts = TutorFacts(tutor_id)
    for number, rating in enumerate((5, 4, None), start=1):
        start_us = as_of_us - number * 24 * hour_us
        session = SessionPart(
            start_us + hour_us, b"", tutor_id, start_us, is_first=number == 1, completed=rating is not None,
            no_show=rating is None, rescheduled=False, on_time=True, engagement=0.9 if rating else 0.0,
            objectives_met=True,
        )  # fmt: skip
        feedback = FeedbackPart(start_us + 2 * hour_us, b"", tutor_id, rating) if rating else None
        facts.put(SessionFact(tutor_id, f"s{number}", session, feedback))
    update = metrics.metrics_updated(
        tutor_id, facts.windows(as_of_us, "normalized"), as_of_us=as_of_us, epoch=1, position=48_213,
        tutor_name="Ada Example", tutor_status="active", oldest_event_time_ms=as_of_us // 1000 - 140, events=1,
    )  # fmt: skip
    update.windows.pop("30day"), update.windows.pop("90day")
    return "```json\n" + msgspec.json.format(metrics.encode(update), indent=2).decode() + "\n```"


def thresholds() -> str:
    """The bounds of alerts."""
    rows = []
    for bounds in alerts.BOUNDS:
        sign = "≤" if bounds.more_is_better else "≥"
        rows.append([f"`{bounds.name}`", f"{sign} {bounds.warning:g}", f"{sign} {bounds.critical:g}"])
    return table(["figure", "warning", "critical"], rows)


def alert_example() -> str:
    """An alert made by the code."""
    alert = alerts.AlertRaised(
        id="tutor_00001/alert.raised/3", sequence=3, tutor_id="tutor_00001", tutor_name="Ada Example",
        as_of=metrics.utc_text(1_769_860_800_000_000), window=alerts.WINDOW, figure="avg_rating_stars",
        severity="critical", old_severity="warning", value=2.9, threshold=alerts.BOUNDS[0].critical,
    )  # fmt: skip
    return "```json\n" + msgspec.json.format(alerts.encode(alert), indent=2).decode() + "\n```"


# --- speed ------------------------------------------------------------------------------------------------------------


def speed() -> str:
    """What `make bench` found, if it was run."""
    if not SPEED.exists():
        return "No figures yet: `make bench` measures them and writes them to docs/benchmarks.md."
    found = re.search(r"<!-- summary -->\n(.*?)<!-- end -->", SPEED.read_text(encoding="utf-8"), flags=re.DOTALL)
    if found is None:
        raise ValueError(f"{SPEED.name} holds no summary between <!-- summary --> and <!-- end -->")
    return found[1].strip()


# --- pages ------------------------------------------------------------------------------------------------------------

BLOCKS: Final[dict[str, Callable[[], str]]] = {
    "topics": topics,
    "reasons": reasons,
    "warnings": warnings,
    "settings": settings,
    "commands": commands,
    "exit-codes": exit_codes,
    "telemetry": telemetry,
    "tiers": tiers,
    "fields-tutor": lambda: fields_of("tutor"),
    "fields-session": lambda: fields_of("session"),
    "fields-feedback": lambda: fields_of("feedback"),
    "fields-tutor_event": lambda: fields_of("tutor_event"),
    "record-fields": record_fields,
    "window-fields": window_fields,
    "decline-fields": decline_fields,
    "record-example": record_example,
    "thresholds": thresholds,
    "alert-example": alert_example,
    "speed": speed,
}

_MARKED: Final = re.compile(r"<!-- generated: (?P<name>[\w-]+) -->\n.*?<!-- end -->", flags=re.DOTALL)


def rendered(page: str) -> str:
    """The text of a page with every generated part as it must be. Raises `KeyError` for a part that nobody makes."""

    def part(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- generated: {name} -->\n{BLOCKS[name]()}\n<!-- end -->"

    return _MARKED.sub(part, page)


def main() -> None:
    for name in PAGES:
        page = ROOT / name
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, document in DOCUMENTS.items():
        (ROOT / name).write_bytes(document())


if __name__ == "__main__":
    main()
