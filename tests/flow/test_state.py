"""State is complete or it says so: starts that are refused, and `rebuild`, after which all rows are right again.

Each story has a deployment and a database of its own. They spend most of their time waiting (for members to leave, for
topics to be deleted), so they run side by side and are judged one by one.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import partial

import msgspec
import psycopg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from psycopg import sql
from typer.testing import CliRunner

from models.metrics import decode
from tests.corpus import corpus
from tests.flow.driver import Deployment
from tests.flow.stories import Deploy, Endings, Story, judge, title, told
from tests.flow.test_refusals import assert_one_sentence
from tests.samples import session_payload, tutor_payload
from tutormax_streams import epoch as epochs
from tutormax_streams import kafka, startup, topics
from tutormax_streams.audit import audit
from tutormax_streams.cli import app as cli
from tutormax_streams.rebuild import Progress, rebuild
from tutormax_streams.refused import KAFKA, POSTGRES, STATE, Refused
from tutormax_streams.topics import RAW

EVENTS = 1_200
HOUR_US = 3_600_000_000
stopped: list[Deployment] = []  # what `another_database` leaves behind: right rows, and no worker
PAGE_ROWS = 100  # so that a rebuild has something to be interrupted in


async def with_history(deploy: Deploy, seed: int) -> Deployment:
    """A deployment that has worked for a while and was stopped."""
    deployment = deploy()
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    await deployment.publish_corpus(corpus(seed, EVENTS, now_us=time.time_ns() // 1000))
    await deployment.assert_right()
    assert await worker.stop() == 0
    return deployment


async def assert_refused(deployment: Deployment, *words: str, code: int = STATE) -> None:
    """A start ends with a sentence that holds `words` and names the way out."""
    with pytest.raises(Refused) as refused:
        await startup.prepare(deployment.settings)
    assert refused.value.code == code
    for word in (*words, "tutormax-streams rebuild"):
        assert word in str(refused.value)


async def assert_an_operator_meets(deployment: Deployment, code: int) -> None:
    """A worker's process ends with this code, and with one sentence that names the way out."""
    ended, words = await asyncio.to_thread(deployment.refused)
    assert ended == code, words
    assert_one_sentence(words)
    assert "tutormax-streams rebuild" in words


async def assert_rebuilt(
    deployment: Deployment, report: Callable[[Progress], None] = lambda progress: None
) -> Progress:
    """`rebuild`, a start, and everything is right: each row, and each record of metrics published on the way."""
    progress = await rebuild(deployment.settings, report)
    assert progress.step == "complete"
    assert not progress.unreadable
    began_us = time.time_ns() // 1000
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    await deployment.assert_right(newer_than_us=began_us)
    assert await worker.stop() == 0
    await assert_nothing_was_published_from_part_of_the_history(deployment, progress.epoch)
    return progress


async def assert_nothing_was_published_from_part_of_the_history(deployment: Deployment, epoch: int) -> None:
    oracle = deployment.oracle()
    records = await deployment.read(deployment.topics.metrics)
    assert records
    for record in records:
        update = decode(record.value)
        assert update.epoch == epoch
        for name, expected in oracle.metrics(update.tutor_id, update.as_of_us).items():
            found = msgspec.structs.asdict(update.windows[name])
            assert {column: found[column] for column in expected} == expected, (update.tutor_id, update.as_of)


async def make_anew(deployment: Deployment, name: str, *, create: bool) -> None:
    settings = deployment.settings
    plans = {plan.name: plan for plan in deployment.topics.plans(settings.kafka_partitions)}
    async with kafka.admin_client(settings) as admin:
        await admin.delete_topics([name])
        while name in await admin.list_topics():  # noqa: ASYNC110 - the broker deletes in its own time
            await asyncio.sleep(0.1)
        if create:
            await topics.create(admin, settings, [plans[name]])


