"""How many lookups a real worker takes from one user, as its environment says."""

from __future__ import annotations

import time

from tests.flow.conftest import RATE_PER_MINUTE
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.flow.test_lookups import ask, strictly
from tests.flow.users import STAFF, STRANGER, TUTOR


async def test_who_asks_too_often_is_told_when_to_come_back_and_holds_up_nobody_else(
    living: Deployment, worker: Worker
):
    began, taken = time.monotonic(), 0
    while (status := ask(worker, "/whoami", TUTOR)[0]) == 200:
        taken += 1
    assert status == 429
    while (wait := strictly(worker, "/whoami", TUTOR)[1]) is None:
        taken += 1  # what has come back meanwhile
    refilled = (time.monotonic() - began) * RATE_PER_MINUTE / 60
    assert RATE_PER_MINUTE <= taken <= RATE_PER_MINUTE + refilled
    while (answer := ask(worker, "/tutors/anyone/metrics", TUTOR))[0] == 403:
        pass
    assert answer[1]["error"] == "Too many requests", "before what it may see"
    assert ask(worker, "/tutors/nobody/metrics", STAFF)[0] == 404
    assert ask(worker, "/whoami", STRANGER)[0] == 401
    assert all(worker.get(path) for path in ("/readyz", "/metrics", "/dashboard")), "what is open to all is not counted"
    assert 1 <= int(wait) <= 60 / RATE_PER_MINUTE + 1
    await eventually(lambda: ask(worker, "/whoami", TUTOR)[0] == 200, seconds=10, every=float(wait))
