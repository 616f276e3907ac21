"""What a worker says of itself to those who operate it. It looks once a second, so that it can say since when."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import faust

from agents.holding import Holding
from models.breaker import Breaker
from tutormax_streams.backlog import Backlog
from tutormax_streams.batches import batch_consumer
from tutormax_streams.settings import Settings
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web.health import Health, versions

PERIOD_SECONDS: Final = 300.0
MINUTE_SECONDS: Final = 60.0
STEP_SECONDS: Final = 10.0

ACCEPTED: Final = ("accepted", "accepted_with_warnings")
_SKEWS: Final = ("clock_skew_seconds", "database_clock_skew_seconds")  # of the roles stream and sink

Buckets = dict[float, float]  # upper bound in seconds -> observations up to it


class Sources(Protocol):
    """What a worker knows."""

    settings: Settings
    apps: list[faust.App]
    health: Health
    telemetry: Telemetry
    recovery: Backlog
    backlog: Backlog
    breakers: dict[str, Breaker]  # by topic
    holding: Holding | None  # of the sink
    held: Callable[[], dict[int, bool]] | None  # partitions of the tables -> whether it answers from them
    clock: Callable[[], int]


@dataclass(slots=True)
class Lag:
    """Of a topic, as far as this worker reads it."""

    partitions: list[int] = field(default_factory=list)
    records: int = 0  # in the log and not committed as done
    seconds: float = 0.0  # least age of the oldest of them; 0: none


def lags(apps: Iterable[faust.App], now_ms: float) -> dict[str, Lag]:
    """By topic, also of topics of which nothing is owned.

    The age of a record is known once it is delivered; until then, that it was behind when last looked is a lower bound.
    """
    found: dict[str, Lag] = {}
    for app in apps:
        consumer = batch_consumer(app)
        if consumer is None:
            continue
        for topic in consumer.batch_topics:
            found.setdefault(topic, Lag())
        for tp, position in consumer.positions().items():
            lag = found.setdefault(tp.topic, Lag())
            lag.partitions.append(tp.partition)
            lag.records += position.behind
            lag.seconds = max(lag.seconds, position.behind_seconds)
            if position.oldest_ms is not None:
                lag.seconds = max(lag.seconds, (now_ms - position.oldest_ms) / 1000)
    for lag in found.values():
        lag.partitions.sort()
    return found


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Seconds below which `share` of the observations lie, straight lines inside the buckets; None without any."""
    total = max(buckets.values(), default=0.0)
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def freshness_answer(buckets: Mapping[float, float], events: float, seconds: float) -> dict[str, Any]:
    """Two quantiles of what was observed in the last `seconds`, and how many events were taken in. Those are counted
    by themselves: a row is observed once, by the oldest of the events that are new in it."""
    shares = {name: quantile(buckets, share) for name, share in (("p50_seconds", 0.5), ("p99_seconds", 0.99))}
    return {
        **{name: None if value is None else round(value, 3) for name, value in shares.items()},
        "events": int(events),
        "period_seconds": round(seconds, 1),
    }


class Counted(NamedTuple):
    """Counters that only grow, as of an instant."""

    at: float
    events: float  # accepted
    freshness: Buckets
    dead_letters: dict[tuple[str, str], float]  # (topic, reason)


