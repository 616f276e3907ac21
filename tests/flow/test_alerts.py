"""Alerts at a real worker: a history that flows in tells nothing of what it passes through, and what changes afterwards
is told once, on the topic and to browsers."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from models.alerts import KINDS
from tests.flow.conftest import HYSTERESIS_PCT
from tests.flow.documented import assert_documented
from tests.flow.driver import Deployment, eventually
from tests.flow.judge import rows
from tests.flow.processes import Worker
from tests.flow.streams import Stream, listening
from tests.flow.users import STAFF, token
from tests.oracle import DAY_US, instant_us
from tests.samples import feedback_payload, session_payload, tutor_event_payload, tutor_payload

MENDED, BAD = "alert-mended", "alert-bad"
FIRST, MOVES, SLACK = "alert-first", "alert-moves", "alert-slack"


async def told_of(deployment: Deployment, tutor_id: str) -> list[dict[str, Any]]:
    """Every record of the topic about a tutor, in order."""
    found = await deployment.read(deployment.topics.alerts)
    return [json.loads(record.value) for record in found if record.key == tutor_id.encode()]


def rating(deployment: Deployment, tutor_id: str) -> Any:
    """As committed, over 30 days."""
    return deployment.rows_of(tutor_id).get("THIRTY_DAY", {}).get("avg_rating")


async def test_what_a_history_passes_through_is_not_told_and_a_change_after_it_is_told_once(living: Deployment):
    """One tutor's only rating is bad, and so is another's until a later version of it comes, all of it long ago."""
    long_ago_us = time.time_ns() // 1000 - 10 * DAY_US
    for tutor_id in (MENDED, BAD):
        await living.tell(
            ("tutors", tutor_payload(tutor_id, long_ago_us)),
            ("sessions", session_payload(f"{tutor_id}-1", tutor_id, long_ago_us, long_ago_us)),
            ("feedback", feedback_payload(f"{tutor_id}-1", f"{tutor_id}-1", tutor_id, 1, long_ago_us)),
        )
    numbers = itertools.count()

    async def both_look_bad() -> bool:
        """While the history goes on."""
        number = next(numbers)
        logins = ((f"{tutor_id}-{number}", tutor_id) for tutor_id in (MENDED, BAD))
        await living.tell(*(("tutor-events", tutor_event_payload(*who, "login", long_ago_us)) for who in logins))
        return {rating(living, tutor_id) for tutor_id in (MENDED, BAD)} == {1.0}

    await eventually(both_look_bad, every=0.5)
    mended = feedback_payload(f"{MENDED}-1", f"{MENDED}-1", MENDED, 5, long_ago_us + 1)
    ended_us = time.time_ns() // 1000
    await living.tell(("feedback", mended))
    looked_at = "SELECT * FROM tutormax_streams.announced WHERE tutor_id = %s"
    await eventually(lambda: all(rows(living.database, looked_at, [tutor_id]) for tutor_id in (MENDED, BAD)))
    (alert,) = await eventually(lambda: told_of(living, BAD))
    assert (alert["type"], alert["figure"], alert["severity"]) == ("alert.raised", "avg_rating_stars", "critical")
    assert instant_us(alert["as_of"]) > ended_us, "not before the history was over"
    await living.assert_right()
    assert await told_of(living, MENDED) == []

    now_us = time.time_ns() // 1000
    await living.tell(("feedback", feedback_payload(f"{MENDED}-1", f"{MENDED}-1", MENDED, 2, now_us)))
    await eventually(lambda: told_of(living, MENDED))
    await living.assert_right()
    told = await told_of(living, MENDED)
    assert [alert["id"] for alert in told] == [f"{MENDED}/tier.changed/1", f"{MENDED}/alert.raised/2"], "each once"
    assert (told[0]["old_tier"], told[0]["new_tier"]) == ("Exemplary", "Needs Attention")
    assert (told[1]["severity"], told[1]["value"], told[1]["old_severity"]) == ("critical", 2.0, None)
    assert len(await told_of(living, BAD)) == 1
    await living.assert_told()


Frames = dict[str, list[dict[str, Any]]]
"""What a socket was told, by type."""


@asynccontextmanager
async def told_by(worker: Worker) -> AsyncIterator[tuple[Frames, Stream]]:
    """`/ws/dashboard` and `/events` of a worker, as long as this lasts."""
    frames: Frames = defaultdict(list)

    async def hear(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            frame = json.loads(message.data)
            frames[frame["type"]].append(frame)

    async with (
        listening(worker) as stream,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token(STAFF)}"}) as client,
        client.ws_connect(f"http://127.0.0.1:{worker.port}/ws/dashboard") as socket,
    ):
        hearing = asyncio.create_task(hear(socket))
        await socket.send_str("ping")
        yield frames, stream
        hearing.cancel()


async def test_every_kind_of_alert_is_told_once_for_each_change_on_the_topic_and_to_browsers(
    living: Deployment, worker: Worker
):
    """Three tutors of whom all is well. Then of one first sessions go wrong, one moves sessions, and the rating of one
    falls and comes back: half the way would clear the alert with the usual hysteresis."""
    began_us = time.time_ns() // 1000 - 10_000_000  # history by now: it is looked at once all of it has come
    days = [(began_us - number * DAY_US // 2 - DAY_US // 4) for number in range(40)]
    numbers = itertools.count()

    def session(id_: str, tutor_id: str, start_us: int, at_us: int = 0, **changes: Any) -> tuple[str, Any]:
        return "sessions", session_payload(id_, tutor_id, start_us, at_us or time.time_ns() // 1000, **changes)

    def rated(id_: str, tutor_id: str, stars: int, at_us: int = 0) -> tuple[str, Any]:
        return "feedback", feedback_payload(id_, id_, tutor_id, stars, at_us or time.time_ns() // 1000)

    async def is_told(tutor_id: str, *expected: str) -> None:
        async def are_enough() -> bool:
            return len(await told_of(living, tutor_id)) >= len(expected)

        await eventually(are_enough, every=0.3)
        assert [alert["id"] for alert in await told_of(living, tutor_id)] == [f"{tutor_id}/{name}" for name in expected]

    async with told_by(worker) as (frames, stream):
        await living.tell(
            *(("tutors", tutor_payload(id_, began_us)) for id_ in (FIRST, MOVES, SLACK)),
            *(
                session(f"{id_}-{n}", id_, start_us, began_us)
                for id_ in (FIRST, MOVES, SLACK)
                for n, start_us in enumerate(days)
            ),
            *(rated(f"{FIRST}-{n}", FIRST, 5, began_us) for n in range(8)),
            rated(f"{SLACK}-0", SLACK, 5, began_us),
        )
        await living.quiet()
        known = "SELECT * FROM tutormax_streams.announced WHERE tutor_id IN (%s, %s, %s)"

        async def are_known_and_heard() -> bool:
            """A feed begins when its first listener comes."""
            await living.tell(session(f"{FIRST}-more{next(numbers)}", FIRST, days[0]))
            is_heard = frames["metrics_update"] and stream.metrics(FIRST)
            return bool(is_heard) and len(rows(living.database, known, [FIRST, MOVES, SLACK])) == 3

        await eventually(are_known_and_heard, every=0.7)
        assert [await told_of(living, id_) for id_ in (FIRST, MOVES, SLACK)] == [[], [], []], "all is well"

        late = {"session_number": 1, "late_start_minutes": 11}
        week = [(f"{MOVES}-week{n}", MOVES, days[n]) for n in range(3)]
        await living.tell(
            session(f"{FIRST}-late", FIRST, days[3], **late),
            *(session(*which, tutor_initiated_reschedule=True) for which in week),
            rated(f"{SLACK}-0", SLACK, 4),
        )
        await is_told(FIRST, "first_session.poor/1")
        await is_told(MOVES, "reschedule.pattern/1")
        await is_told(SLACK, "tier.changed/1", "alert.raised/2")

        fortnight = [(f"{MOVES}-fortnight{n}", MOVES, began_us - (8 + n) * DAY_US) for n in range(3)]
        await living.tell(
            session(f"{FIRST}-late", FIRST, days[3], **late),  # a newer version, as poor as it was
            session(f"{FIRST}-bad", FIRST, days[4], session_number=1),
            rated(f"{FIRST}-bad", FIRST, 2),
            *(session(*which, tutor_initiated_reschedule=True) for which in (*week, *fortnight)),
            rated(f"{SLACK}-1", SLACK, 5),
        )
        await is_told(FIRST, "first_session.poor/1", "tier.changed/2", "first_session.poor/3")
        await is_told(MOVES, "reschedule.pattern/1", "reschedule.pattern/2")
        await is_told(SLACK, "tier.changed/1", "alert.raised/2", "tier.changed/3")
        assert rating(living, SLACK) == 4.5
        assert 4.0 * 1.05 < 4.5 < 4.0 * (1 + HYSTERESIS_PCT / 100), "so that it stands"

        await living.tell(rated(f"{SLACK}-0", SLACK, 5), rated(f"{FIRST}-bad", FIRST, 1))
        await is_told(SLACK, "tier.changed/1", "alert.raised/2", "tier.changed/3", "alert.cleared/4")
        await living.assert_right()
        topic = [alert for id_ in (FIRST, MOVES, SLACK) for alert in await told_of(living, id_)]
        assert [alert["sequence"] for alert in topic] == [1, 2, 3, 1, 2, 1, 2, 3, 4]
        await eventually(lambda: len(of(frames["alert"])) == len(topic) == len(of_stream(stream)))
        await living.assert_told()

    assert topic[-1]["value"] == 5.0, "and was not cleared half the way"
    first = [alert for alert in topic if alert["type"] == "first_session.poor"]
    assert [(alert["session_id"], alert["rating_stars"], alert["is_late"]) for alert in first] == [
        (f"{FIRST}-late", None, True), (f"{FIRST}-bad", 2, False),
    ]  # fmt: skip
    moves = [alert for alert in topic if alert["type"] == "reschedule.pattern"]
    counted = ("reschedules_7day_count", "reschedules_14day_count", "escalated")
    assert [tuple(alert[name] for name in counted) for alert in moves] == [(3, 3, False), (3, 6, True)]
    assert {alert["type"] for alert in topic} == {kind.kind for kind in KINDS}
    for alert in topic:
        assert_documented("alerts", alert["type"], alert)
    assert set(frames) == {"analytics_update", "metrics_update", "alert", "intervention"}
    for kind, found in frames.items():
        for frame in found:
            assert_documented("socket", kind, frame)
    for event in stream.events:
        assert_documented("events", f"event.{event.kind}", event.data)
    ids = {alert["id"] for alert in topic}
    assert {frame["data"]["id"] for frame in of(frames["alert"])} == {event.data["id"] for event in of_stream(stream)}
    assert {frame["data"]["id"] for frame in of(frames["alert"])} == ids
    raised = f"{SLACK}/alert.raised/2"
    tasks = [(frame["data"]["id"], frame["data"]["task_type"]) for frame in of(frames["intervention"])]
    assert sorted(tasks) == [(f"{FIRST}/tier.changed/2/task", "coaching"), (f"{raised}/task", "followup")]


def of(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the three tutors."""
    return [frame for frame in frames if frame["data"]["tutor_id"] in (FIRST, MOVES, SLACK)]


def of_stream(stream: Stream) -> list[Any]:
    """Alerts about the three tutors."""
    return [e for e in stream.events if e.kind == "alert" and e.data["tutor_id"] in (FIRST, MOVES, SLACK)]
