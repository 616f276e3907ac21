"""A worker that only sinks notices that its clock is wrong, and says so as all others do."""

from __future__ import annotations

import time

import pytest
from pydantic import SecretStr

from tutormax_streams.app import Runtime, create_sink_app
from tutormax_streams.epoch import Epoch
from tutormax_streams.postgres.database import Database
from tutormax_streams.settings import Settings


@pytest.mark.parametrize("shift", [600, -600, 0])
async def test_a_worker_that_only_sinks_compares_its_clock_with_postgresqls(postgres: str, shift: int) -> None:
    settings = Settings(database_url=SecretStr(postgres), store="memory", roles=("sink",))
    epoch = Epoch(1, 4, "empty", "complete", 0)
    runtime = Runtime(settings, epoch, clock=lambda: time.time_ns() // 1000 + shift * 1_000_000)
    app = create_sink_app(runtime)
    assert any("compare_clocks" in task.__qualname__ for task in app._app_tasks), "it is done now and then"
    async with Database(postgres) as database:
        await runtime.compare_clocks(database)
    said = [reason for reason in runtime.health.reasons()["sink"] if "clock" in reason]
    if shift:
        assert said == [f"this worker's clock differs from PostgreSQL's by {shift:.1f} s: synchronise it (NTP)"]
    else:
        assert said == []
    assert abs(runtime.state.answer()["clock_skew_seconds"] - shift) < 1.0