async def commit(deployment: Deployment, place: TopicPartition, offset: int) -> None:
    """As the group of the stream, once nobody belongs to it any more."""
    group = deployment.settings.stream_group
    async with kafka.admin_client(deployment.settings) as admin:
        async with asyncio.timeout(60):
            while await kafka.group_has_members(admin, group):  # noqa: ASYNC110 - until sessions of the stopped time out
                await asyncio.sleep(0.2)
    async with kafka.consumer(deployment.settings, group=group) as client:
        client.assign([place])
        await client.commit({place: offset})


# -- the stories ------------------------------------------------------------------------------------------------------


async def a_deleted_changelog(deploy: Deploy) -> None:
    deployment = await with_history(deploy, 11)
    await make_anew(deployment, deployment.topics.changelogs[0], create=False)
    await assert_refused(deployment, deployment.topics.changelogs[0], "emptied")
    await assert_an_operator_meets(deployment, STATE)
    await assert_rebuilt(deployment)


async def a_changelog_made_anew_while_workers_write(deploy: Deploy) -> None:
    """It is not empty, so a look at its ends tells nothing. Starts are refused, also on a disk that knows what is missing;
    a worker that was there before ends when it takes a partition over."""
    deployment = await with_history(deploy, 16)
    first, second = deployment.worker(), deployment.worker()
    for worker in (first, second):
        worker.start()
        await worker.until_ready()
    changelog = deployment.topics.changelogs[1]
    await make_anew(deployment, changelog, create=True)
    async with kafka.producer(deployment.settings) as producer:
        for partition in range(deployment.settings.kafka_partitions):
            await producer.send_and_wait(changelog, None, key=b"tutor_00001" + bytes(6), partition=partition)
    words = f"topic {changelog} has been made anew while workers wrote to it"
    await assert_refused(deployment, words)
    assert await first.stop() == 0
    assert second.process is not None
    assert await asyncio.to_thread(second.process.wait, 60) == STATE, second.last_words()
    assert words in second.last_reason()
    assert "tutormax-streams rebuild" in second.last_reason()
    deployment.workers.remove(second)  # it was to end
    await assert_rebuilt(deployment)


async def a_disk_that_was_lost(deploy: Deploy) -> None:
    """Nothing is refused: the state comes from the changelogs, and until it has come the worker says so."""
    deployment = await with_history(deploy, 18)
    (worker,) = deployment.workers
    worker.forget()
    worker.start()
    said: dict[str, set[str]] = {"/readyz?role=stream": set(), "/startupz": set()}
    is_ready = False
    while not is_ready:
        assert worker.running, worker.last_words()
        for path, reasons in said.items():
            if (body := await asyncio.to_thread(worker.get, path)) is not None:
                told = json.loads(body)
                is_ready |= path.startswith("/readyz") and told["ready"]
                reasons |= {reason for role in told["roles"].values() for reason in role["reasons"]}
    for path, reasons in said.items():
        assert any(reason.startswith("tables are being recovered: ") for reason in reasons), (path, reasons)
    await deployment.assert_right()
    assert await worker.stop() == 0


async def a_topic_made_anew(deploy: Deploy) -> None:
    deployment = await with_history(deploy, 12)
    place = TopicPartition(deployment.topics.facts, 0)
    _, end = (await kafka.log_ends(deployment.settings, [place.topic]))[place]
    await commit(deployment, place, end + 1000)
    await assert_refused(deployment, f"has committed offset {end + 1000} of {place.topic}-0, which ends at {end}")
    await commit(deployment, place, end)
    assert await startup.prepare(deployment.settings)
    await make_anew(deployment, deployment.topics.facts, create=True)
    await assert_refused(deployment, deployment.topics.facts, "made anew")
    # Kafka forgets the committed offsets of a deleted topic: only the missing first record tells.
    await make_anew(deployment, deployment.topics.enriched, create=False)
    await assert_refused(deployment, deployment.topics.enriched, "made anew")
    await assert_rebuilt(deployment)


