"""What is taken for standing still, and what explains it: the real consumer over a broker that is played, and its clock."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from tests.batches.rig import A0, Rig, rig
from tutormax_streams import stillness
from tutormax_streams.stillness import REBALANCING, Stillness

PATIENCE = 10.0


class Watched:
    """A consumer with six records in one partition, looked at once a second of a clock of its own."""

    def __init__(self, made: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made = made
        self.now = 0.0
        self.silence = 0.0
        self.explained = False
        made.thread.silence_seconds = lambda: self.silence  # type: ignore[attr-defined]
        self.stillness = Stillness(made.app, PATIENCE, lambda _: self.explained)
        monkeypatch.setattr(stillness, "time", SimpleNamespace(monotonic=lambda: self.now))

    async def look(self, seconds: float) -> str | None:
        """The first verdict within this time, or None."""
        for _ in range(int(seconds)):
            self.now += 1.0
            if (verdict := self.stillness.judge()) is not None:
                return verdict
            for _ in range(5):
                await asyncio.sleep(0)
        return None


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(await rig({A0: range(6)}, batch_records=2), monkeypatch)


async def test_a_batch_that_nobody_finishes_is_found_after_the_patience(watched: Watched):
    await watched.made.deliver()
    assert await watched.look(PATIENCE) is None
    assert "nothing of a has been finished" in str(await watched.look(2))


async def test_a_consumer_whose_thread_has_not_begun_has_nothing_to_be_still_with(watched: Watched):
    def assignment() -> set[TP]:
        raise ConsumerNotStarted

    watched.made.thread.assignment = assignment  # type: ignore[method-assign]
    assert await watched.look(5 * PATIENCE) is None


async def test_as_long_as_something_is_finished_work_goes_on(watched: Watched):
    await watched.made.deliver()
    for _ in range(3):
        assert await watched.look(PATIENCE - 2) is None
        watched.made.done(A0)
        await watched.made.consumer.commit()
    assert await watched.look(5 * PATIENCE) is None


@pytest.mark.parametrize("why", ["explained", "silence"])
async def test_what_is_explained_is_waited_for_and_gets_all_of_the_patience_afterwards(watched: Watched, why: str):
    await watched.made.deliver()
    setattr(watched, why, 60.0)
    assert await watched.look(10 * PATIENCE) is None
    setattr(watched, why, 0.0)
    assert await watched.look(PATIENCE - 1) is None
    assert await watched.look(2) is not None


async def test_a_fetch_that_does_not_come_back_is_not_explained_by_silence(watched: Watched):
    watched.made.consumer.is_fetching = True
    watched.silence = 60.0
    assert "no fetch has come back" in str(await watched.look(PATIENCE + 2))


async def test_time_in_which_nobody_could_look_does_not_count(watched: Watched):
    await watched.made.deliver()
    assert await watched.look(2) is None
    watched.now += 100 * PATIENCE
    assert await watched.look(2) is None


async def test_a_rebalance_has_more_time(watched: Watched):
    await watched.made.deliver()
    watched.made.app.rebalancing = True
    assert await watched.look(REBALANCING * PATIENCE) is None
    assert "rebalancing" in str(await watched.look(2))


async def test_without_patience_nothing_is_found(watched: Watched):
    await watched.made.deliver()
    watched.stillness.patience = 0.0
    assert await watched.look(1000) is None


# -- commits ----------------------------------------------------------------------------------------------------------


async def test_a_commit_that_hangs_is_said_given_up_and_made(watched: Watched):
    made = watched.made
    await made.deliver()
    made.done(A0)
    made.done(A0)
    made.done(A0)
    thread: Any = made.thread
    through = thread.commit
    thread.commit = lambda _: asyncio.get_running_loop().create_future()
    hanging = asyncio.ensure_future(made.consumer.commit())
    assert await watched.look(PATIENCE) is None
    assert watched.stillness.reasons() == []
    thread.commit = through
    assert watched.stillness.judge() is None
    watched.now += 1.0
    assert watched.stillness.judge() is None
    assert watched.stillness.reasons() == ["commits of a-0 have stood still for 10 s"]
    assert not await hanging
    assert await watched.look(5) is None
    assert made.thread.stored == {A0: 6}
    assert watched.stillness.reasons() == []


async def test_a_commit_that_cannot_be_healed_ends_the_worker(watched: Watched):
    await watched.made.deliver()
    for _ in range(3):
        watched.made.done(A0)
    watched.made.thread.refuses_commits = True
    assert await watched.look(2 * PATIENCE) is None
    assert watched.stillness.reasons()
    assert "the commit of a-0 has stood at None" in str(await watched.look(2))
