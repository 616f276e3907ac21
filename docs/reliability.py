"""Writes docs/reliability.md from what the campaign of faults found: `python docs/reliability.py`.

Every figure comes from docs/reliability.jsonl, to which each run of `make faults` appends a line. What is written here
is only what the campaign cannot know: which bugs it found, and what shows that they are mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from docs.generate import SPEED, table
from tests.faults import campaign
from tests.faults.registry import FAULTS, Fault
from tests.faults.results import Result, locked, read

GAVE_UP: Final = "gave up with"
ALERTS: Final = "alerts"  # noted by runs whose verdict covers announcements
PAGE: Final = Path(__file__).with_name("reliability.md")
LARGE: Final = Path(__file__).with_name("benchmarks-large.txt")
MODULES: Final = campaign.MODULES  # they fill `FAULTS`


class Found(NamedTuple):
    """A bug that the campaign found."""

    what: str
    fault: str
    mended: str
    shown_by: str


FOUND: Final[tuple[Found, ...]] = (
    Found(
        "A RocksDB whose list of files was cut short opened without an error and with a hole, so rows were wrong until "
        "the local state was deleted",
        "disk-damaged",
        "every write remembers how long the list was; a shorter one means to begin anew from the changelog",
        "`tests/batches/test_shelves.py`, a list cut at every seventh byte",
    ),
    Found(
        "After a worker whose clock was ten minutes ahead, its tutors stood still until that time had come",
        "clock",
        "publications are paced by the worker's own clock, not by the as-of, which may lie ahead and never goes back",
        "`tests/agents/test_aggregate.py`, a predecessor's clock that was ahead",
    ),
    Found(
        "`/metrics` answered 500 while a batch was in flight whose records the sink had let go of",
        "retention",
        "a batch remembers the time of its oldest record by itself",
        "`tests/batches/test_commits.py`, positions of batches without records",
    ),
    Found(
        "A worker grew by some 40 MiB an hour while new sessions kept coming: the bound on facts laid out for computing "
        "counted them when a tutor was laid out, and none that came after that",
        "soak",
        "every fact that is laid out counts, and the tutors least in demand make room",
        "`tests/tables/test_tutor_windows.py`, facts that keep coming",
    ),
    Found(
        "A worker started on its disk let each partition of its tables have a cache of 8 MiB of its own, and read "
        "without filters: RocksDB's binding took the options from the database's own file",
        "soak",
        "every opening names the options of the column family too: one cache, with filters",
        "`tests/batches/test_shelves.py`, shelves that are opened again",
    ),
    Found(
        "A worker that Kafka left between two of its start-up checks ended with a traceback instead of a sentence",
        "kafka-bounces",
        "whatever starts the worker says what an operator can mend, with its exit code",
        "`tests/test_cli.py`, a Kafka that goes away while a worker starts",
    ),
    Found(
        "A worker that was told to stop while it put itself together went on working: what the signal's handler raised "
        "had met a weak reference's callback, where exceptions are ignored",
        "mixed",
        "a worker that has not begun to work ends at once, without an exception",
        "`tests/test_signals.py`",
    ),
    Found(
        "A worker that Kafka stopped in the middle of a rebalance ended with 70, the code of a bug, and without a sentence",
        "kafka-down",
        "what Kafka is the cause of ends with 3 and says so",
        "`tests/test_endings.py`",
    ),
    Found(
        "A write to a connection that had closed a moment before was a `RuntimeError` under uvloop, and ended the worker",
        "kafka-kill9",
        "it is an error of Kafka's, which clients answer by connecting again",
        "`tests/batches/test_closed_connections.py`",
    ),
    Found(
        "One damaged byte in RocksDB's list of files, and a worker hung for ever while it opened it: the interpreter's "
        "lock was held, so neither probes nor the watchdog could say so",
        "disk-damaged",
        "a timer outside the interpreter ends an opening after 20 s, and the next start takes that copy from the "
        "changelog",
        "`tests/batches/test_shelves.py`, an opening that does not end",
    ),
    Found(
        "Whether the parent of what waits in PostgreSQL has come was looked up past the platform's indexes, which are in "
        "another collation: each waiting feedback read all sessions, and with 600,000 of them a look took minutes, ended "
        "by the statement's deadline, and persist took PostgreSQL for away",
        "soak",
        "the look is in the collation of the indexes, and by subqueries that cannot be turned into a reading of all "
        "parents: 20,000 waiting rows take 0.03 to 0.35 s",
        "`tests/postgres/test_parking.py`, whether a parent has come is looked up in its index",
    ),
    Found(
        "A worker that started while others worked compared where logs ended with what was committed a little later: on a "
        "busy machine it refused to start, with 5 and the advice to rebuild",
        "disk-shared",
        "what is committed is asked for first",
        "`tests/test_startup.py`",
    ),
    Found(
        "A worker that a rebalance or the order to stop met while it read changelogs ended with 5 and the advice to rebuild",
        "crash-points",
        "a recovery that was cut short, which Faust takes for complete, says nothing of the changelogs' marks",
        "`tests/batches/test_recovery.py`, cut short in three ways",
    ),
    Found(
        "A worker that was to end while Kafka was away waited a minute for it, and then ended with 75",
        "kafka-down",
        "the client's thread survives the requests that it cancels, and flushing ends after 5 s",
        "`tests/faust_contract/test_rebalancing.py` and `tests/batches/test_stopping.py`",
    ),
)

HEAD: Final = """# Reliability

