"""Churn beside a tutor's figures: what is stored of it, and figures all the same while PostgreSQL is away."""

from __future__ import annotations

import json
from typing import Any, ClassVar, cast

import pytest
from aiohttp.test_utils import make_mocked_request

from agents.ports import SinkUnavailable
from models.metrics import metrics_updated
from models.windows import TutorFacts
from tutormax_streams.postgres.stored_figures import Prediction, StoredFigures
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.web.access import User
from tutormax_streams.web.guard import USER
from tutormax_streams.web.lookups import Lookups
from tutormax_streams.web.owners import Owners

NOW_US = 1_764_504_000_000_000
UPDATE = metrics_updated(
    "t1", TutorFacts("t1").windows(NOW_US, "normalized"), as_of_us=NOW_US, epoch=1, position=5, tutor_name="Ada",
    tutor_status="active",
)  # fmt: skip


class Owner:
    def current(self, tutor_id: str) -> Any:
        return UPDATE


class Stored:
    said: ClassVar[Prediction | Exception | None] = None

    async def prediction(self, tutor_id: str) -> Prediction | None:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


class Staff:
    def may_read(self, tutor_id: str) -> bool:
        return True


async def performance(said: Prediction | Exception | None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(Stored, "said", said)
    request = make_mocked_request("GET", "/tutors/t1/performance")
    request[USER] = cast(User, Staff())
    lookups = Lookups(cast(Owners, Owner()), cast(StoredFigures, Stored()), lambda _: "", lambda: NOW_US, Telemetry())
    answer = await lookups.performance(request, "t1")
    assert (answer.status, answer.body is not None) == (200, True)
    body: dict[str, Any] = json.loads(cast(bytes, answer.body))
    assert body["windows"]["7day"]["no_show_count"] == 0
    return body


async def test_a_prediction_is_told_under_the_platforms_names(monkeypatch: pytest.MonkeyPatch):
    stored = Prediction(62, "HIGH", NOW_US, "1.0", {"f": 1}, {"1day": None, "7day": 0.1, "30day": 0.62, "90day": None})
    churn = (await performance(stored, monkeypatch))["churn"]
    assert (churn["churn_score"], churn["risk_level"], churn["window_30day_probability"]) == (62, "HIGH", 0.62)
    assert churn["contributing_factors"] == {"f": 1}


async def test_nobody_has_predicted_anything(monkeypatch: pytest.MonkeyPatch):
    body = await performance(None, monkeypatch)
    assert body["churn"] is None
    assert "churn_message" not in body


async def test_figures_are_answered_while_postgresql_is_away(monkeypatch: pytest.MonkeyPatch):
    body = await performance(SinkUnavailable("no route"), monkeypatch)
    assert body["churn"] is None
    assert "PostgreSQL does not answer" in body["churn_message"]
    assert "no route" not in body["churn_message"], "what it says is for the log"
