"""`dead-letters`: work with what was refused."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tutormax_streams.cli.exits import OperatorsGroup, out
from tutormax_streams.failures import FAILED

if TYPE_CHECKING:
    from tutormax_streams.dead_letters import Letter, Outcome, Selection

CONTENTS = {
    "original": "original",
    "normalised": "normalised, the original had left the log",
    "cut": "cut, all of it does not fit into a letter: of its value the beginning was kept, of its key and headers small ones",
}

app = typer.Typer(
    cls=OperatorsGroup,
    no_args_is_help=True,
    help="List, inspect, mend and replay what was refused.\n\n"
    "A letter is named by its source, such as sessions/3/120 for offset 120 of partition 3 of the raw topic sessions, or "
    "by its own place, such as dead-letter/0/7. Letters come from internal topics too: records that somebody else wrote "
    "there, and figures that PostgreSQL refused. They can be listed and shown; they are no events to be replayed.",
)

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only with this reason; may be repeated.")
]
TopicNames = Annotated[
    list[str] | None,
    typer.Option("--topic", metavar="TOPIC", help="Only from this topic, without prefix; may be repeated."),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="LETTER", help="Such as sessions/3/120.")]


@app.command("list")
def list_letters(
    *,
    reason: Reasons = None,
    topic: TopicNames = None,
    limit: Annotated[int, typer.Option(min=0, help="Print so many of the newest letters.")] = 20,
    replayed: Annotated[bool, typer.Option("--replayed", help="Those that were replayed, too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each letter, all of them.")
    ] = False,
) -> None:
    """Count the letters by topic and reason, and print the newest.

    \b
    Examples:
      tutormax-streams dead-letters list
      tutormax-streams dead-letters list --reason invalid --topic sessions --limit 100
      tutormax-streams dead-letters list --json | jq .detail
    """
    letters = _collect(_selection(None, reason, topic, replayed=replayed))
    if as_json:
        for letter in letters:
            typer.echo(json.dumps(_as_json(letter)))
        return
    if not letters:
        out.print("no letters")
        return
    counts = Counter((letter.source.topic, letter.reason) for letter in letters)
    out.print(_table(["topic", "reason", "letters"], [(*what, f"{count:,}") for what, count in counts.most_common()]))
    shown = letters[-limit:] if limit else []
    if shown:
        out.print(f"\nthe newest {len(shown):,} of {len(letters):,}:")
        rows = [(str(letter.name), _time(letter.refused_ms), letter.reason, letter.detail) for letter in shown]
        out.print(_table(["letter", "refused", "reason", "detail"], rows))


@app.command("show")
def show_letter(
    name: Annotated[str, typer.Argument(metavar="LETTER", help="Such as sessions/3/120.")],
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Only the bytes, exactly as they were.")] = False,
) -> None:
    """Show one letter: why it was refused, where it came from, and its bytes.

    JSON is laid out for reading, other text is shown as it is, and what is no text as a table of bytes. --raw gives the
    bytes alone, to be edited in a file and replayed with --with.

    \b
    Examples:
      tutormax-streams dead-letters show sessions/3/120
      tutormax-streams dead-letters show dead-letter/0/7
      tutormax-streams dead-letters show sessions/3/120 --raw > event.json
    """
    from tutormax_streams.dead_letters import NotReplayable, readable

    letters = _collect(_selection([name], None, None), values=True)
    if not letters:
        raise NotReplayable(f"there is no letter {name}; `dead-letters list` shows those that there are")
    (letter, *_) = letters
    assert letter.value is not None
    if raw:
        typer.get_binary_stream("stdout").write(letter.value)
        return
    rows = [(name, str(value)) for name, value in _as_json(letter).items() if value not in (None, "", {})]
    out.print(_table(None, rows))
    out.print()
    out.print(Text(readable(letter.value)), soft_wrap=True)


@app.command("replay")
def replay_letters(
    names: Names = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All letters that were not replayed yet.")] = False,
    reason: Reasons = None,
    topic: TopicNames = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most, the oldest first.")] = None,
    fix: Annotated[
        str | None, typer.Option(metavar="JSON", help="A JSON merge patch for the event, or @FILE that holds one.")
    ] = None,
    edited: Annotated[
        Path | None,
        typer.Option("--with", metavar="FILE", exists=True, dir_okay=False, help="Publish this instead (one letter)."),
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="TOPIC", help="Publish to this raw topic instead.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen and publish nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Publish even what would be refused again.")] = False,
) -> None:
    """Publish letters again, as they were or mended.

    The original bytes go to the raw topic that they came from, under their original key. Replaying is safe at any time
    and any number of times: versions decide what counts. Letters are first judged as a worker would; what would be
    refused again is told and kept back, exit code 1. What was replayed disappears from `list`.

    \b
    --fix changes the event by a JSON merge patch: values replace values, null removes a field.
    --with publishes a file's bytes instead, made with `show --raw` and an editor.
    --to is for events that were published to the wrong topic.

    \b
    Examples:
      tutormax-streams dead-letters replay --all --dry-run
      tutormax-streams dead-letters replay sessions/3/120
      tutormax-streams dead-letters replay --reason invalid --fix '{"late_start_minutes": 0}'
      tutormax-streams dead-letters replay --reason wrong_kind --topic sessions --to feedback
      tutormax-streams dead-letters replay sessions/3/120 --with event.json
    """
    from tutormax_streams import dead_letters, environment

    if not (names or every or reason or topic):
        raise typer.BadParameter("say which letters: name them, filter by --reason or --topic, or give --all")
    if fix is not None and edited is not None:
        raise typer.BadParameter("--fix and --with exclude each other")
    mend = dead_letters.patching(_patch(fix)) if fix is not None else None
    letters = _collect(_selection(names, reason, topic), values=True)[:limit]
    if edited is not None and len(letters) != 1:
        raise typer.BadParameter(f"--with is for one letter, and {len(letters):,} are selected")
    outcomes = asyncio.run(
        dead_letters.replay(
            environment.load(),
            letters,
            mend=mend,
            new_value=edited.read_bytes() if edited is not None else None,
            to=to,
            force=force,
            dry_run=dry_run,
        )
    )
    for outcome in outcomes:
        out.print(Text(f"{outcome.letter.name}  {_fate(outcome)}"), soft_wrap=True)
    kept_back = sum(outcome.fate in ("refused", "not replayable") for outcome in outcomes)
    done = f"{len(outcomes) - kept_back:,} {'would be replayed' if dry_run else 'replayed'}"
    out.print(f"{done}, {kept_back:,} kept back" if letters else "no letters fit")
    if kept_back or (names and not letters):
        raise typer.Exit(FAILED)


def _selection(
    names: list[str] | None, reasons: list[str] | None, topics: list[str] | None, *, replayed: bool = False
) -> Selection:
    from tutormax_streams import environment
    from tutormax_streams.dead_letters import Place, Selection

    prefix = environment.load().kafka_topic_prefix
    return Selection(
        frozenset(Place.read(name, prefix) for name in names or ()),
        frozenset(reasons or ()),
        frozenset(topics or ()),
        replayed,
    )


def _collect(selection: Selection, *, values: bool = False) -> list[Letter]:
    from tutormax_streams import dead_letters, environment

    return asyncio.run(dead_letters.collect(environment.load(), selection, values=values))


def _patch(text: str) -> dict[str, Any]:
    try:
        patch = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--fix is no JSON: {error}") from error
    if not isinstance(patch, dict):
        raise typer.BadParameter("--fix must be a JSON object")
    return patch


def _fate(outcome: Outcome) -> str:
    match outcome.fate:
        case "replayed":
            return f"replayed {outcome.detail}"
        case "accepted":
            return "would be accepted" if not outcome.detail else f"would be sent, and refused again: {outcome.detail}"
        case "refused":
            return f"kept back, it would be refused again: {outcome.detail}"
        case _:
            return f"kept back: {outcome.detail}"


def _as_json(letter: Letter) -> dict[str, Any]:
    return {
        "letter": str(letter.name),
        "topic": letter.source.topic,
        "stands_at": str(letter.place),
        "reason": letter.reason,
        "detail": letter.detail,
        "refused_at": _time(letter.refused_ms),
        "key": _text(letter.key),
        "bytes": letter.size_bytes,
        "content": CONTENTS[letter.content],
        "sha256": letter.sha256,
        "headers": {name: _text(value) for name, value in letter.source_headers},
        "replayed_at": None if letter.replayed_ms is None else _time(letter.replayed_ms),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _time(instant_ms: int) -> str:
    try:
        return datetime.fromtimestamp(instant_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a producer's clock may say anything
        return f"{instant_ms} ms"


def _table(heading: list[str] | None, rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=heading is not None, header_style="bold")
    for number, name in enumerate(heading or ["", ""]):
        last = number == len(heading or ["", ""]) - 1
        table.add_column(name, no_wrap=not last, overflow="fold", justify="right" if name == "letters" else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