What happens to rows when something breaks, as measured. Each line is the newest run of one fault by `make faults` (of
`soak`: by `make soak`): three workers (four where scaled, one in `soak`) on a real Apache Kafka and PostgreSQL, a
steady stream of hard events (duplicates, shuffles, corrections, moves, ratings of foreign sessions, feedback before its
session, poison), and the fault. Then two verdicts: PostgreSQL, the dead letters and the announcements against a
brute-force oracle that shares no code with the product, and the same once more after all local state was deleted and
read back from the changelogs.

*lost*, *doubled* and *wrong* count rows and letters over both verdicts. *oldest* is the greatest age of an event that
was not in its row yet, from the beginning of the fault (which may take minutes: workers killed again and again, a
server that is away, a history that is published at once); *fresh after* says how long it took until a look (every 0.4
s) found rows less than 5 s old again, for good, and must lie within what is stated of the fault; it counts from what is
named there: of `kill9-one` from the very SIGKILL, and the longest of its times is shown; where "its end" is named, from
when what was broken was whole again (a server answers, a way is free). That rows were 5 s old at all is not part of it:
0.0 s where they never were. *gave up* counts workers that ended by themselves, with a code and a reason that their
fault allows, and were started again as any orchestrator does. *alerts* among what was noted are those that were told,
each once.
"""


def newest(results: Sequence[Result]) -> dict[str, Result]:
    """The last run of each fault, in the order of the campaign's list."""
    last = {result.fault: result for result in results}
    return {name: last[name] for name in sorted(FAULTS, key=lambda name: FAULTS[name].number) if name in last}


