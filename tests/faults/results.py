"""What a run found: one line for people, one JSON object for the page about reliability."""

from __future__ import annotations

import fcntl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from tests.flow.judge import Difference, Doubled, Lost, Wrong

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "reliability.jsonl"
MOST_SHOWN = 6


class Tally(msgspec.Struct):
    """Differences between what is and what must be."""

    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    examples: list[str] = []

    @classmethod
    def of(cls, differences: Sequence[Difference]) -> Tally:
        def count(kind: type[Difference]) -> int:
            return sum(isinstance(difference, kind) for difference in differences)

        return cls(
            count(Lost),
            count(Doubled),
            count(Wrong),
            [str(difference) for difference in sorted(differences)[:MOST_SHOWN]],
        )

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def __str__(self) -> str:
        return f"lost {self.lost}, doubled {self.doubled}, wrong {self.wrong}"


class Result(msgspec.Struct):
    """Of one run. `worst_age` and `fresh_after` in seconds: how old rows became, and when after the end of the fault
    they were as fresh as ever. `gave_up`: how often a worker ended by itself and was started again. `commit`: of the
    code that ran; two of them, if it changed meanwhile."""

    fault: str
    times: int
    seed: int
    events: int = 0
    tally: Tally | None = None
    rebuilt: Tally | None = None  # after all local state was deleted
    worst_age: float = 0.0
    fresh_after: float = 0.0
    gave_up: int = 0
    seconds: float = 0.0
    failure: str = ""
    notes: dict[str, float | str] = {}
    commit: str = ""
    at: str = ""

    @property
    def is_right(self) -> bool:
        return not self.failure and all(tally is not None and tally.is_right for tally in (self.tally, self.rebuilt))

    def line(self) -> str:
        notes = "".join(f"; {name} {note:g}" for name, note in self.notes.items() if not isinstance(note, str))
        return (
            f"{'right' if self.is_right else 'WRONG'}  {self.fault} x{self.times} seed {self.seed}: {self.events} events, "
            f"{self.tally or 'no verdict'}; after rebuild {self.rebuilt or 'no verdict'}; worst age {self.worst_age:.1f} s, "
            f"fresh after {self.fresh_after:.1f} s, {self.gave_up} gave up{notes}; took {self.seconds:.0f} s"
        )

    def trouble(self) -> str:
        """What is wrong, at length; "" if nothing is."""
        examples = [text for tally in (self.tally, self.rebuilt) if tally is not None for text in tally.examples]
        return "\n".join([*([self.failure] if self.failure else []), *examples])


@contextmanager
def locked(path: Path = RESULTS) -> Iterator[BinaryIO]:
    """The file of results, at its end, while no other campaign writes to it or makes the page of it."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # goes with the file, whatever becomes of us
        yield file


def append(result: Result, path: Path = RESULTS) -> None:
    """Add a result to the file, with the commit that it is of. Campaigns that run side by side may do so at once."""
    result.at = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    now = commit()
    result.commit = now if result.commit in ("", now) else f"{result.commit}..{now}"
    with locked(path) as file:
        file.write(msgspec.json.encode(result) + b"\n")


def read(path: Path = RESULTS) -> list[Result]:
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines() if line.strip()]


def commit() -> str:
    """Short name of the commit; with a + behind it if tracked files differ."""

    def git(*arguments: str) -> str:
        words = ["git", "--no-optional-locks", *arguments]  # others may commit meanwhile
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        return ended.stdout.strip()

    changed = [
        line for line in git("status", "--porcelain", "--untracked-files=no").splitlines() if "docs/" not in line
    ]
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
