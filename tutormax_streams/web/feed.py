"""What changes, as it changes: topics `metrics` and `alerts` read by this worker for the clients connected to it.

1. Every worker serves every client: it reads the whole compacted topic `metrics`, and `alerts` from now on, without a
   group. It does so while somebody listens, and stops a while after the last one has left.
2. Of a tutor only records with a greater fence count, whoever wrote them and in whatever order they come.
3. Nothing is told before the log's end as of the start has been reached: what was there before is not a change.
4. A message's id is the position behind it in every partition, so that a client may go on at any worker. What is not
   remembered any more is answered by `reset`: load everything anew.
5. Nobody is waited for longer than `GIVE_WAY_SECONDS` a batch: whose queue is full is dropped, and comes back with its
   last id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson
from aiokafka import TopicPartition

from models import alerts, metrics
from models.alerts import Alert
from models.metrics import MetricsUpdated
from tutormax_streams import kafka
from tutormax_streams.settings import Settings
from tutormax_streams.web import alert_messages
from tutormax_streams.web.answers import USUAL_WINDOW, figures, shown

logger = logging.getLogger(__name__)

REMEMBERED: Final = 5_000
QUEUE: Final = 1_000
LINGER_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 3.0
POLL_MS: Final = 500
MOST_RECORDS: Final = QUEUE // 4  # of a batch: two messages each at most, for which half a queue is enough
GIVE_WAY_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to tell. `data` is JSON."""

    event: str  # "metrics", "tier", "alert" or "reset"
    data: bytes
    positions: tuple[int, ...] = ()  # behind its record, by partition of `metrics` and then of `alerts`
    is_last: bool = True  # of its record
    alert: Alert | None = None

    @property
    def id(self) -> str:
        """Where to go on after it; empty if more of the same record follows, so that it is told once more rather than
        never."""
        return ".".join(map(str, self.positions)) if self.is_last else ""


RESET: Final = Message("reset", b"{}")


@dataclass(slots=True, eq=False)
class Listener:
    """A client's queue; `dropped` once it was full."""

    queue: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, message: Message) -> None:
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped.set()

    def is_behind(self) -> bool:
        return self.queue.qsize() > QUEUE // 2 and not self.dropped.is_set()


