"""The command `tutormax-streams`; --help is the manual.

Commands import what they need when they run, so that --help answers at once.
"""

from __future__ import annotations

import logging

import typer

from tutormax_streams.cli import letters, servers, state, work
from tutormax_streams.cli.exits import EXIT_CODES, OperatorsGroup

__all__ = ["app"]

app = typer.Typer(
    name="tutormax-streams",
    cls=OperatorsGroup,
    help="Every tutor's rolling 7, 30 and 90-day metrics in PostgreSQL, seconds after the event.\n\n"
    "Settings come from the environment; `tutormax-streams settings` shows them. Try `tutormax-streams demo` first: it "
    "needs no server.\n" + EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(work.demo)
app.command()(work.worker)
app.add_typer(servers.topics, name="topics")
app.add_typer(servers.database, name="database")
app.command()(work.generate)
app.command()(state.rebuild)
app.command()(state.audit)
app.add_typer(letters.app, name="dead-letters")
app.command()(state.settings)


@app.callback()
def quiet() -> None:
    # Clients log each attempt to connect; a command says it once. `worker` sets up logs of its own.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
