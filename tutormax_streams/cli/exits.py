"""How commands end: exit codes, and one sentence on standard error for what an operator can mend."""

from __future__ import annotations

import sys
from typing import Any, Final

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from tutormax_streams import failures

INTERRUPTED = 130

EXIT_CODES: Final = """
Exit codes:

\b
  0    done; for `worker`: stopped by a signal
  1    the answer is no: something is missing, differs or was refused; for `worker`: local state did not open, or is damaged
  2    a setting, an option or a library's version is wrong, the data directory is in use, or the state is of a later release
  3    Kafka cannot be reached, or its topics are not as they must be
  4    PostgreSQL cannot be reached, or its tables are not as they must be
  5    the state is incomplete: `rebuild` is needed
  70   a failure of the program itself; please report it
  75   the worker stood still and ended itself, to be started anew; its log says where
  130  interrupted
"""

PIPE_COLUMNS: Final = 1000  # where nobody looks, no line is broken

out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
err = Console(stderr=True, highlight=False)


class OperatorsGroup(TyperGroup):
    """Commands whose failures are told in a sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Only what is a bug gets out."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            told = failures.told(error)
            if told is None:
                raise
            sentence, code = told
            err.print(Text(f"tutormax-streams: {sentence}"), soft_wrap=True)
            raise typer.Exit(code) from None
