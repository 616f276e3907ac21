"""What health and operations answer, written down as types; see `shapes`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from tutormax_streams.web.shapes import SCHEMAS, Count, Naive, Seconds

Breaker: TypeAlias = Literal["closed", "open", "half-open"]
Sentences: TypeAlias = Annotated[list[str], Meta(description="why not, in sentences")]

Versions: Any = msgspec.defstruct(
    "Versions",
    [
        (name.replace("-", "_"), str, msgspec.field(name=name))
        for name in ("tutormax-streams", "faust-streaming", "python")
    ],
    namespace={"__doc__": "Of this program and what it stands on."},
)


class Alive(Struct):
    """The process answers."""

    alive: Literal[True]


class RoleReady(Struct):
    """Whether a role does its work."""

    ready: bool
    reasons: Sentences


class Ready(Struct):
    """Whether this worker does its work, by role."""

    ready: bool
    roles: dict[str, RoleReady]


class RoleStarted(Struct):
    """Whether the start of a role is over."""

    started: bool
    reasons: Sentences


class Started(Struct):
    """Whether the start is over, by role. Over once is over."""

    started: bool
    roles: dict[str, RoleStarted]


# -- operations --------------------------------------------------------------------------------------------------------


class Readiness(Struct):
    """Of a role, and for how long it has not been ready."""

    ready: bool
    reasons: Sentences
    seconds: Seconds | None


class WorkerTopic(Struct):
    """A topic, as far as this worker reads it."""

    partitions: Annotated[list[int], Meta(description="those that this worker reads")]
    lag_records: Annotated[Count, Meta(description="in the log and not committed as done")]
    lag_seconds: Annotated[Seconds, Meta(description="least age of the oldest record not committed as done; 0: none")]


class Tables(Struct):
    """Partitions of the tables that this worker holds, and those that it answers from."""

    partitions: list[int]
    serving: list[int]


class Fresh(Struct, kw_only=True):
    """From an event to its committed row, in the seconds before now."""

    p50_seconds: Annotated[Seconds | None, Meta(description="null: no row with anything new was committed")]
    p99_seconds: Annotated[Seconds | None, Meta(description="null: no row with anything new was committed")]
    events: Annotated[Count, Meta(description="accepted")]
    period_seconds: Seconds


class Freshness(Fresh, kw_only=True):
    """From an event to its committed row, in the last minutes."""

    last_minute: Fresh


class WorkerFresh(Fresh, kw_only=True):
    """With what it was counted from."""

    buckets: Annotated[
        list[tuple[float | None, float]],
        Meta(description="upper bound in seconds (null: none), and how many tutors' rows came up to it"),
    ]


class WorkerFreshness(WorkerFresh, kw_only=True):
    """In the last minutes, with what it was counted from."""

    last_minute: WorkerFresh


class Progress(Struct):
    """Of a recovery or a backlog."""

    remaining_records: Count
    most_records: Count
    records_per_second: Annotated[float, Meta(description="how fast it shrinks; negative while it grows")]
    seconds_left: Annotated[Seconds | None, Meta(description="null while it does not shrink")]


class Letters(Struct):
    """Events refused, by topic and reason."""

    topic: str
    reason: str
    count: Annotated[Count, Meta(description="since the worker's start")]
    recent: Annotated[Count, Meta(description="in the last minutes")]


class Waiting(Struct):
    """A sink that waits for PostgreSQL."""

    sink: str
    reason: str
    seconds: Seconds


class Sink(Struct):
    """Work for PostgreSQL, since the worker's start."""

    waiting: list[Waiting]
    retries: Count
    parked: Count
    unparked: Count
    fenced: Count
    flushed_tutors: Count


class Worker(Struct, kw_only=True):
    """What a worker says of itself."""

    name: str
    url: str
    roles: list[Literal["stream", "sink"]]
    versions: Versions
    uptime_seconds: Seconds
    started: bool
    readiness: dict[str, Readiness]
    topics: dict[str, WorkerTopic]
    oldest_uncommitted_seconds: Seconds
    tables: Annotated[Tables | None, Meta(description="null without the role stream")]
    freshness: WorkerFreshness
    recovery: Annotated[Progress | None, Meta(description="of tables; null: none under way")]
    backlog: Annotated[Progress | None, Meta(description="null: none")]
    dead_letters: list[Letters]
    sink: Annotated[Sink | None, Meta(description="null without the role sink")]
    breakers: Annotated[dict[str, Breaker], Meta(description="by topic")]
    clock_skew_seconds: float


class AnsweringWorker(Worker, kw_only=True):
    """A worker that answered in time."""

    answers: Literal[True]


class SilentWorker(Struct):
    """A worker that did not answer in time."""

    url: str
    answers: Literal[False]
    name: Annotated[str | None, Meta(description="that it last had; null: it never answered")]
    silent_seconds: Annotated[Seconds | None, Meta(description="since it last did; null: it never has")]


_WORKER: Final = {"anyOf": [{"$ref": f"{SCHEMAS}/{one}"} for one in ("AnsweringWorker", "SilentWorker")]}


class Partition(Struct):
    """Of the tables, and who answers for it."""

    partition: Count
    owner: str | None
    url: str | None
    state: Literal["serving", "catching up", "no answer", "no owner"]


class Topic(Struct):
    """A topic, over all workers that answer."""

    partitions: Count
    lag_records: Count
    lag_seconds: Seconds
    breaker: Breaker | None


class Problem(Struct):
    """What is wrong in words. `bad`: work stands, or may; `odd`: somebody should know."""

    level: Literal["bad", "odd"]
    text: str


class WaitingAt(Waiting):
    """A sink that waits for PostgreSQL, and at which worker."""

    worker: str


class Sinks(Struct):
    """All workers with the role sink."""

    workers: Count
    waiting: list[WaitingAt]
    retries: Count
    parked: Count
    unparked: Count
    fenced: Count
    flushed_tutors: Count


class Operations(Struct, kw_only=True):
    """The whole deployment, as the worker that was asked sees it. The worst problem comes first."""

    success: Literal[True]
    timestamp: Naive
    asked: Annotated[str, Meta(description="name of the worker that was asked")]
    all_well: bool
    problems: list[Problem]
    workers: list[Annotated[Any, Meta(extra_json_schema=_WORKER)]]
    partitions: list[Partition]
    topics: dict[str, Topic]
    freshness: Freshness
    recovery: Progress | None
    backlog: Progress | None
    dead_letters: list[Letters]
    sink: Sinks | None