class WorkerState:
    """The state of one worker. `monotonic` in seconds."""

    def __init__(self, sources: Sources, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._sources = sources
        self._monotonic = monotonic
        self._began = monotonic()
        self._counted: deque[Counted] = deque([Counted(self._began, 0.0, {}, {})])
        self._waiting_since: dict[str, float] = {}

    def look(self) -> None:
        """About once a second."""
        now = self._monotonic()
        waiting = self._sources.holding.reasons if self._sources.holding is not None else {}
        self._waiting_since = {sink: self._waiting_since.get(sink, now) for sink in waiting}
        if now - self._counted[-1].at >= STEP_SECONDS:
            self._counted.append(self._count(now))
            while now - self._counted[0].at > PERIOD_SECONDS + STEP_SECONDS:
                self._counted.popleft()

    def answer(self) -> dict[str, Any]:
        """As JSON."""
        sources, now = self._sources, self._monotonic()
        topics = lags(sources.apps, sources.clock() / 1000)
        earlier, later = self._counted[0], self._count(now)
        minute = next((found for found in self._counted if now - found.at <= MINUTE_SECONDS), self._counted[-1])
        readiness = sources.health.report()["roles"]
        held = sources.held() if sources.held is not None else None
        skew = max([sources.telemetry.value(name) for name in _SKEWS], key=abs)
        return {
            "name": sources.settings.instance_id,
            "url": sources.settings.advertised_url,
            "roles": list(sources.settings.roles),
            "versions": versions(),
            "uptime_seconds": round(now - self._began, 1),
            "started": sources.health.startup()["started"],
            "readiness": {
                role: {**found, "seconds": _rounded(sources.health.unready_seconds(role, now))}
                for role, found in readiness.items()
            },
            "topics": {
                topic: {
                    "partitions": lag.partitions,
                    "lag_records": lag.records,
                    "lag_seconds": round(max(0.0, lag.seconds), 3),
                }
                for topic, lag in sorted(topics.items())
            },
            "oldest_uncommitted_seconds": round(max((0.0, *(lag.seconds for lag in topics.values()))), 3),
            "tables": None
            if held is None
            else {"partitions": sorted(held), "serving": sorted(p for p in held if held[p])},
            "freshness": {**_freshness(earlier, later), "last_minute": _freshness(minute, later)},
            "recovery": _progress(sources.recovery),
            "backlog": _progress(sources.backlog),
            "dead_letters": [
                {
                    "topic": topic,
                    "reason": reason,
                    "count": int(count),
                    "recent": int(count - earlier.dead_letters.get((topic, reason), 0.0)),
                }
                for (topic, reason), count in sorted(later.dead_letters.items())
            ],
            "sink": self._sink(now),
            "breakers": {topic: breaker.state for topic, breaker in sources.breakers.items()},
            "clock_skew_seconds": round(skew, 3),
        }

    def _sink(self, now: float) -> dict[str, Any] | None:
        holding, telemetry = self._sources.holding, self._sources.telemetry
        if holding is None:
            return None
        return {
            "waiting": [
                {"sink": sink, "reason": reason, "seconds": round(now - self._waiting_since.get(sink, now), 1)}
                for sink, reason in sorted(holding.reasons.items())
            ],
            "retries": int(sum(value for _, value in _series(telemetry, "sink_retries"))),
            "parked": int(sum(value for _, value in _series(telemetry, "parked"))),
            "unparked": int(sum(value for _, value in _series(telemetry, "unparked"))),
            "fenced": int(telemetry.value("fenced")),
            "flushed_tutors": int(telemetry.value("flushed_tutors")),
        }

    def _count(self, now: float) -> Counted:
        telemetry = self._sources.telemetry
        letters = {(labels["topic"], labels["reason"]): n for labels, n in _series(telemetry, "dead_letters")}
        fresh = {float(labels["le"]): count for labels, count in _series(telemetry, "freshness", "_bucket")}
        events = sum(n for labels, n in _series(telemetry, "events") if labels["fate"] in ACCEPTED)
        return Counted(now, events, fresh, letters)


def _series(telemetry: Telemetry, name: str, ending: str = "_total") -> list[tuple[dict[str, str], float]]:
    """Labels and value of every sample of a metric; none if it was never touched."""
    wanted = f"tutormax_{name}{ending}"
    families = telemetry.registry.restricted_registry([wanted]).collect()
    return [(sample.labels, sample.value) for family in families for sample in family.samples if sample.name == wanted]


def _freshness(earlier: Counted, later: Counted) -> dict[str, Any]:
    """Of what was observed in between, and how it was counted."""
    fresh = {bound: count - earlier.freshness.get(bound, 0.0) for bound, count in later.freshness.items()}
    buckets = [[None if bound == float("inf") else bound, count] for bound, count in sorted(fresh.items())]
    return {**freshness_answer(fresh, later.events - earlier.events, later.at - earlier.at), "buckets": buckets}


def _progress(backlog: Backlog) -> dict[str, Any] | None:
    if not backlog.remaining:
        return None
    return {
        "remaining_records": backlog.remaining,
        "most_records": backlog.most,
        "records_per_second": round(backlog.records_per_second, 1),
        "seconds_left": _rounded(backlog.seconds_left),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
