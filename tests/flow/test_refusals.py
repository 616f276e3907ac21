"""A worker that must not start says why in one sentence, and its exit code says who has to act."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from tests.flow.stories import Deploy
from tutormax_streams import epoch as epochs
from tutormax_streams import kafka, startup, topics
from tutormax_streams.embedded.server import HOST, free_port
from tutormax_streams.epoch import Epoch
from tutormax_streams.refused import CONFIGURATION, KAFKA, POSTGRES, STATE, Refused

REFUSED = [
    pytest.param("TUTORMAX_STORE", "paper", CONFIGURATION, "TUTORMAX_STORE", id="bad setting"),
    pytest.param("KAFKA_PARTITIONS", "many", CONFIGURATION, "KAFKA_PARTITIONS", id="bad number"),
    pytest.param("KAFKA_BOOTSTRAP_SERVERS", "{away}", KAFKA, "KAFKA_BOOTSTRAP_SERVERS", id="Kafka away"),
    pytest.param(
        "TUTORMAX_DATABASE_URL",
        "postgresql://tutormax:secret@{away}/tutormax",
        POSTGRES,
        "TUTORMAX_DATABASE_URL",
        id="PostgreSQL away at the first start",
    ),
]


@pytest.mark.parametrize(("name", "value", "code", "named"), REFUSED)
def test_it_ends_with_a_sentence_and_the_code(deploy: Deploy, name: str, value: str, code: int, named: str):
    ended, words = deploy().refused(**{name: value.format(away=f"{HOST}:{free_port()}")})
    assert ended == code, words
    assert_one_sentence(words)
    assert named in words
    assert "secret" not in words


def test_a_database_without_tables(deploy: Deploy, empty_postgres: str):
    ended, words = deploy(database=empty_postgres).refused()
    assert ended == POSTGRES, words
    assert_one_sentence(words)
    assert "database ensure" in words


def assert_one_sentence(words: str) -> None:
    """One paragraph for a person: neither a traceback nor a log of what was tried."""
    said = [line for line in words.splitlines() if line.strip() and "[info " not in line and "[error " not in line]
    assert "Traceback" not in words
    assert said[0].startswith("tutormax-streams: "), words
    assert len(said) == 1, words


async def test_workers_that_begin_a_deployment_together_all_start(deploy: Deploy):
    """As `docker compose up --scale worker=3` does on its first day."""
    deployment = deploy()
    workers = [deployment.worker() for _ in range(3)]
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.until_ready() for worker in workers))


async def test_topics_can_be_used_as_soon_as_they_are_made(deploy: Deploy, caplog: pytest.LogCaptureFixture):
    """Metadata name leaders before these know it themselves: clients that came then filled the log with refusals."""
    settings = deploy(partitions=24).settings
    with caplog.at_level(logging.WARNING):
        await topics.ensure(settings)
        assert await epochs.read(settings) is None
        ends = await kafka.log_ends(settings, [plan.name for plan in topics.Topics.of(settings).plans(24)])
    assert len(ends) > 24 * 8
    assert "NotLeader" not in caplog.text


async def test_leaders_that_do_not_answer_are_waited_for_in_vain_for_a_while_only(deploy: Deploy):
    settings = deploy().settings
    nowhere = [TopicPartition("there.is.no.such.topic", 0)]
    assert not await kafka.leaders_answer(settings, nowhere, 0.5)


async def test_a_first_start_that_was_interrupted_begins_again(deploy: Deploy):
    """Changelogs were marked, and then the worker died before it could say so."""
    deployment = deploy()
    settings = deployment.settings
    await topics.ensure(settings)
    epoch = Epoch(1, settings.kafka_partitions, "empty", "complete", time.time_ns() // 1000)
    async with deployment.producer() as producer:
        await epochs.mark_topics(settings, producer, epoch)
    assert await startup.prepare(settings)
    assert await startup.prepare(settings) == await epochs.read(settings)


async def test_state_of_no_known_epoch_is_refused(deploy: Deploy):
    """The control topic was lost."""
    deployment = deploy()
    settings = deployment.settings
    await topics.ensure(settings)
    async with deployment.producer() as producer:
        await producer.send_and_wait(deployment.topics.changelogs[0], b"something", key=b"of a key", partition=1)
    with pytest.raises(Refused, match=r"of no known epoch.*rebuild") as refused:
        await startup.prepare(settings)
    assert refused.value.code == STATE


ODD = [
    pytest.param(
        "sessions", {"cleanup.policy": "compact"}, "has cleanup.policy=compact, but needs delete", id="compacted raw"
    ),
    pytest.param("metrics", {"cleanup.policy": "delete"}, "has cleanup.policy=delete, but needs compact", id="metrics"),
    pytest.param(
        "dead-letter", {"max.message.bytes": "1048588"}, "max.message.bytes=1048588, but needs 8388608", id="letters"
    ),
    pytest.param(
        "tutors", {"max.message.bytes": "9000000"}, "max.message.bytes=9000000, but needs 8323072", id="huge raw"
    ),
    pytest.param("facts", {"message.timestamp.type": "CreateTime"}, "=CreateTime, but needs LogAppendTime", id="times"),
]


@pytest.mark.parametrize(("short_name", "configs", "told"), ODD)
async def test_a_topic_under_whose_settings_records_would_be_lost_is_refused(
    deploy: Deploy, short_name: str, configs: dict[str, str], told: str
):
    deployment = deploy()
    settings, name = deployment.settings, deployment.topics.prefix + short_name
    (plan,) = [plan for plan in deployment.topics.plans(settings.kafka_partitions) if plan.name == name]
    async with kafka.admin_client(settings) as admin:
        odd = {**plan.configs, **configs}
        await topics.create(
            admin, settings, [replace(plan, cleanup=odd.pop("cleanup.policy", plan.cleanup), configs=odd)]
        )
    with pytest.raises(Refused) as refused:
        await startup.prepare(settings)
    assert refused.value.code == KAFKA
    assert told in str(refused.value)
    assert f"--alter --topic {name}" in str(refused.value), "and how to mend it"


async def test_a_raw_topic_that_producers_made_may_keep_their_times(deploy: Deploy):
    deployment = deploy()
    settings = deployment.settings
    async with kafka.admin_client(settings) as admin:
        created = {topics.TIMESTAMPS: "CreateTime"}
        await topics.create(admin, settings, [topics.Plan(deployment.topics.raw("tutors"), 2, "delete", created)])
    assert deployment.topics.raw("tutors") not in await topics.ensure(settings)
    assert await topics.check(settings) == []


async def test_fewer_replicas_than_the_setting_asks_for_are_refused(deploy: Deploy):
    settings = deploy().settings
    await topics.ensure(settings)
    with pytest.raises(Refused, match="1 replicas, but KAFKA_REPLICATION_FACTOR is 2") as refused:
        await startup.prepare(settings.model_copy(update={"kafka_replication_factor": 2}))
    assert refused.value.code == KAFKA