class Standings:
    """The newest fence and tier of every tutor, and what a record changes about them."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], str | None]] = {}

    def news(self, update: MetricsUpdated) -> list[tuple[str, dict[str, Any]]]:
        """Events and their data; nothing if the record is older than what is known, or of a tutor without a profile."""
        known = self._known.get(update.tutor_id)
        if known is not None and update.fence <= known[0]:
            return []
        tier = update.windows[USUAL_WINDOW].performance_tier
        self._known[update.tutor_id] = (update.fence, tier)
        if update.tutor_name is None:
            return []
        who = {"tutor_id": update.tutor_id, "tutor_name": update.tutor_name, "as_of": update.as_of}
        windows = {name: shown(figures(window)) for name, window in update.windows.items()}
        told: list[tuple[str, dict[str, Any]]] = [("metrics", {**who, "windows": windows})]
        if known is not None and known[1] != tier:
            told.append(("tier", {**who, "window": USUAL_WINDOW, "old": known[1], "new": tier}))
        return told

    def forget(self, tutor_id: str) -> None:
        self._known.pop(tutor_id, None)


class Feed:
    """Tells its listeners what changes."""

    def __init__(self, settings: Settings, metrics_topic: str, alerts_topic: str, partitions: int) -> None:
        """`partitions` of each of both topics; nothing is in others."""
        self._settings = settings
        self._partitions = partitions
        self._metrics_topic = metrics_topic
        self._alerts_topic = alerts_topic
        self._listeners: set[Listener] = set()
        self._messages: deque[Message] = deque(maxlen=REMEMBERED)
        self._floor: tuple[int, ...] | None = None  # positions from which on all messages are remembered
        self._newest: Sequence[int] = ()  # positions now
        self._reading: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def listen(self, last_id: str | None = None) -> AsyncIterator[Listener]:
        """A queue of everything from now on, or from behind `last_id`."""
        listener = Listener()
        if last_id:
            for message in self._since(last_id):
                listener.tell(message)
        self._listeners.add(listener)
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners:
                self._leaving = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._stop)

    async def close(self) -> None:
        for listener in list(self._listeners):
            listener.dropped.set()
        if self._leaving is not None:
            self._leaving.cancel()
        reading = self._reading
        self._stop()
        if reading is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        self._messages.clear()
        self._floor = None

    def _since(self, last_id: str) -> list[Message]:
        try:
            seen = tuple(map(int, last_id.split(".")))
        except ValueError:
            return [RESET]
        floor = self._floor
        if floor is None or len(seen) != len(floor):
            return [RESET]
        if any(not low <= at <= high for low, at, high in zip(floor, seen, self._newest, strict=True)):
            return [RESET]  # forgotten, or of a log that was there before this one
        missed = [
            message
            for message in self._messages
            if any(position > at for position, at in zip(message.positions, seen, strict=True))
        ]
        return missed if len(missed) <= QUEUE // 2 else [RESET]

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            try:
                async with kafka.consumer(self._settings) as consumer:
                    await self._follow(consumer)
            except asyncio.CancelledError:
                raise
            except Exception as failure:  # noqa: BLE001 - whatever it was: listeners wait, and are told all over again
                logger.warning("the feed of changes stands still, tried again in %s s: %r", RETRY_SECONDS, failure)
            self._messages.clear()
            self._floor = None
            await asyncio.sleep(RETRY_SECONDS)
            for listener in self._listeners:
                listener.tell(RESET)

    async def _follow(self, consumer: Any) -> None:
        of_metrics, of_alerts = (
            [TopicPartition(topic, partition) for partition in range(self._partitions)]
            for topic in (self._metrics_topic, self._alerts_topic)
        )
        tps = of_metrics + of_alerts
        place = {tp: number for number, tp in enumerate(tps)}
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        begins = await consumer.beginning_offsets(of_metrics)
        positions = self._newest = [begins.get(tp, ends[tp]) for tp in tps]
        for tp, position in zip(tps, positions, strict=True):
            consumer.seek(tp, position)
        standings = Standings()
        while True:
            if self._floor is None and all(positions[place[tp]] >= ends[tp] for tp in tps):
                self._floor = tuple(positions)
                for listener in self._listeners:  # what changed since they came was not told
                    listener.tell(RESET)
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=MOST_RECORDS)
            for tp, records in found.items():
                for record in records:
                    positions[place[tp]] = record.offset + 1
                    if tp.topic == self._alerts_topic:
                        self._take_alert(record.value, positions)
                    else:
                        self._take(record.key, record.value, standings, positions)
            if not found and self._floor is None:  # behind the last record there may be none that is delivered
                for tp in tps:
                    positions[place[tp]] = max(positions[place[tp]], await consumer.position(tp))
            await self._give_way()

    async def _give_way(self) -> None:
        """Let listeners read: a fetch may hold thousands of records, and nobody is quick enough for all at once."""
        ends_at = time.monotonic() + GIVE_WAY_SECONDS
        await asyncio.sleep(0)
        while any(listener.is_behind() for listener in self._listeners):
            if time.monotonic() >= ends_at:
                return
            await asyncio.sleep(0.001)

    def _take(self, key: bytes | None, value: bytes | None, standings: Standings, positions: list[int]) -> None:
        if value is None:
            standings.forget((key or b"").decode(errors="replace"))
            return
        try:
            update = metrics.decode(value)
        except msgspec.DecodeError:
            return  # a stranger's record; flush has told of it
        told = standings.news(update)
        for number, (event, data) in enumerate(told, start=1):
            self._tell(Message(event, orjson.dumps(data), tuple(positions), number == len(told)))

    def _take_alert(self, value: bytes | None, positions: list[int]) -> None:
        try:
            alert = alerts.decode(value or b"")
        except msgspec.DecodeError:
            return  # a stranger's record
        data = orjson.dumps(alert_messages.event(alert))
        if self._floor is not None:
            self._tell(Message("alert", data, tuple(positions), alert=alert))
            return
        for listener in self._listeners:  # alerts are read from their end on: this is a new one, with nowhere to go on
            listener.tell(Message("alert", data, tuple(positions), is_last=False, alert=alert))

    def _tell(self, message: Message) -> None:
        if self._floor is None:
            return
        if len(self._messages) == REMEMBERED:
            self._floor = self._messages[0].positions
        self._messages.append(message)
        for listener in self._listeners:
            listener.tell(message)