async def another_number_of_partitions(deploy: Deploy) -> None:
    deployment = await with_history(deploy, 13)
    deployment.change_partitions(6)
    await assert_refused(deployment, "4 partitions", "KAFKA_PARTITIONS is 6", code=KAFKA)
    await assert_an_operator_meets(deployment, KAFKA)
    await assert_rebuilt(deployment)


async def a_database_with_history_and_a_rebuild_that_was_interrupted(deploy: Deploy) -> None:
    old = await with_history(deploy, 14)
    deployment = deploy(database=old.database)
    deployment.payloads = old.payloads
    await assert_refused(deployment, "holds history", "sessions")

    loaded: list[tuple[str, int]] = []

    def interrupt(progress: Progress) -> None:
        loaded.append((progress.step, progress.loaded_rows))
        if progress.loaded_rows > EVENTS // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rebuild(deployment.settings, interrupt)
    await assert_refused(deployment, "not finished")
    interrupted = await epochs.read(deployment.settings)
    assert interrupted is not None
    assert interrupted.state == "loading"
    progress = await assert_rebuilt(deployment)
    assert progress.epoch == interrupted.number
    assert loaded[-1][1] + progress.loaded_rows < progress.total_rows + 2 * PAGE_ROWS  # it did not begin again


async def rows_of_a_later_epoch_than_kafkas(deploy: Deploy) -> None:
    """Kafka was restored from before a rebuild, or from before the rows."""
    deployment = await with_history(deploy, 15)
    fence = "tutormax_streams.metric_fences SET position = %s WHERE tutor_id = 'tutor_00001'"
    with psycopg.connect(deployment.database, autocommit=True) as connection:
        held = connection.execute(
            "SELECT facts_partition, position FROM tutormax_streams.metric_fences WHERE tutor_id = 'tutor_00001'"
        ).fetchone()
        assert held
        partition, position = held
        connection.execute(f"UPDATE {fence}", [10**9])
        await assert_refused(deployment, f"rows made at position {10**9} of {deployment.topics.facts}-{partition}")
        connection.execute(f"UPDATE {fence}", [position])
        assert await startup.prepare(deployment.settings)
        connection.execute("UPDATE tutormax_streams.metric_fences SET epoch = 7 WHERE tutor_id = 'tutor_00001'")
    await assert_refused(deployment, "epoch 7")
    progress = await assert_rebuilt(deployment)
    assert progress.epoch == 8


async def another_database(deploy: Deploy) -> None:
    """The rows are in the first one. A rebuild would load the state from the empty one: it is no way out."""
    deployment = await with_history(deploy, 17)
    assert await startup.prepare(deployment.settings)
    stopped.append(deployment)
    empty = deploy().settings.database_url
    with pytest.raises(Refused, match="it is another one") as refused:
        await startup.prepare(deployment.settings.model_copy(update={"database_url": empty}))
    assert refused.value.code == POSTGRES
    assert "rebuild" not in str(refused.value)


async def tell_more(deployment: Deployment) -> None:
    """A tutor with a session, all the way to the rows."""
    now_us = time.time_ns() // 1000
    await deployment.tell(
        ("tutors", tutor_payload("tutor_of_today", now_us)),
        ("sessions", session_payload("session_of_today", "tutor_of_today", now_us - HOUR_US, now_us)),
    )
    await deployment.assert_right()


async def a_database_that_was_restored_from_its_backup(deploy: Deploy) -> None:
    """Rows written since the backup are in the raw topics still; those of before are in the backup alone."""
    deployment = await with_history(deploy, 18)
    server, _, name = deployment.database.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:

        def copy(source: str, target: str) -> None:
            names = map(sql.Identifier, (target, source))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

        def drop(database: str) -> None:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))

        copy(name, f"{name}_backup")
        ends = await kafka.log_ends(deployment.settings, [deployment.topics.raw(short) for short in RAW])
        async with kafka.admin_client(deployment.settings) as admin:
            await admin.delete_records({tp: RecordsToDelete(before_offset=end) for tp, (_, end) in ends.items() if end})
        worker = deployment.worker()
        worker.start()
        await worker.until_ready()
        await tell_more(deployment)
        assert await worker.stop() == 0
        drop(name)
        copy(f"{name}_backup", name)
        drop(f"{name}_backup")
    await assert_rebuilt(deployment)


