"""The topics: their names (storage: a rename is a migration), and creating or checking them before a worker starts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from models.parsing import LARGEST_VALUE_BYTES
from tables import entities, tutor_windows
from tutormax_streams.kafka import admin_client, leaders_answer
from tutormax_streams.settings import Settings

DAY_MS = 86_400_000
RAW = ("tutors", "sessions", "feedback", "tutor-events")
LARGEST_BYTES = 8 << 20  # of records of our own topics, dead letters too
LARGEST, TIMESTAMPS = "max.message.bytes", "message.timestamp.type"
CREATION_SECONDS = 60.0


class TopicsWrong(Exception):
    """Existing topics are not as they must be. Holds a sentence for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Plan:
    """What a topic must be. `partitions` None: any number, created with the deployment's."""

    name: str
    partitions: int | None
    cleanup: str  # "delete" or "compact"
    configs: Mapping[str, str] = field(default_factory=dict)
    more_is_fine: bool = False

    def fits(self, partitions: int) -> bool:
        if self.partitions is None:
            return True
        return partitions >= self.partitions if self.more_is_fine else partitions == self.partitions


@dataclass(frozen=True, slots=True)
class Topics:
    """Full names, from the prefix and the app id."""

    prefix: str
    stream_group: str

    @classmethod
    def of(cls, settings: Settings) -> Topics:
        return cls(settings.kafka_topic_prefix, settings.stream_group)

    def raw(self, short_name: str) -> str:
        return self.prefix + short_name

    @property
    def validated(self) -> str:
        return self.prefix + "validated"

    @property
    def enriched(self) -> str:
        return self.prefix + "enriched"

    @property
    def facts(self) -> str:
        return self.prefix + "facts"

    @property
    def metrics(self) -> str:
        return self.prefix + "metrics"

    @property
    def persisted(self) -> str:
        return self.prefix + "persisted"

    @property
    def alerts(self) -> str:
        return self.prefix + "alerts"

    @property
    def dead_letter(self) -> str:
        return self.prefix + "dead-letter"

    @property
    def control(self) -> str:
        return self.prefix + "control"

    @property
    def changelogs(self) -> tuple[str, str]:
        """Faust's names for the changelogs of the tables."""
        return (
            f"{self.stream_group}-{entities.NAME}-changelog",
            f"{self.stream_group}-{tutor_windows.NAME}-changelog",
        )

    @property
    def rebuilt(self) -> tuple[str, ...]:
        """Topics that hold an epoch's state and are made anew by `rebuild`."""
        return (self.validated, self.enriched, self.facts, self.metrics, *self.changelogs)

    @property
    def marked(self) -> tuple[str, ...]:
        """Those of `rebuilt` whose every partition begins with a mark. `metrics` is public, and published again anyway."""
        return (self.validated, self.enriched, self.facts, *self.changelogs)

    def plans(self, partitions: int) -> list[Plan]:
        """Every topic of the deployment."""
        week, month = {"retention.ms": str(7 * DAY_MS)}, {"retention.ms": str(30 * DAY_MS)}
        large = {LARGEST: str(LARGEST_BYTES)}
        append_time = {TIMESTAMPS: "LogAppendTime"}
        compacted = {
            "segment.bytes": str(64 << 20),
            "segment.ms": str(DAY_MS // 4),
            "min.cleanable.dirty.ratio": "0.1",
            "delete.retention.ms": str(DAY_MS),
        }
        return [
            *(Plan(self.raw(name), None, "delete", week | append_time) for name in RAW),
            Plan(self.validated, partitions, "delete", week | large | append_time),
            Plan(self.enriched, partitions, "delete", week | large | append_time),
            Plan(self.facts, partitions, "delete", week | large | append_time),
            Plan(self.metrics, partitions, "compact", compacted | append_time),
            Plan(self.persisted, partitions, "delete", week, more_is_fine=True),
            Plan(self.alerts, partitions, "delete", month, more_is_fine=True),
            Plan(self.dead_letter, partitions, "delete", month | large, more_is_fine=True),
            Plan(self.control, 1, "compact", compacted),
            *(Plan(name, partitions, "compact", compacted | large) for name in self.changelogs),
        ]


async def ensure(settings: Settings) -> list[str]:
    """Create what is missing and check the rest: names of the topics created. Raises `TopicsWrong`, `KafkaAway`."""
    async with admin_client(settings) as admin:
        plans = Topics.of(settings).plans(settings.kafka_partitions)
        existing = set(await admin.list_topics())
        missing = [plan for plan in plans if plan.name not in existing]
        await create(admin, settings, missing)
        faults = await _faults(admin, settings, [plan for plan in plans if plan.name in existing])
        if faults:
            raise TopicsWrong(faults)
        return [plan.name for plan in missing]


async def check(settings: Settings) -> list[str]:
    """A sentence for each topic that is missing or not as it must be. Raises `KafkaAway`."""
    async with admin_client(settings) as admin:
        plans = Topics.of(settings).plans(settings.kafka_partitions)
        existing = set(await admin.list_topics())
        missing = [
            f"topic {plan.name} is missing: run `tutormax-streams topics ensure`"
            for plan in plans
            if plan.name not in existing
        ]
        return missing + await _faults(admin, settings, [plan for plan in plans if plan.name in existing])


async def create(admin: AIOKafkaAdminClient, settings: Settings, plans: list[Plan]) -> None:
    """Create topics and wait until their partitions can be read and written. A topic that exists by now is left alone."""
    if not plans:
        return
    wanted = [
        NewTopic(
            plan.name,
            plan.partitions or settings.kafka_partitions,
            settings.kafka_replication_factor,
            topic_configs={"cleanup.policy": plan.cleanup, **plan.configs},
        )
        for plan in plans
    ]
    response = await admin.create_topics(wanted)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            reason = message[0] if message and message[0] else error.description
            raise TopicsWrong([f"topic {name} cannot be created: {reason}"])
    deadline = asyncio.get_running_loop().time() + CREATION_SECONDS
    names = [plan.name for plan in plans]
    while True:
        # A fresh topic can show no partitions for a moment; Faust would crash on that and lose an event.
        found = await admin.describe_topics(names)
        ready = {t["topic"] for t in found if not t["error_code"] and t["partitions"] and _led(t)}
        if ready.issuperset(names):
            break
        if asyncio.get_running_loop().time() > deadline:
            raise TopicsWrong([f"topic {name} was created but shows no leader" for name in set(names) - ready])
        await asyncio.sleep(0.1)
    partitions = [TopicPartition(t["topic"], p["partition"]) for t in found for p in t["partitions"]]
    if not await leaders_answer(settings, partitions, CREATION_SECONDS):
        raise TopicsWrong(
            [f"topics {', '.join(names)} were created, but their leaders did not answer in {CREATION_SECONDS:.0f} s"]
        )


async def widen(admin: AIOKafkaAdminClient, plans: list[Plan]) -> None:
    """Add partitions to existing topics that have too few."""
    described = await admin.describe_topics([plan.name for plan in plans])
    counts = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
    more = {
        plan.name: NewPartitions(plan.partitions)
        for plan in plans
        if plan.partitions is not None and 0 < counts.get(plan.name, 0) < plan.partitions
    }
    if more:
        await admin.create_partitions(more)


def _led(topic: Mapping[str, Any]) -> bool:
    return all(not p["error_code"] and p["leader"] >= 0 for p in topic["partitions"])


async def _faults(admin: AIOKafkaAdminClient, settings: Settings, plans: list[Plan]) -> list[str]:
    if not plans:
        return []
    described = {t["topic"]: t for t in await admin.describe_topics([plan.name for plan in plans])}
    configs = await _configs(admin, [plan.name for plan in plans])
    faults: list[str] = []
    counts = {plan.name: len(described[plan.name]["partitions"]) for plan in plans}
    odd = [plan.name for plan in plans if not plan.fits(counts[plan.name])]
    if odd:
        others = f" (and {len(odd) - 1} more topics)" if len(odd) > 1 else ""
        faults.append(
            f"topic {odd[0]}{others} has {counts[odd[0]]} partitions, but KAFKA_PARTITIONS is "
            f"{settings.kafka_partitions}: set it to {counts[odd[0]]}, or stop all workers and run "
            "`tutormax-streams rebuild`"
        )
    for plan in plans:
        partitions = described[plan.name]["partitions"]
        replicas = min((len(p["replicas"]) for p in partitions), default=0)
        if replicas < settings.kafka_replication_factor:
            faults.append(
                f"topic {plan.name} has {replicas} replicas, but KAFKA_REPLICATION_FACTOR is "
                f"{settings.kafka_replication_factor}: lower it, or reassign the topic's replicas"
            )
        faults += _odd_configs(plan, configs.get(plan.name, {}))
    return faults


def _odd_configs(plan: Plan, found: Mapping[str, str]) -> list[str]:
    """A sentence for each setting of a topic, as far as the broker tells it, under which we would lose records."""
    exactly = {"cleanup.policy": plan.cleanup}
    # A raw topic that somebody else made may keep the times of its producers, who may well set them right.
    if plan.partitions is not None and TIMESTAMPS in plan.configs:
        exactly[TIMESTAMPS] = plan.configs[TIMESTAMPS]
    odd = [(name, needed) for name, needed in exactly.items() if found.get(name, needed) != needed]
    least = int(plan.configs.get(LARGEST, 0))
    if int(found.get(LARGEST, least)) < least:
        odd.append((LARGEST, str(least)))
    if plan.partitions is None and int(found.get(LARGEST, 0)) > LARGEST_VALUE_BYTES:  # its dead letter would not fit
        odd.append((LARGEST, str(LARGEST_VALUE_BYTES)))
    return [
        f"topic {plan.name} has {name}={found[name]}, but needs {needed}: "
        f"kafka-configs.sh --alter --topic {plan.name} --add-config {name}={needed}"
        for name, needed in odd
    ]


async def _configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for resource in response.resources:
            code, _, _, name, entries = resource[:5]
            if not code:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found
