"""The program `tutormax-streams`, and `python -m tutormax_streams`."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

from tutormax_streams import signals
from tutormax_streams.refused import CRASHED


def main() -> NoReturn:
    """Run the command line. Exit codes are those of `cli.exits`."""
    try:
        if sys.argv[1:] == ["worker"]:  # it lives for months, and takes no command line along: 5 MiB less
            signals.end_the_process()  # what is imported here takes its time
            from tutormax_streams import worker

            sys.exit(worker.main())
        from tutormax_streams.cli import app

        app()
    except Exception as error:  # noqa: BLE001 - the last resort, so that a bug has an exit code of its own
        from tutormax_streams import failures

        if (told := failures.told(error)) is not None:
            sys.stderr.write(f"tutormax-streams: {told[0]}\n")
            sys.exit(told[1])
        traceback.print_exc()
        sys.exit(CRASHED)
    raise AssertionError("typer exits by itself")


if __name__ == "__main__":
    main()