async def public_topics_that_were_deleted(deploy: Deploy) -> None:
    deployment = await with_history(deploy, 20)
    names = deployment.topics
    gone = (names.metrics, names.persisted, names.alerts)
    for name in gone:
        await make_anew(deployment, name, create=False)
    began_us = time.time_ns() // 1000
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    await deployment.assert_right(newer_than_us=began_us)
    published = {decode(record.value).tutor_id for record in await deployment.read(names.metrics)}
    with psycopg.connect(deployment.database) as connection:
        tutors = connection.execute("SELECT DISTINCT tutor_id FROM tutor_performance_metrics").fetchall()
    assert published == {tutor_id for (tutor_id,) in tutors}
    await tell_more(deployment)
    assert "tutor_of_today" in {record.key.decode() for record in await deployment.read(names.persisted)}
    assert await worker.stop() == 0
    async with kafka.admin_client(deployment.settings) as admin:
        assert set(gone) <= set(await admin.list_topics())


STORIES = [
    another_database,
    a_disk_that_was_lost,
    a_deleted_changelog,
    a_changelog_made_anew_while_workers_write,
    a_topic_made_anew,
    another_number_of_partitions,
    a_database_with_history_and_a_rebuild_that_was_interrupted,
    rows_of_a_later_epoch_than_kafkas,
    a_database_that_was_restored_from_its_backup,
    public_topics_that_were_deleted,
]


@pytest.fixture(scope="module")
def endings(deploy: Deploy) -> Endings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tutormax_streams.rebuild.PAGE_ROWS", PAGE_ROWS)
        patch.setattr(startup, "SURELY_FLUSHED", 10)
        return told(STORIES, deploy)


@pytest.mark.parametrize("story", STORIES, ids=title)
def test_what_is_incomplete_is_said_and_in_the_end_all_is_right(endings: Endings, story: Story):
    judge(endings, story)


def test_an_operators_commands_say_what_is_so(endings: Endings, monkeypatch: pytest.MonkeyPatch):
    judge(endings, another_database)
    (deployment,) = stopped
    # Nobody writes, so nothing needs to be waited for.
    monkeypatch.setattr("tutormax_streams.audit.audit", partial(audit, wait_seconds=0.1))

    def tutormax(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, list(arguments), env=deployment.given)
        assert done.exit_code == code, done.output
        return done.stdout

    assert "are as they must be" in tutormax("topics", "check")
    assert "is as it must be" in tutormax("database", "check")
    assert "tutor_00001" in tutormax("topics", "tail", "metrics", "--from-beginning", "--no-follow")
    assert "no differences" in tutormax("audit")
    row = "tutor_performance_metrics SET sessions_completed = sessions_completed {} 1 WHERE tutor_id = 'tutor_00001'"
    with psycopg.connect(deployment.database, autocommit=True) as connection:
        connection.execute(f"UPDATE {row.format('+')} AND \"window\" = 'NINETY_DAY'")
        told = tutormax("audit", code=1)
        assert "sessions_completed" in told
        assert "1 differences" in told
        connection.execute(f"UPDATE {row.format('-')} AND \"window\" = 'NINETY_DAY'")
    assert "no differences" in tutormax("audit")
    assert "epoch 2 holds" in tutormax("rebuild")
    epoch = asyncio.run(epochs.read(deployment.settings))
    assert epoch is not None
    assert (epoch.number, epoch.state) == (2, "complete")
