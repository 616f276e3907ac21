"""What can be done to a deployment: each fault is a function of a run, registered with what must be true afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.run import Run

Happen = Callable[["Run"], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """`number`: of the campaign's list. `within`: seconds in which rows are as fresh as ever again, counted from `since`:
    when the function returns, unless the run is told otherwise.

    Times are judged. `most_age`: seconds that no row may ever lag behind, for faults that nobody should notice.

    Endings are judged. `may_end_with`: exit codes that workers may end with by themselves, and a pattern of the reason that
    each must give then; whoever ends otherwise has failed.
    """

    name: str
    number: int
    sentence: str
    happen: Happen
    times: int = 1
    short_times: int = 0  # in the short form (`CHAINS` in test_campaign.py); 0: not part of it
    within: float = 60.0
    since: str = "its end"
    most_age: float | None = None
    may_end_with: Mapping[int, str] = field(default_factory=dict)
    workers: int = 3
    start: int | None = None  # how many of them run at first, where not all
    proxied: bool = False  # workers reach both servers through doors
    settings: Mapping[str, str] = field(default_factory=dict)
    per_second: float = 60.0
    poison_share: float = 0.01
    hot: float = 0.0
    crowds: int = 1  # sets of tutors whom events are about in turn
    raw_partitions: Mapping[str, int] = field(default_factory=dict)  # of raw topics that producers made before us
    is_huge: bool = False  # its state takes minutes to be read back
    is_apart: bool = False  # only when named: it has a target of its own


FAULTS: dict[str, Fault] = {}


def fault(name: str, number: int, sentence: str, **options: object) -> Callable[[Happen], Happen]:
    """Register a function as the fault `name`."""

    def register(happen: Happen) -> Happen:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, number, sentence, happen, **options)  # type: ignore[arg-type]
        return happen

    return register
