"""Why a process must not go on: a sentence for an operator, and an exit code. Imports nothing, so that anyone may."""

from __future__ import annotations

from typing import Final

CONFIGURATION: Final = 2
"""A setting, an option, the version of a library or the release itself is wrong."""
KAFKA: Final = 3
"""Kafka cannot be reached, or its topics are not as they must be."""
POSTGRES: Final = 4
"""PostgreSQL cannot be reached, or its tables are not as they must be."""
STATE: Final = 5
"""The state is incomplete: `rebuild` is needed."""

CRASHED: Final = 70
"""A failure of the program itself."""


class Refused(Exception):
    """Stop here. The message is a sentence for an operator; `code` is the process's exit code."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code
