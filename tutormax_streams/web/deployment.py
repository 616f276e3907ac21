"""What the workers of a deployment say, put together: who owns what, how far it has come, and what is wrong in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tutormax_streams.web.worker_state import freshness_answer

LATE_SECONDS: Final = 60.0
WORST_FIRST: Final = ("open", "half-open", "closed")  # of a breaker

State = Mapping[str, Any]  # what `WorkerState` answers


class Silent(NamedTuple):
    """A worker that does not answer."""

    url: str
    name: str | None = None  # that it last had
    seconds: float | None = None  # since it last answered; None: it never has

    def answer(self) -> dict[str, Any]:
        return {"url": self.url, "answers": False, "name": self.name, "silent_seconds": _rounded(self.seconds)}


class Gone(NamedTuple):
    """A worker that belongs to no group any more."""

    name: str
    seconds: float  # since it last answered


def deployment(
    states: Sequence[State],
    silent: Sequence[Silent],
    owners: Mapping[int, str],
    partitions: int,
    gone: Sequence[Gone] = (),
) -> dict[str, Any]:
    """`owners` gives the URL by partition of the tables, as far as it is known; `partitions` how many there are."""
    listed = _partitions(states, silent, owners, partitions)
    letters = _dead_letters(states)
    problems = _problems(states, silent, gone, listed, letters)
    return {
        "all_well": not problems,
        "problems": problems,
        "workers": [
            *({**state, "answers": True} for state in sorted(states, key=lambda state: str(state["name"]))),
            *(worker.answer() for worker in sorted(silent)),
        ],
        "partitions": listed,
        "topics": _topics(states),
        "freshness": _freshness(states),
        "recovery": _together(states, "recovery"),
        "backlog": _together(states, "backlog"),
        "dead_letters": letters,
        "sink": _sink(states),
    }


def _partitions(
    states: Sequence[State], silent: Sequence[Silent], owners: Mapping[int, str], partitions: int
) -> list[dict[str, Any]]:
    """Every partition of the tables once."""
    by_url = {state["url"]: state for state in states}
    said = {p: state["url"] for state in states if state["tables"] for p in state["tables"]["partitions"]}
    quiet = {worker.url: worker.name for worker in silent}
    listed = []
    for partition in range(partitions):
        url = owners.get(partition, said.get(partition))
        state = by_url.get(url)
        tables = state["tables"] if state is not None else None
        standing = (
            "no owner"
            if url is None
            else "no answer"
            if url in quiet or tables is None
            else "serving"
            if partition in tables["serving"]
            else "catching up"
        )
        name = state["name"] if state is not None else quiet.get(url or "") or url
        listed.append({"partition": partition, "owner": name, "url": url, "state": standing})
    return listed


def _topics(states: Sequence[State]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for state in states:
        for topic, lag in state["topics"].items():
            into = found.setdefault(topic, {"partitions": 0, "lag_records": 0, "lag_seconds": 0.0, "breaker": None})
            into["partitions"] += len(lag["partitions"])
            into["lag_records"] += lag["lag_records"]
            into["lag_seconds"] = max(into["lag_seconds"], lag["lag_seconds"])
            breakers = {into["breaker"], state["breakers"].get(topic)}
            into["breaker"] = next((worst for worst in WORST_FIRST if worst in breakers), None)
    return dict(sorted(found.items()))


def _freshness(states: Sequence[State]) -> dict[str, Any]:
    """A worker of an older version does not say how its last minute was."""
    told = [state["freshness"] for state in states]
    minutes = [found["last_minute"] for found in told if "last_minute" in found]
    return {**_fresh(told), "last_minute": _fresh(minutes)}


def _fresh(told: Sequence[State]) -> dict[str, Any]:
    counts: Counter[float] = Counter()
    for found in told:
        for bound, count in found["buckets"]:
            counts[float("inf") if bound is None else bound] += count
    seconds = max((found["period_seconds"] for found in told), default=0.0)
    return freshness_answer(counts, sum(found["events"] for found in told), seconds)


def _together(states: Sequence[State], what: str) -> dict[str, Any] | None:
    """Recoveries or backlogs of all workers as one: it is over when the last one is."""
    found = [state[what] for state in states if state[what] is not None]
    if not found:
        return None
    left = [progress["seconds_left"] for progress in found]
    return {
        **{
            name: sum(progress[name] for progress in found)
            for name in ("remaining_records", "most_records", "records_per_second")
        },
        "seconds_left": None if None in left else max(left),
    }


def _dead_letters(states: Sequence[State]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, str]] = Counter()
    recent: Counter[tuple[str, str]] = Counter()
    for state in states:
        for found in state["dead_letters"]:
            counts[found["topic"], found["reason"]] += found["count"]
            recent[found["topic"], found["reason"]] += found["recent"]
    return [
        {"topic": topic, "reason": reason, "count": count, "recent": recent[topic, reason]}
        for (topic, reason), count in counts.most_common()
    ]


def _sink(states: Sequence[State]) -> dict[str, Any] | None:
    """Of all workers with the role `sink`; None if none answers."""
    sinks = [(state["name"], state["sink"]) for state in states if state["sink"] is not None]
    if not sinks:
        return None
    return {
        "workers": len(sinks),
        "waiting": [{"worker": name, **waiting} for name, sink in sinks for waiting in sink["waiting"]],
        **{
            name: sum(sink[name] for _, sink in sinks)
            for name in ("retries", "parked", "unparked", "fenced", "flushed_tutors")
        },
    }


def _problems(
    states: Sequence[State],
    silent: Sequence[Silent],
    gone: Sequence[Gone],
    partitions: Sequence[Mapping[str, Any]],
    letters: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:
    """The worst first. `level`: bad (work stands, or may) or odd (somebody should know)."""
    bad: list[str] = []
    odd: list[str] = []
    for worker in silent:
        since = "" if worker.seconds is None else f" for {worker.seconds:.0f} s"
        bad.append(f"{worker.name or worker.url}: no answer{since}")
    ownerless = sum(partition["owner"] is None for partition in partitions)
    if ownerless:
        bad.append(f"{ownerless} of {len(partitions)} partitions {'has' if ownerless == 1 else 'have'} no owner")
    for state in states:
        for role, found in state["readiness"].items():
            since = f" ({found['seconds']:.0f} s)" if found["seconds"] else ""
            bad.extend(f"{state['name']}, {role}{since}: {reason}" for reason in found["reasons"])
    if not silent and not any("sink" in state["roles"] for state in states):
        bad.append("no worker has the role sink: nothing is written to PostgreSQL")
    odd.extend(f"{worker.name} left {worker.seconds:.0f} s ago" for worker in sorted(gone))
    for topic, lag in _topics(states).items():
        if lag["lag_seconds"] >= LATE_SECONDS:
            odd.append(f"{topic} is {lag['lag_seconds']:.0f} s behind")
    backlog = _together(states, "backlog")
    if backlog is not None:
        odd.append(f"{backlog['remaining_records']:,} records wait")
    recent = sum(found["recent"] for found in letters)
    if recent:
        odd.append(f"{recent:,} event{'s were' if recent > 1 else ' was'} refused in the last minutes")
    versions = sorted({state["versions"]["tutormax-streams"] for state in states})
    if len(versions) > 1:
        odd.append(f"workers run different versions: {', '.join(versions)}")
    return [*({"level": "bad", "text": text} for text in bad), *({"level": "odd", "text": text} for text in odd)]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
