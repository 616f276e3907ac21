"""What the agents ask of the world, as small protocols; `tutormax_streams.app` hands in the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from models.alerts import Alert
from models.events import Enriched, Origin
from models.metrics import MetricsUpdated


class Clock(Protocol):
    """Microseconds since 1970-01-01T00:00:00Z."""

    def __call__(self) -> int: ...


class Sender(Protocol):
    """Sends one record; the future resolves when the broker has confirmed it."""

    async def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Any]: ...

    async def send_run(
        self, topic: str, partition: int, items: Iterable[tuple[bytes, bytes | None]]
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Many small records of one partition as few producer batches: [(future, records in it)]."""
        ...


class DeadLetters(Protocol):
    """Where refused events go, each with its reason."""

    async def refuse_record(self, record: Any, topic: str, reason: str, detail: str) -> asyncio.Future[Any]:
        """A raw record of short topic name `topic`, bytes intact."""

    async def refuse_event(self, origin: Origin, stand_in: bytes, reason: str, detail: str) -> asyncio.Future[Any]:
        """An event further down the flow: its original bytes are fetched again, or `stand_in` is kept instead."""


class Telemetry(Protocol):
    """Counting; see `tutormax_streams.telemetry` for what each name means."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def set(self, name: str, value: float, **labels: str) -> None: ...


class SinkUnavailable(Exception):
    """PostgreSQL cannot take writes now: hold the work and try again."""


class Persisted(NamedTuple):
    """A row that was written."""

    kind: str
    id: str
    tutor_id: str
    version_us: int


class Owed(NamedTuple):
    """What no replay would report again: rows and refusals of records that had been parked, and were done with then.
    PostgreSQL remembers them until they are `told`."""

    rows: Sequence[Persisted]
    refusals: Sequence[Enriched]


class RecordsWritten(Protocol):
    """What became of a batch of entities."""

    @property
    def written(self) -> Sequence[Any]: ...
    @property
    def refused(self) -> Sequence[tuple[Enriched, str, str]]: ...
    @property
    def parked(self) -> int: ...
    @property
    def unparked(self) -> int: ...
    @property
    def unparked_metrics(self) -> Sequence[MetricsUpdated]: ...
    @property
    def owed(self) -> Owed: ...


class Records(Protocol):
    """The platform's tables of tutors, sessions, feedback and tutor events. Raises `SinkUnavailable`."""

    async def write(self, batch: Sequence[Enriched]) -> RecordsWritten: ...
    async def retry_parked(self, limit: int) -> RecordsWritten: ...
    async def told(self, owed: Owed) -> None: ...
    async def untold(self, seconds: float, limit: int) -> RecordsWritten: ...


class MetricsFlushed(Protocol):
    """What became of a flush."""

    @property
    def written(self) -> Sequence[str]: ...
    @property
    def refused(self) -> Sequence[tuple[MetricsUpdated, str, str]]: ...
    @property
    def fenced(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def unparked_metrics(self) -> Sequence[MetricsUpdated]: ...
    @property
    def alerts(self) -> Sequence[Alert]: ...


class MetricRows(Protocol):
    """The platform's table of metrics. Raises `SinkUnavailable`."""

    async def write(self, updates: Sequence[tuple[int, MetricsUpdated]]) -> MetricsFlushed: ...
    async def retry_parked(self, limit: int) -> MetricsFlushed: ...
    async def told_alerts(self, told: Sequence[Alert]) -> None: ...
    async def untold_alerts(self, seconds: float, limit: int) -> MetricsFlushed: ...
