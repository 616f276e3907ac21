"""Which tutors of a batch may have the e-mail they ask for: the platform allows each address once.

Within one batch addresses may be handed on (A takes B's, B a new one) and even swapped. A tutor who asks for an address
that somebody keeps is refused; the neighbours are not.

Of a stored tutor the address is changed apart, and only where it differs: the column is a key, and whoever so much as
mentions it in an update locks out all who insert sessions of that tutor, who lock each other out in turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from tutormax_streams.postgres.arrays import texts
from tutormax_streams.postgres.database import Connection


class Wish(NamedTuple):
    """A tutor's e-mail in a version that is about to be written."""

    tutor_id: str
    email: str
    version_us: int


class Answer(NamedTuple):
    """`refused`: tutors whose address stays with another. `movers`: stored tutors whose own address is wanted by
    another of the batch, and who give it up beforehand."""

    refused: set[str]
    movers: set[str]


_HOLDERS: Final = (
    "SELECT tutor_id, email, updated_at FROM tutors WHERE tutor_id = ANY(%s::text[]) OR email = ANY(%s::text[])"
)

# The unique index is checked row by row, so whoever hands an address on lets go of it first. Only rows that the batch
# is certain to overwrite: the version is the guard, and the row stays locked until then.
_LET_GO: Final = """
UPDATE tutors AS stored SET email = 'handed-on:' || stored.tutor_id
FROM pg_temp.tutormax_staged_tutors AS staged
WHERE stored.tutor_id = staged.tutor_id AND stored.updated_at < staged.updated_at AND stored.tutor_id = ANY(%s::text[])
"""

_HAND_OUT: Final = """
UPDATE tutors AS stored SET email = staged.email FROM pg_temp.tutormax_staged_tutors AS staged
WHERE stored.tutor_id = staged.tutor_id AND stored.email <> staged.email AND stored.tutor_id = ANY(%s::text[])
"""


async def answer(connection: Connection, wishes: Iterable[Wish]) -> Answer:
    """Decide on what is stored now. A writer who interferes later shows as a unique violation."""
    by_tutor = {wish.tutor_id: wish for wish in wishes}
    emails = {wish.email for wish in by_tutor.values()}
    found = await connection.execute(_HOLDERS, [texts(by_tutor), texts(emails)], binary=True)
    stored = {tutor_id: Wish(tutor_id, email, updated_us) for tutor_id, email, updated_us in await found.fetchall()}
    moving = {
        wish.tutor_id: wish.email
        for wish in by_tutor.values()
        if wish.tutor_id not in stored or stored[wish.tutor_id].version_us < wish.version_us
    }
    return decide(moving, {holder.tutor_id: holder.email for holder in stored.values()})


async def let_go(connection: Connection, movers: Collection[str]) -> None:
    """Free the addresses of `movers`. The stage of tutors must be filled, and moved on next."""
    await connection.execute(_LET_GO, [texts(movers)])


async def hand_out(connection: Connection, tutor_ids: Sequence[str]) -> None:
    """Give the tutors whose rows were just moved on from the stage their addresses."""
    await connection.execute(_HAND_OUT, [texts(tutor_ids)])


def decide(moving: dict[str, str], stored: dict[str, str]) -> Answer:
    """`moving`: tutor -> address asked for; `stored`: tutor -> address held. Of several new claims to one address the
    least tutor id has it."""
    moving = dict(moving)
    refused: set[str] = set()
    while True:
        kept = {email: tutor_id for tutor_id, email in stored.items() if tutor_id not in moving}
        losers = {tutor_id for tutor_id, email in moving.items() if email in kept}
        if not losers:
            claims: dict[str, str] = {}
            losers = {
                tutor_id for tutor_id in sorted(moving) if claims.setdefault(moving[tutor_id], tutor_id) != tutor_id
            }
        if not losers:
            break
        # Whoever is refused keeps the old address, which may refuse others in turn.
        refused |= losers
        for tutor_id in losers:
            del moving[tutor_id]
    wanted = {email: tutor_id for tutor_id, email in moving.items()}
    movers = {tutor_id for tutor_id in moving if wanted.get(stored.get(tutor_id, ""), tutor_id) != tutor_id}
    return Answer(refused, movers)
