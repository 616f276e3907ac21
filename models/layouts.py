"""How what is stored tells which layout it has, and what is raised of one that this release does not know.

1. A packed record (`models.wire`) begins with its version.
2. The value of a table in version 1, the only one so far, begins with the array that it is; that of any later version
   with `LATER`, which begins no value of MessagePack and no text, and a byte of version.
"""

from __future__ import annotations

from typing import Final

import msgspec

LATER: Final = b"\xc1"


class UnknownVersion(Exception):
    """Something of ours is stored in a layout of a later release."""

    def __init__(self, what: str, version: int) -> None:
        super().__init__(
            f"{what} has version {version}, and this release reads 1: it was written by a later release; stop all "
            "workers, then start all with that one, or run `tutormax-streams rebuild` and start all with this one"
        )


def unreadable(payload: bytes, failure: msgspec.DecodeError) -> Exception:
    """What to raise of a table's value that cannot be decoded: `UnknownVersion`, or else the `failure` itself."""
    if payload[:1] == LATER and len(payload) > 1:
        return UnknownVersion("a value of a table", payload[1])
    return failure
