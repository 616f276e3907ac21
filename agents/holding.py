"""Holding work while PostgreSQL is away: bounded back-off, said in health and metrics, and resumed alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agents.ports import SinkUnavailable, Telemetry

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0


@dataclass(slots=True)
class Holding:
    """Shared by the sinks of a worker; `reason` says why it waits, or is None."""

    telemetry: Telemetry
    reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, sink: str) -> Holder:
        return Holder(self, sink)


@dataclass(slots=True)
class Holder:
    """One sink's patience."""

    holding: Holding
    sink: str

    async def until_available(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call `work` until it does not raise `SinkUnavailable`. Cancel to give up."""
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                result = await work()
            except SinkUnavailable as exc:
                if self.sink not in self.holding.reasons:
                    logger.warning("%s holds its work, PostgreSQL is unavailable: %s", self.sink, exc)
                self.holding.reasons[self.sink] = str(exc)
                self.holding.telemetry.count("sink_retries", sink=self.sink)
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            else:
                if self.holding.reasons.pop(self.sink, None) is not None:
                    logger.warning("%s goes on, PostgreSQL is back", self.sink)
                return result
