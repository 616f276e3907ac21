"""`rebuild`, `audit` and `settings`: is it right, and what to do when it is not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tutormax_streams.cli.exits import err, out
from tutormax_streams.failures import FAILED

if TYPE_CHECKING:
    from tutormax_streams import audit as referee

SHOWN_UNREADABLE = 20


def rebuild() -> None:
    """Load the state of all tables from PostgreSQL, in a new epoch.

    For when a worker refuses to start because its state is incomplete: a lost changelog, a topic made anew, another
    number of partitions, or a database that already held history. Stop all workers first. Internal topics are deleted
    and made anew, then what PostgreSQL holds of the last months goes through the same flow as live events; raw topics
    are read again from their beginning, which does no harm. Interrupted, it goes on where it was when run again. Until
    the workers have read all of it, they publish no figure.

    \b
    Example:
      tutormax-streams rebuild
    """
    from tutormax_streams import environment
    from tutormax_streams import rebuild as rebuilding

    settings = environment.load()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
        console=err,
    ) as bar:  # fmt: skip
        task = bar.add_task("preparing", total=None, left="")

        def report(progress: rebuilding.Progress) -> None:
            remaining = progress.remaining_seconds
            left = "" if remaining is None else f"rows, {remaining:.0f} s to go"
            bar.update(
                task,
                description=progress.step,
                total=progress.total_rows or None,
                completed=progress.loaded_rows,
                left=left,
            )

        progress = asyncio.run(rebuilding.rebuild(settings, report))
    for kind, key, fault in progress.unreadable[:SHOWN_UNREADABLE]:
        out.print(f"left out {kind} {key}: {fault}", soft_wrap=True)
    if len(progress.unreadable) > SHOWN_UNREADABLE:
        out.print(f"... and {len(progress.unreadable) - SHOWN_UNREADABLE:,} more")
    out.print(f"epoch {progress.epoch} holds {progress.loaded_rows:,} rows; start the workers")


def audit(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Print so many differences at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Compute every current row of metrics again, in SQL, from the raw tables, and compare.

    Each row is judged at its own calculation_date. What differs is looked at again a few seconds later, since raw rows
    and metrics are committed apart; only what stands is reported, exit code 1. Tutors of whom records wait for a parent
    are not judged. Reads only; safe beside running workers.

    \b
    Examples:
      tutormax-streams audit
      tutormax-streams audit --json
    """
    from tutormax_streams import audit as referee
    from tutormax_streams import environment
    from tutormax_streams.postgres.database import Database

    settings = environment.load()

    async def judge() -> referee.AuditResult:
        async with Database(settings.conninfo, size=2) as database:
            with Progress(TextColumn("judging"), BarColumn(), MofNCompleteColumn(), console=err, transient=True) as bar:
                task = bar.add_task("", total=None)
                return await referee.audit(
                    database,
                    settings.engagement_mode,
                    progress=lambda done, of: bar.update(task, completed=done, total=of),
                )

    result = asyncio.run(judge())
    if as_json:
        differences = [difference._asdict() for difference in result.differences]
        figures = {"tutors": result.tutors, "rows": result.rows, "unjudged_tutors": result.unjudged}
        typer.echo(json.dumps({"ok": result.ok, **figures, "differences": differences}))
    else:
        _print_audit(result, limit)
    if not result.ok:
        raise typer.Exit(FAILED)


def settings(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A list of JSON objects.")] = False,
    defaults: Annotated[bool, typer.Option("--defaults", help="As if the environment said nothing.")] = False,
) -> None:
    """Show the effective settings, secrets hidden, with the environment variable that each is read from.

    Exit code 2 and a sentence if one of them is wrong.

    \b
    Examples:
      tutormax-streams settings
      tutormax-streams settings --json
      KAFKA_PARTITIONS=48 tutormax-streams settings
    """
    from tutormax_streams import environment

    found = environment.defaults() if defaults else environment.listing(environment.load())
    if as_json:
        typer.echo(json.dumps(environment.as_json(found), indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("what it is for")
    for setting in found:
        style = "bold green" if setting.source == "environment" else ""
        table.add_row(Text(setting.name, style=style), Text(setting.value, style=style), Text(setting.help))
    out.print(table)
    for sentence in environment.unknown():
        err.print(Text(f"tutormax-streams: {sentence}"), soft_wrap=True)


def _print_audit(result: referee.AuditResult, limit: int) -> None:
    if result.differences:
        heading, *lines = result.table(limit)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in heading:
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        out.print(table)
        if len(result.differences) > limit:
            out.print(f"... and {len(result.differences) - limit:,} more")
    verdict = "no differences" if result.ok else f"{len(result.differences):,} differences"
    unjudged = f"; {result.unjudged:,} tutors not judged, records wait for a parent" if result.unjudged else ""
    out.print(f"{result.rows:,} rows of {result.tutors:,} tutors computed again: {verdict}{unjudged}")
