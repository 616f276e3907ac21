"""Lookups that this worker cannot answer from its own tables: what the owner or the committed rows come to."""

from __future__ import annotations

import json
from typing import Any, ClassVar, cast

import pytest
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from agents.ports import SinkUnavailable
from tutormax_streams.postgres.stored_figures import StoredFigures, StoredTutor
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web import answers
from tutormax_streams.web.access import User
from tutormax_streams.web.guard import USER
from tutormax_streams.web.lookups import Lookups
from tutormax_streams.web.owners import NotHere, Owners

NOW_US = 1_764_504_000_000_000


class Elsewhere:
    """The owner is a worker where nobody listens."""

    def current(self, tutor_id: str) -> Any:
        raise NotHere

    def url(self, tutor_id: str) -> URL:
        return URL("http://127.0.0.1:1")


class Stored:
    row: ClassVar[StoredTutor | None] = None

    async def tutors(self, tutor_ids: list[str]) -> dict[str, StoredTutor]:
        if self.row is None:
            raise SinkUnavailable("no route")
        return {self.row.tutor_id: self.row}


class Staff:
    def may_read(self, tutor_id: str) -> bool:
        return True


def lookups() -> Lookups:
    return Lookups(cast(Owners, Elsewhere()), cast(StoredFigures, Stored()), lambda _: "", lambda: NOW_US, Telemetry())


async def asked(answering: Lookups, query: str = "") -> tuple[int, dict[str, Any]]:
    request = make_mocked_request("GET", f"/tutors/t1/metrics{query}")
    request[USER] = cast(User, Staff())
    answer = await answering.metrics(request, "t1")
    return answer.status, json.loads(cast(bytes, answer.body))


async def test_a_worker_that_stops_asks_the_owner_no_more():
    """Its web server outlives its client by a few requests: those are told to come back, as for an owner that is away."""
    answering = lookups()
    for _ in range(2):
        status, body = await asked(answering)
        assert (status, body["error"]) == (503, "neither the owner of this tutor's state nor PostgreSQL answers")
        await answering.close()


@pytest.mark.parametrize(("window", "status"), [("7day", 200), ("30day", 503), ("90day", 503)])
async def test_max_age_judges_the_window_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, window: str, status: int):
    """The platform's own jobs may have written a newer row of one window; of the last there is none."""
    row, old_us, new_us = dict.fromkeys(answers.DECIMALS, 0), NOW_US - 60_000_000, NOW_US - 2_000_000
    instants = {"7day": new_us, "30day": old_us}
    monkeypatch.setattr(
        Stored, "row", StoredTutor("t1", "Ada", "active", old_us, dict.fromkeys(instants, row), instants)
    )
    answering = lookups()
    assert (await asked(answering, f"?window={window}&max_age=5"))[0] == status
    assert (await asked(answering, f"?window={window}"))[0] == (503 if window == "90day" else 200)
    await answering.close()