def page(results: Sequence[Result]) -> str:
    runs = newest(results)
    rows = [row(FAULTS[name], result) for name, result in runs.items()]
    heading = [
        "fault",
        "times",
        "seed",
        "events",
        "lost",
        "doubled",
        "wrong",
        "oldest",
        "fresh after",
        "gave up",
        "right",
    ]
    parts = [HEAD, table(heading, rows), ""]
    parts += [
        summary(results, runs),
        "",
        "## Speed of healing",
        "",
        healing(runs, *(path.read_text(encoding="utf-8") if path.exists() else "" for path in (SPEED, LARGE))),
        "",
        "## Faults",
        "",
        *details(runs),
        "",
        "## What the campaign found",
        "",
        *found(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def row(fault: Fault, result: Result) -> list[str]:
    verdicts = [tally for tally in (result.tally, result.rebuilt) if tally is not None]
    return [
        f"[{fault.name}](#{fault.name})",
        f"{result.times:,}",
        str(result.seed),
        f"{result.events:,}",
        *(str(sum(getattr(tally, kind) for tally in verdicts)) for kind in ("lost", "doubled", "wrong")),
        f"{result.worst_age:.1f} s",
        f"{result.fresh_after:.1f} s",
        str(result.gave_up),
        "yes" if result.is_right else "**no**",
    ]


def summary(results: Sequence[Result], runs: dict[str, Result]) -> str:
    if not runs:
        return "No run yet: `make faults` makes them."
    missing = [name for name, fault in FAULTS.items() if name not in runs and not fault.is_apart]
    commits = sorted({result.commit for result in runs.values()})
    events, minutes = sum(r.events for r in runs.values()), sum(r.seconds for r in runs.values()) / 60
    first, last = min(r.at for r in runs.values()), max(r.at for r in runs.values())
    wrong = [name for name, result in runs.items() if not result.is_right]
    sentences = [
        f"{len(runs)} faults, {events:,} events, {minutes:.0f} minutes, between {first} and {last} UTC.",
        f"Commits: {', '.join(commits)}.",
        f"Not right: {', '.join(wrong)}." if wrong else "All right.",
    ]
    silent = [name for name, result in runs.items() if ALERTS not in result.notes]
    if silent and len(silent) < len(runs):
        heard = ", ".join(name for name in runs if name not in silent)
        sentences.append(f"Announcements have been judged since they are part of the verdict: {heard}.")
    if missing:
        sentences.append(f"Not run yet: {', '.join(sorted(missing))}.")
    return " ".join(sentences)


def healing(runs: dict[str, Result], benchmarks: str, large_benchmark: str) -> str:
    """How quickly things heal, beside what is stated and aimed at."""

    def of(name: str, figure: Callable[[Result], float]) -> str:
        return f"{figure(runs[name]):.1f} s" if name in runs else "not measured"

    def by_bench(pattern: str, otherwise: str) -> tuple[str, str]:
        found = re.search(pattern, benchmarks)
        return (f"{otherwise}, {found[1]}", f"{found[2]} s") if found else (otherwise, "not measured")

    large = re.search(
        r"recovery of ([\d,]+ tutors x [^,]*, [^:]*): .*extrapolated to [\d,]+ tutors: ([\d.]+) s", large_benchmark
    )
    warm = by_bench(r"recovery of (\d[^,]*),.*? beyond a start of ([\d.]+) s", "a worker starts again on its disk")
    cold = by_bench(r"\| recovery of ([^|]*), seconds \| (\d+) \|", "the state is read back from nothing")
    one = "one worker of three gets a SIGKILL and stays away; counted from then: all rows fresh again"
    rolling = "three workers are restarted one after the other: greatest age of a row"
    return table(
        ["what", "measured", "limit", "aim", "by"],
        [
            [one, of("kill9-one", lambda run: run.fresh_after), "30 s", "15 s", "[kill9-one](#kill9-one)"],
            [rolling, of("sigterm", lambda run: run.worst_age), "60 s", "", "[sigterm](#sigterm)"],
            [*warm, "10 s", "", "`make bench`"],
            [*cold, "120 s", "60 s", "`make bench`"],
            [
                f"the same, extrapolated from {large[1]}" if large else "the same, from more",
                f"{large[2]} s" if large else "not measured",
                "120 s",
                "60 s",
                "`python -m benchmarks.scale`",
            ],
        ],
    )


def details(runs: dict[str, Result]) -> list[str]:
    """What each fault does, what is stated of it, and what its run noted besides."""
    lines = []
    for name in sorted(FAULTS, key=lambda name: FAULTS[name].number):
        fault, result = FAULTS[name], runs.get(name)
        promised = f"fresh again within {fault.within:g} s of {fault.since}"
        if fault.most_age is not None:
            promised += f", never older than {fault.most_age:g} s"
        lines += [f"### {name}", "", f"{fault.sentence[0].upper()}{fault.sentence[1:]}. Stated: {promised}."]
        if result is None:
            lines += ["", "Not run yet."]
        else:
            reasons = [f"{what}: `{note}`" for what, note in result.notes.items() if GAVE_UP in what]
            figures = [
                f"{what}: {note if isinstance(note, str) else f'{note:,.10g}'}"
                for what, note in result.notes.items()
                if GAVE_UP not in what
            ]
            if figures:
                lines += ["", f"Noted: {'; '.join(figures)}."]
            if reasons:
                lines += ["", *(f"- {reason}" for reason in reasons)]
            if result.failure:
                lines += ["", "Failed:", "", "```text", result.failure.splitlines()[0], "```"]
        lines.append("")
    return lines[:-1]


def found() -> list[str]:
    if not FOUND:
        return ["Nothing yet."]
    return [table(["bug", "found by", "mended", "shown by"], [list(bug) for bug in FOUND])]


def main() -> None:
    with locked():  # or a campaign beside this one could write an older page after ours
        PAGE.write_text(page(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
