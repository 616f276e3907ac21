"""Python imports this at start where this directory is on the path: a later release of ours, which reads facts in a
layout of its own (version 1's behind another byte of version) besides the old one. It writes the new one; with
NEXT_WRITES=old it is the release before that, which only reads both. /version tells which. With NEXT_TABLES=next the
values of tables have a new layout too, which stays behind when one goes back.
"""

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from models import facts, homes, layouts, wire

NEXT = b"\x02"
LATER = layouts.LATER + NEXT
WRITES_OLD = os.environ.get("NEXT_WRITES") == "old"
version, pack, unpack = importlib.metadata.version, wire.pack_facts, wire.unpack_facts


def version_of(distribution_name: str) -> str:
    ours = "+reads.both" if WRITES_OLD else "+next"
    return version(distribution_name) + (ours if distribution_name == "tutormax-streams" else "")


def pack_facts(facts: Sequence[wire.Facts]) -> bytes:
    return NEXT + pack(facts)


def unpack_facts(packed: bytes) -> list[wire.Facts]:
    return unpack(packed[1:] if packed[:1] == NEXT else packed)


def change_table(module: Any) -> None:
    encode, decode = module.encode, module.decode
    module.encode = lambda value: LATER + encode(value)
    module.decode = lambda payload: decode(payload.removeprefix(LATER))


importlib.metadata.version = version_of
wire.unpack_facts = unpack_facts
if not WRITES_OLD:
    wire.pack_facts = pack_facts
if os.environ.get("NEXT_TABLES") == "next":
    change_table(facts)
    change_table(homes)
