"""`demo`, `worker` and `generate`: what makes events flow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn

from tutormax_streams import signals
from tutormax_streams.cli.exits import err, out

Tutors = Annotated[int, typer.Option(min=2, max=100_000, help="How many tutors.")]
Days = Annotated[int, typer.Option(min=1, max=120, help="How many days of history.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same tutors and events.")]


def demo(
    *,
    once: Annotated[bool, typer.Option("--once", help="Load, judge, print figures and end.")] = False,
    tutors: Tutors = 300,
    days: Days = 90,
    rate: Annotated[float, typer.Option(min=0.1, max=2000, help="Live events per second.")] = 20.0,
    seed: Seed = 1,
    servers: Annotated[
        Literal["light", "real"],
        typer.Option(
            help="light: the servers that came with the Python packages. real: Apache Kafka (needs Java and Maven) and "
            "an installed PostgreSQL, where the machine has them."
        ),
    ] = "light",
) -> None:
    """Show the whole pipeline on this machine, without any server of yours.

    Starts a Kafka broker, a PostgreSQL and a worker in temporary directories, publishes a history of events, waits until
    every row is right and goes on with live events on a live screen; one tutor falls from tier to tier as you watch.
    Ctrl-C ends it and leaves nothing behind. With --once it judges the rows instead, by computing each of them again in
    SQL, prints what it found and ends with exit code 0 or 1; it needs no terminal for that.

    \b
    Examples:
      tutormax-streams demo
      tutormax-streams demo --once
      tutormax-streams demo --tutors 50 --days 30 --rate 100
    """
    from tutormax_streams import demo as show

    raise typer.Exit(show.run(show.Plan(tutors, days, rate, seed, once, servers), out))


def worker() -> None:
    """Run one worker until a signal stops it.

    Checks the topics, the state and the database first, and refuses to start with a sentence and an exit code when
    something is not as it must be. Run as many as you like on the same settings; each needs a data directory and a web
    port of its own (TUTORMAX_DATA_DIR, TUTORMAX_WEB_PORT). SIGTERM ends what is under way and then the worker; what was
    not finished is done by another. Serves /livez, /readyz, /metrics and /version.

    \b
    Examples:
      tutormax-streams worker
      TUTORMAX_ROLES=sink TUTORMAX_WEB_PORT=6067 tutormax-streams worker
    """
    signals.end_the_process()  # what is imported here takes its time
    from tutormax_streams import worker as replica

    raise typer.Exit(replica.main())


def generate(
    *,
    tutors: Tutors = 300,
    days: Annotated[int, typer.Option(min=0, max=120, help="How many days of history; 0 for none.")] = 90,
    rate: Annotated[float, typer.Option(min=0, max=2000, help="Live events per second after that; 0 for none.")] = 0.0,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long to publish live events; else on and on.")
    ] = None,
    seed: Seed = 1,
) -> None:
    """Publish synthetic events of the platform to Kafka: some days of history, then live events if a rate is given.

    Events look like the platform's own (tutors, sessions, feedback, tutor events) and go to the raw topics of the
    environment's settings. Never run it against a deployment that real tutors belong to: it makes up tutor_00001 and
    so on. Live events continue the history of the same seed and number of tutors.

    \b
    Examples:
      tutormax-streams generate
      tutormax-streams generate --tutors 20 --days 30 --seed 7
      tutormax-streams generate --days 0 --rate 50 --seconds 60
    """
    from tutormax_streams import environment
    from tutormax_streams.producer import publish_all, publish_live, publisher
    from tutormax_streams.simulation import Trickle, history

    effective = environment.load()

    async def publish() -> None:
        async with publisher(effective) as raw:
            with Progress(
                SpinnerColumn(),
                "{task.description} {task.completed:,} events",
                TimeElapsedColumn(),
                console=err,
                disable=not err.is_terminal,
            ) as bar:
                now = datetime.now(UTC)
                if days:
                    task = bar.add_task("history:", total=None)
                    await publish_all(
                        raw, history(seed, tutors, days, now), report=lambda events: bar.update(task, completed=events)
                    )
                if rate:
                    live = bar.add_task("live:", total=None)
                    trickle = Trickle(seed, tutors, datetime.now(UTC), rate)
                    await publish_live(
                        raw, trickle, seconds=seconds, report=lambda events: bar.update(live, completed=events)
                    )
            figures = ", ".join(f"{events:,} to {topic}" for topic, events in sorted(raw.published.items()))
            out.print(f"published {raw.published.total():,} events: {figures or 'none'}")

    asyncio.run(publish())
