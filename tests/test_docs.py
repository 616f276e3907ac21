"""The documents say what the code does: generated parts are current, links resolve, names exist, examples work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from agents.persist import Announcement
from docs import flow, generate
from models.fates import LATER_REASONS, REASONS, Accepted
from models.parsing import Parser
from tutormax_streams import environment
from tutormax_streams.cli import app
from tutormax_streams.telemetry import METRICS

ROOT = Path(__file__).parent.parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})
DECISIONS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
CODE = [
    path
    for name in ("models", "tables", "agents", "tutormax_streams", "tests")
    for path in ROOT.glob(f"{name}/**/*.py")
]
EXAMPLES_NOW_US = int(datetime(2026, 1, 31, tzinfo=UTC).timestamp()) * 1_000_000


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def mentioned(pattern: str) -> Iterator[tuple[str, re.Match[str]]]:
    for page in PAGES:
        for found in re.finditer(pattern, page.read_text()):
            yield name_of(page), found


def marked(mark: str, language: str) -> Iterator[tuple[str, str]]:
    """(what follows the mark, text) of fenced blocks behind comments such as <!-- event: session -->."""
    pattern = rf"<!-- {mark}: (?P<name>[\w-]+) -->\n```{language}\n(?P<text>.*?)```"
    for page in PAGES:
        for found in re.finditer(pattern, page.read_text(), flags=re.DOTALL):
            yield found["name"], found["text"]


# --- what is generated ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_parts_are_current(page: str) -> None:
    text = (ROOT / page).read_text()
    assert text == generate.rendered(text), "run `python docs/generate.py`"


def test_every_generated_part_stands_somewhere() -> None:
    pages = "".join((ROOT / page).read_text() for page in generate.PAGES)
    assert set(re.findall(r"<!-- generated: ([\w-]+) -->", pages)) == set(generate.BLOCKS)


@pytest.mark.parametrize("name", flow.THEMES)
def test_the_picture_is_current(name: str) -> None:
    drawn = (ROOT / "docs" / name).read_text()
    assert drawn == flow.picture(flow.THEMES[name]), "run `python docs/flow.py`"


# --- what is linked and named -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = page.read_text()
    targets = [target for pair in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text) for target in pair]
    for target in filter(None, targets):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} does not exist"
        if fragment:
            assert fragment in anchors(linked), f"{target}: no such heading"


def test_files_that_are_named_exist() -> None:
    pattern = r"`((?:models|tables|agents|tutormax_streams|tests|benchmarks|docs|deploy)/[\w./-]*)`"
    missing = {(page, found[1]) for page, found in mentioned(pattern) if not (ROOT / found[1]).exists()}
    missing -= {pair for pair in missing if pair[1] == "docs/benchmarks.md"}  # made by `make bench`
    assert missing == set()


def options_of_commands() -> dict[str, set[str]]:
    """Every command by its words, with its options."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, set[str]]]:
        yield words, {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for sub in getattr(command, "commands", {}).values():
            yield from walk(sub, f"{words} {sub.name}".strip())

    return dict(walk(typer.main.get_command(app), ""))


def test_commands_that_are_named_exist() -> None:
    commands = options_of_commands()
    for page, found in mentioned(r"(?s)```sh\n(.*?)```|`([^`\n]+)`"):
        for line in (found[1] or found[2]).splitlines():
            call = re.match(r"(?:\S+ )*?tutormax-streams ([a-z][^#]*)", line)
            if call is None:
                continue
            words = [word for word in call[1].split() if not word.startswith("-")]
            name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in commands), None)
            assert name is not None, f"{page}: there is no command {call[0]!r}"
            for option in re.findall(r"(?<!\S)--[a-z-]+", call[1]):
                assert option in commands[name], f"{page}: {name} has no option {option}"


def test_targets_of_make_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {found[1] for _, found in mentioned(r"(?m)(?:`|^)make ([a-z][a-z-]*)")}
    assert named - targets == set()


def test_settings_that_are_named_exist() -> None:
    known = set(environment.variables())
    pattern = r"\b(?:KAFKA|TUTORMAX|POSTGRES)_[A-Z_]*[A-Z](?!\w|\*|_\*)"
    assert {(page, found[0]) for page, found in mentioned(pattern) if found[0] not in known} == set()


def test_metrics_that_are_named_exist() -> None:
    suffixes = {"Counter": "_total", "Gauge": "", "Histogram": ""}
    known = {f"tutormax_{name}{suffixes[metric.kind.__name__]}" for name, metric in METRICS.items()}
    named = {found[0] for _, found in mentioned(r"\btutormax_[a-z_]+\b") if not found[0].startswith("tutormax_streams")}
    assert named <= known


# --- what the code says and the documents have to explain -------------------------------------------------------------


def test_rules_of_the_platform_that_the_code_cites_are_explained() -> None:
    explained = set(re.findall(r"^\| (§[\d.]+|C\d+) \|", (ROOT / "docs/platform.md").read_text(), flags=re.MULTILINE))
    cited = set()
    for path in CODE:
        text = path.read_text()
        cited |= {found.rstrip(".") for found in re.findall(r"contract,? (§\d+(?:\.\d+)?)", text)}
        cited |= set(re.findall(r"\bC\d{1,2}\b", text))
    assert cited - explained == set()


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    source = "".join(path.read_text() for path in CODE if "tests" not in path.parts and path.name != "fates.py")
    assert set(re.findall(r"Rejected\(\s*\"(\w+)\"", source)) <= REASONS.keys()
    assert [code for code in LATER_REASONS if f'"{code}"' not in source] == []
    refused_for = re.findall(r"refuse(?:_event|_record)?\([^()]*?, \"(\w+)\"", source)
    assert {"internal", "merge", "too_many_tutors"} <= set(refused_for) <= REASONS.keys() | LATER_REASONS.keys()


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_decisions_have_their_four_parts(page: Path) -> None:
    text = page.read_text()
    assert re.match(rf"# {page.name[:3]}: ", text)
    for heading in ("## Context", "## Choice", "## Rejected", "## How we would know that we were wrong"):
        assert heading in text
    assert f"({page.name})" in (ROOT / "docs/decisions/README.md").read_text()


# --- examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "text"), list(marked("event", "json")))
def test_example_events_are_accepted_without_warnings(kind: str, text: str) -> None:
    fate = Parser().parse(kind, text.encode(), EXAMPLES_NOW_US)
    assert isinstance(fate, Accepted), fate
    assert fate.warnings == ()


def test_there_is_an_example_of_every_kind_of_event() -> None:
    assert {kind for kind, _ in marked("event", "json")} == {"tutor", "session", "feedback", "tutor_event"}


def test_the_example_of_an_envelope_is_accepted() -> None:
    (source,) = (text for name, text in marked("run", "python") if name == "envelope")
    names: dict[str, Any] = {}
    exec(source, names)
    (session,) = (json.loads(text) for kind, text in marked("event", "json") if kind == "session")
    assert isinstance(Parser().parse("session", names["envelope"](session), EXAMPLES_NOW_US), Accepted)


def test_the_example_of_a_persisted_record_is_one() -> None:
    ((_, text),) = marked("record", "json")
    announcement = msgspec.json.decode(text, type=Announcement)
    assert json.loads(msgspec.json.encode(announcement)) == json.loads(text)


def test_python_examples_compile() -> None:
    for page, found in mentioned(r"(?s)```python\n(.*?)```"):
        compile(found[1], page, "exec")
