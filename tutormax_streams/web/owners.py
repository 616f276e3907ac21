"""Where a tutor's state is: in this worker, or in which other one. Faust knows who owns a partition; the rest is ours."""

from __future__ import annotations

from typing import Any

import faust
from yarl import URL

from agents.aggregate import Aggregate
from models import metrics
from models.metrics import MetricsUpdated
from models.windows import TutorFacts
from tutormax_streams.batches import Partitioner, Revoked


class NotHere(Exception):
    """This worker cannot answer for the tutor from its own state: not held, or not complete yet."""


class Owners:
    """`unsure` gives reasons why this worker may have lost its partitions without knowing, such as a silent Kafka."""

    def __init__(self, app: faust.App, step: Aggregate, partitions: int, unsure: Any) -> None:
        self._app = app
        self._step = step
        self._partition = Partitioner(partitions)
        self._unsure = unsure

    def current(self, tutor_id: str) -> MetricsUpdated:
        """A tutor's windows as of now. Raises `NotHere`."""
        partition = self._held(tutor_id)
        try:
            return self._step.current(partition, tutor_id)
        except Revoked:
            raise NotHere from None

    def trend(self, tutor_id: str, window: str, instants_us: list[int]) -> list[metrics.WindowMetrics]:
        """The window as it stood at each instant, from the facts as they are known now. Raises `NotHere`."""
        partition = self._held(tutor_id)
        try:
            facts: TutorFacts = self._step.windows.tutor(partition, tutor_id)
        except Revoked:
            raise NotHere from None
        return [facts.windows(t_us, self._step.mode)[window] for t_us in instants_us]

    def _held(self, tutor_id: str) -> int:
        app, partition = self._app, self._partition(tutor_id)
        shard = self._step.shards.get(partition)
        if shard is None or not shard.publishing or app.rebalancing or not app.tables.actives_ready or self._unsure():
            raise NotHere
        return partition

    def urls(self) -> dict[int, str]:
        """The worker that holds each partition of the tables, as of the last rebalance."""
        topic = self._step.windows.table.changelog_name
        return {p: url for url, topics in self._app.assignor.tables_metadata().items() for p in topics.get(topic, ())}

    def url(self, tutor_id: str) -> URL | None:
        """The worker that holds the tutor's state, as of the last rebalance; None if it is this one or unknown."""
        topic = self._step.windows.table.changelog_name
        partition = self._partition(tutor_id)
        for url, topics in self._app.assignor.tables_metadata().items():
            if partition in topics.get(topic, ()):
                found = URL(url)
                return None if found == self._app.conf.canonical_url else found
        return None
