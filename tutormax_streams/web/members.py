"""The URLs of all workers of a deployment, of whatever roles.

Of the group with the tables Faust's assignor knows every member as of the last rebalance, in its own members. Of the
others Kafka is asked, now and then while somebody wants to know: members hand it their URL when they join.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import faust
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError

from tutormax_streams import kafka
from tutormax_streams.settings import Settings

logger = logging.getLogger(__name__)

FRESH_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 1.5


class Members:
    """`apps` are those of this worker; `monotonic` in seconds."""

    def __init__(
        self, settings: Settings, apps: list[faust.App], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._apps = apps
        self._monotonic = monotonic
        self._elsewhere: dict[str, tuple[float, frozenset[str]]] = {}  # by group: when Kafka said so

    async def urls(self) -> set[str]:
        """Of every worker that is known of, this one included."""
        ours = {app.conf.id for app in self._apps if app.tables}
        others = {self._settings.stream_group, self._settings.sink_group} - ours
        told = await asyncio.gather(*(self._told(group) for group in others))
        return {self._settings.advertised_url, *self._assigned(), *(url for urls in told for url in urls)}

    def _assigned(self) -> Iterable[str]:
        """Members of groups with tables, as of the last rebalance."""
        return (url for app in self._apps if app.tables for url in app.assignor.tables_metadata())

    async def _told(self, group: str) -> frozenset[str]:
        at, urls = self._elsewhere.get(group, (float("-inf"), frozenset()))
        if self._monotonic() - at < FRESH_SECONDS:
            return urls
        try:
            described = await asyncio.wait_for(self._described(group), LONGEST_SECONDS)
        except (KafkaError, kafka.KafkaAway, TimeoutError) as away:
            logger.info("members of group %s cannot be found out: %r", group, away)
            described = None
        if described is not None:  # else what was known goes on
            urls = frozenset(described)
        self._elsewhere[group] = (self._monotonic(), urls)
        return urls

    async def _described(self, group: str) -> list[str] | None:
        async with kafka.admin_client(self._settings) as admin:
            members = await kafka.group_members(admin, group)
        return None if members is None else [url for metadata in members if (url := url_of(metadata))]


def url_of(metadata: bytes) -> str | None:
    """What a member that is one of our workers said when it joined; None of others."""
    try:
        told: Any = json.loads(ConsumerProtocolMemberMetadata.decode(metadata).user_data)
        url = told["url"]
    except (ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) else None
