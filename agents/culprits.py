"""Finding the one of many whose content makes our own code raise, so that it is refused alone and its neighbours are not.

A step works on many at once, which is why it is quick. When that raises, it is done again one by one. What the world
raises (Kafka, disks, time, a partition that left) is no content's fault and passes; so does what every single one of
many raises alike, because then it is ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

OF_CONTENT: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)

SURELY_OURS: Final = 10  # raise alike. Of fewer nobody can tell, and a quiet partition must not stop for two bad ones


async def one_by_one(
    many: Sequence[T], work: Callable[[list[T]], Awaitable[R]], failure: Exception
) -> tuple[list[R], list[tuple[T, Exception]]]:
    """What `work` came to for each of `many`, and those that make it raise. `failure` is what it raised for all of them
    together, and is raised again if none of many passes and they all raise exceptions of one type."""
    done: list[R] = []
    culprits: list[tuple[T, Exception]] = []
    for one in many:
        try:
            done.append(await work([one]))
        except OF_CONTENT as exc:
            culprits.append((one, exc))
    if not done and len(many) >= SURELY_OURS and len({type(exc) for _, exc in culprits}) == 1:
        raise failure
    return done, culprits
