"""Tutors that go on receiving events while they are asked for.

A tutor's events are versions of one session, which alone of all events come through in the order in which they were
sent: so every right answer is what the oracle says of the first so many of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from tests.flow.driver import Deployment
from tests.oracle import DAY_US, TIER_NAME, WINDOW_NAME, Oracle, Payload, Row, instant_us
from tests.samples import bare, session_payload, tutor_payload

AT_REST = 5  # sessions of each, beside the one that changes


class Moving:
    """`count` tutors."""

    def __init__(self, deployment: Deployment, count: int) -> None:
        self._deployment = deployment
        self._born_us = time.time_ns() // 1000
        self._versions: dict[str, list[Payload]] = {f"m{n}": [] for n in range(count)}
        self._owner_knew = Counter[str]()  # versions, of each tutor
        self.judged = Counter[str]()  # answers, by source

    @property
    def ids(self) -> list[str]:
        return list(self._versions)

    async def begin(self) -> None:
        """All of it but the changes."""
        await self._deployment.tell(*(event for tutor_id in self.ids for event in self._at_rest(tutor_id)))
        await self.move()

    async def move(self) -> None:
        """One more version of each tutor's session, unlike those before it; always in the same partition."""
        topic = self._deployment.topics.raw("sessions")
        async with self._deployment.producer() as producer:
            for place, (tutor_id, versions) in enumerate(self._versions.items()):
                payload = self._version(tutor_id, len(versions))
                versions.append(payload)
                self._deployment.payloads["sessions"].append(payload)
                partition = place % self._deployment.settings.kafka_partitions
                await producer.send(topic, bare(payload), partition=partition)
            await producer.flush()

    async def judge(self, tutor_id: str, ask: Any) -> None:
        """`ask()` looks a tutor up, in one window or in all. What it is told stands on all events that a row stood on
        before, and on none that was not sent yet."""
        rows = await asyncio.to_thread(self._deployment.rows_of, tutor_id)
        began_us = time.time_ns() // 1000
        status, body = await asyncio.to_thread(ask)
        ended_us, sent = time.time_ns() // 1000, len(self._versions[tutor_id])
        assert (status, body["tutor_id"]) == (200, tutor_id), body
        at_us = instant_us(body["as_of"])
        for window, figures in (body.get("windows") or {body["window"]: body["metrics"]}).items():
            row = rows[WINDOW_NAME[window]]
            at_least = self._knows(tutor_id, window, row, row["calculation_date"], 1, sent)
            if body["source"] == "stream":
                assert began_us <= at_us <= ended_us, body
                at_least = max(at_least, self._owner_knew[tutor_id])  # whose state moved knows no less
            knows = self._knows(tutor_id, window, figures, at_us, at_least, sent)
            if body["source"] == "stream":
                self._owner_knew[tutor_id] = knows
        if "windows" in body:
            assert body["performance_tier"] == body["windows"]["30day"]["performance_tier"], body
        self.judged[body["source"]] += 1

    def _at_rest(self, tutor_id: str) -> list[tuple[str, Payload]]:
        ids = [f"{tutor_id}-{n}" for n in range(AT_REST)]
        start_us = self._born_us - DAY_US
        sessions = [("sessions", session_payload(id_, tutor_id, start_us, self._born_us)) for id_ in ids]
        return [("tutors", tutor_payload(tutor_id, self._born_us)), *sessions]

    def _version(self, tutor_id: str, number: int) -> Payload:
        return session_payload(
            f"{tutor_id}-moves",
            tutor_id,
            self._born_us - DAY_US,
            time.time_ns() // 1000,
            no_show=number % 3 == 1,
            tutor_initiated_reschedule=number % 2 == 1,
            engagement_score=0.3 + number % 280 * 0.0025,
        )

    def _knows(self, tutor_id: str, window: str, figures: Row, at_us: int, at_least: int, at_most: int) -> int:
        """How many versions these figures stand on."""
        at_rest = [payload for topic, payload in self._at_rest(tutor_id) if topic == "sessions"]
        for count in range(at_least, at_most + 1):
            sessions = [*at_rest, self._versions[tutor_id][count - 1]]
            expected = Oracle({"sessions": sessions}, at_us).metrics(tutor_id, at_us)[window]
            if all(_alike(name, figures[name], expected[name]) for name in FIGURES):
                return count
        raise AssertionError(f"never a false zero: {tutor_id}, {window}, versions {at_least} to {at_most}: {figures}")


FIGURES = (
    "performance_tier",
    "sessions_completed", "avg_rating", "first_session_success_rate", "reschedule_rate", "no_show_count",
    "engagement_score", "learning_objectives_met_pct", "response_time_avg_minutes",
)  # fmt: skip
RATES = ("first_session_success_rate", "reschedule_rate", "learning_objectives_met_pct", "response_time_avg_minutes")


def _alike(name: str, told: Any, expected: Any) -> bool:
    """Rows have two decimals, and tiers by their names in the platform's code; of rates, answers have one."""
    if name == "performance_tier":
        return bool(told in (expected, TIER_NAME[expected]))
    if told is None or expected is None or name not in RATES:
        return bool(told == expected)
    return bool(round(told, 1) == round(expected, 1))
