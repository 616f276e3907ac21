"""`topics` and `database`: what the product needs of the servers beside it."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tutormax_streams.cli.exits import OperatorsGroup, out
from tutormax_streams.failures import FAILED

if TYPE_CHECKING:
    from tutormax_streams.tail import Entry

topics = typer.Typer(
    cls=OperatorsGroup, no_args_is_help=True, help="Create, verify and read the topics of this deployment."
)
database = typer.Typer(
    cls=OperatorsGroup, no_args_is_help=True, help="Create and verify the tables that the sink writes to."
)


@topics.command("ensure")
def ensure_topics() -> None:
    """Create the topics that are missing and verify the others.

    Internal topics and changelogs get KAFKA_PARTITIONS partitions, all get KAFKA_REPLICATION_FACTOR replicas. A worker
    does the same when it starts; this command is for deployments where workers may not create topics. Existing topics
    are never altered: what is wrong with them is told with the way to mend it, exit code 3.

    \b
    Examples:
      tutormax-streams topics ensure
      KAFKA_PARTITIONS=48 KAFKA_REPLICATION_FACTOR=3 tutormax-streams topics ensure
    """
    from tutormax_streams import environment
    from tutormax_streams import topics as names

    created = asyncio.run(names.ensure(environment.load()))
    for name in created:
        out.print(f"created {name}")
    out.print("all topics are as they must be")


@topics.command("check")
def check_topics() -> None:
    """Verify the topics and change nothing.

    Prints a sentence for each topic that is missing or has wrong partitions, replicas or cleanup, with the way to mend
    it. Exit code 1 if there is any.

    \b
    Example:
      tutormax-streams topics check
    """
    from tutormax_streams import environment
    from tutormax_streams import topics as names

    faults = asyncio.run(names.check(environment.load()))
    for fault in faults:
        out.print(fault, soft_wrap=True)
    if faults:
        raise typer.Exit(FAILED)
    out.print("all topics are as they must be")


@topics.command("tail")
def tail_topics(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TOPIC", help="Names without prefix; none: all but the internal ones.")
    ] = None,
    *,
    beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with the oldest records.")] = False,
    last: Annotated[int, typer.Option(min=0, help="Begin so many records before the end of each partition.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many lines.")] = None,
    tutor: Annotated[str | None, typer.Option(metavar="ID", help="Only what is about the tutor with this id.")] = None,
    follow: Annotated[bool, typer.Option(help="Go on with what comes, until Ctrl-C.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, nothing left out.")] = False,
) -> None:
    """Print what passes through the topics, readable.

    A line for each event, fact or record: time, place (topic/partition/offset), kind, fields. Packed records of internal
    topics are unpacked. Topics: tutors, sessions, feedback, tutor-events (raw); validated, enriched, facts (internal);
    metrics, persisted, alerts, dead-letter (public); control; and the changelogs of the tables, entities and
    tutor_windows. It joins no consumer group and commits nothing. It shows what events hold, names and students' words
    included.

    \b
    Examples:
      tutormax-streams topics tail
      tutormax-streams topics tail metrics --tutor tutor_00001
      tutormax-streams topics tail validated facts --from-beginning --no-follow --limit 20
      tutormax-streams topics tail sessions --last 5 --no-follow --json
    """
    from tutormax_streams import environment, tail
    from tutormax_streams.scans import scan
    from tutormax_streams.topics import Topics

    unknown = sorted(set(names or ()) - set(tail.READABLE))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(tail.READABLE)}")
    settings = environment.load()
    topics = Topics.of(settings)
    short_names = {tail.full_name(topics, name): name for name in names or tail.PUBLIC}

    async def print_entries() -> None:
        printed = 0
        records = scan(settings, list(short_names), last=None if beginning else last, follow=follow)
        async with aclosing(records):
            async for record in records:
                for entry in tail.entries(short_names[record.topic], record):
                    if tutor is not None and not entry.names(tutor):
                        continue
                    _print_entry(entry, as_json=as_json)
                    printed += 1
                    if printed == limit:
                        return

    asyncio.run(print_entries())


def _print_entry(entry: Entry, *, as_json: bool) -> None:
    from tutormax_streams import tail

    if as_json:
        typer.echo(json.dumps(entry.as_json()))
        return
    time, place, kind, fields = tail.line(entry)
    out.print(Text.assemble((time, "dim"), " ", (place, "cyan"), " ", (kind, "bold"), " ", fields), soft_wrap=True)


@database.command("ensure")
def ensure_database() -> None:
    """Create our side tables, and those of the platform's tables that do not exist.

    Ours live in the schema tutormax_streams. Of the platform's tables only missing ones are created, and none is ever
    altered; on the platform's own database run its migrations first.

    \b
    Examples:
      tutormax-streams database ensure
      TUTORMAX_DATABASE_URL=postgresql://me:secret@db/tutormax tutormax-streams database ensure
    """
    from tutormax_streams import environment
    from tutormax_streams.postgres import schema
    from tutormax_streams.postgres.database import Database

    async def ensure() -> list[str]:
        async with Database(environment.load().conninfo, size=1) as postgres:
            created = await postgres.run(schema.ensure_platform_tables)
            await postgres.run(schema.ensure_side_tables)
            for name in created:
                out.print(f"created {name}")
            return await postgres.run(schema.check)

    _report_database(asyncio.run(ensure()))


@database.command("check")
def check_database() -> None:
    """Verify the database and change nothing.

    Prints a sentence for each table, column, key or right that is missing, with the way to mend it. Exit code 1 if
    there is any.

    \b
    Example:
      tutormax-streams database check
    """
    from tutormax_streams import environment
    from tutormax_streams.postgres import schema
    from tutormax_streams.postgres.database import Database

    async def check() -> list[str]:
        async with Database(environment.load().conninfo, size=1) as postgres:
            return await postgres.run(schema.check)

    _report_database(asyncio.run(check()))


def _report_database(problems: list[str]) -> None:
    for problem in problems:
        out.print(problem, soft_wrap=True)
    if problems:
        raise typer.Exit(FAILED)
    out.print("the database is as it must be")
