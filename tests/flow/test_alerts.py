"""Alerts at a real worker: a history that flows in tells nothing of what it passes through, and what changes afterwards
is told once."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

from tests.flow.driver import Deployment, eventually
from tests.flow.judge import rows
from tests.oracle import DAY_US, instant_us
from tests.samples import feedback_payload, session_payload, tutor_event_payload, tutor_payload

MENDED, BAD = "alert-mended", "alert-bad"


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
