"""Processes and servers die, freeze and come back, under load: nothing is lost, nothing counts twice, nothing old returns.

The stories are in `stories/`, a file each.
"""

from __future__ import annotations

import pytest

from tests.faults.stories.deaths import workers_are_killed_frozen_and_stopped_under_load_and_then_lose_their_disks
from tests.faults.stories.kafka_away import the_broker_crashes, the_broker_restarts
from tests.faults.stories.postgres_away import postgresql_is_away_for_fifteen_seconds_under_load
from tests.faults.stories.zombie_changelogs import a_zombie_writes_to_changelogs_late_and_the_broker_compacts
from tests.flow.stories import Deploy, Endings, Story, judge, title, told

STORIES = [
    workers_are_killed_frozen_and_stopped_under_load_and_then_lose_their_disks,
    a_zombie_writes_to_changelogs_late_and_the_broker_compacts,
    postgresql_is_away_for_fifteen_seconds_under_load,
    the_broker_crashes,
]


@pytest.fixture(scope="module")
def endings(deploy: Deploy) -> Endings:
    return told(STORIES, deploy)


@pytest.mark.parametrize("story", STORIES, ids=title)
def test_all_is_right_after(endings: Endings, story: Story):
    judge(endings, story)


@pytest.mark.long
async def test_all_is_right_after_the_broker_restarts(deploy: Deploy):
    await the_broker_restarts(deploy)
