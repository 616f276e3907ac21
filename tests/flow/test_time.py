"""Time passing changes rows, without any event and in real time."""

from __future__ import annotations

import asyncio
import time

from tests.flow.driver import Deployment, eventually
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_payload

FOLLOWS_WITHIN_SECONDS = 5.0
SECOND_US = 1_000_000


async def test_rows_follow_sessions_over_both_edges_of_the_windows_within_five_seconds(living: Deployment):
    now_us = time.time_ns() // 1000
    leaving_us, ripening_us = now_us + 8 * SECOND_US, now_us + 11 * SECOND_US
    starts = {
        "at-7": leaving_us - 7 * DAY_US,
        "at-30": leaving_us - 30 * DAY_US,
        "at-90": leaving_us - 90 * DAY_US,
        "future": ripening_us,
    }
    await living.tell(
        ("tutors", tutor_payload("timely", now_us - DAY_US)),
        *(
            ("sessions", session_payload(f"timely-{name}", "timely", start_us, now_us - SECOND_US))
            for name, start_us in starts.items()
        ),
    )

    def counts() -> tuple[int, ...]:
        rows = living.rows_of("timely")
        return tuple(row["sessions_completed"] for _, row in sorted(rows.items(), reverse=True))  # 30, 7, 90 days

    await eventually(lambda: counts() == (2, 1, 3))
    assert time.time_ns() // 1000 < leaving_us, "too slow to see anything: all was over before it came through"
    for edge_us, after in ((leaving_us, (1, 0, 2)), (ripening_us, (2, 1, 3))):
        await asyncio.sleep(edge_us / 1e6 - time.time())
        await eventually(lambda after=after: counts() == after, FOLLOWS_WITHIN_SECONDS)
    await living.assert_right()
