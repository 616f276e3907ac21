"""A worker that stands still says where and ends; one that waits for something declared does not.

The faults are real ones in real workers, made by a point in the code that is inert otherwise (`batches.crashpoints`).
"""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaProducer

from tests.corpus import RawRecord, corpus
from tests.faults.proxy import Switchboard
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.flow.stories import Deploy, Endings, Story, judge, title, told
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_payload

PATIENCE_SECONDS = 5.0
EVENTS = 300
STOOD_STILL = 75
MOST_SECONDS = 120.0  # on a machine that does much else


def begun(deploy: Deploy, point: str = "", database: str | None = None, **given: str) -> tuple[Deployment, Worker]:
    """A deployment of little, with a watchdog of little patience, whose worker has begun to start."""
    settings = {"TUTORMAX_WATCHDOG_SECONDS": str(PATIENCE_SECONDS), "TUTORMAX_LOG_FORMAT": "json"}
    deployment = deploy(partitions=2, settings=settings | given)
    worker = deployment.worker(**({"TUTORMAX_DATABASE_URL": database} if database else {}))
    worker.start(**({"TUTORMAX_CRASH_POINT": point} if point else {}))
    return deployment, worker


def logged(worker: Worker) -> list[dict[str, str]]:
    """The log's objects; what libraries print besides is passed over."""
    lines = worker.log.read_text().splitlines()
    return [json.loads(line[line.index("{") :]) for line in lines if '{"event"' in line]


async def assert_it_ends_and_says(deploy: Deploy, point: str, *reasons: str, stack_of: str, line: str) -> None:
    """Wedged at `point`, the worker ends with a reason and the stack that shows it; started anew, all comes right."""
    deployment, worker = begun(deploy, point)
    needs_records = not point.startswith("fetching")
    if needs_records:
        await worker.until_ready()
        await deployment.publish_corpus(corpus(4, EVENTS, now_us=time.time_ns() // 1000))
    code = await asyncio.to_thread(worker.process.wait, MOST_SECONDS)
    log = logged(worker)
    assert code == STOOD_STILL, worker.last_words()
    assert any(all(word in worker.last_reason() for word in ("StoodStill", reason)) for reason in reasons), (
        worker.last_reason()
    )
    stacks = [entry for entry in log if "stack" in entry]
    assert any(entry["event"].startswith(stack_of) and line in entry["stack"] for entry in stacks), stacks
    assert {entry["event"].split()[0] for entry in stacks} == {"thread", "task"}
    if not needs_records:
        await deployment.publish_corpus(corpus(4, EVENTS, now_us=time.time_ns() // 1000))
    worker.start()
    await deployment.assert_right()


async def an_agent_that_awaits_what_never_comes(deploy: Deploy) -> None:
    await assert_it_ends_and_says(
        deploy,
        "hop sent:2:0:stall",
        "nothing of",
        "has been worked on",
        stack_of="task",
        line='await reached("hop sent")',
    )


async def a_step_that_blocks_the_event_loop(deploy: Deploy) -> None:
    await assert_it_ends_and_says(
        deploy,
        "hop sent:1:0:block",
        "the event loop has not turned",
        stack_of="thread MainThread",
        line="time.sleep",
    )


async def a_step_that_is_busy_for_ever(deploy: Deploy) -> None:
    await assert_it_ends_and_says(
        deploy, "hop sent:1:0:spin", "the event loop has not turned", stack_of="thread MainThread", line="while True"
    )


async def a_consumer_thread_that_is_blocked(deploy: Deploy) -> None:
    await assert_it_ends_and_says(
        deploy, "fetching:20:0:block", "the consumer's thread of", stack_of="thread", line="time.sleep"
    )


async def a_fetch_that_never_returns(deploy: Deploy) -> None:
    await assert_it_ends_and_says(
        deploy, "fetching:20:0:stall", "no fetch has come back", stack_of="task", line='await reached("fetching")'
    )


async def a_commit_that_hangs_is_noticed_and_healed(deploy: Deploy) -> None:
    deployment, worker = begun(deploy, "committing:1:0:stall")
    await worker.until_ready()
    await deployment.publish_corpus(corpus(5, EVENTS, now_us=time.time_ns() // 1000))
    await deployment.assert_right()
    await worker.until_ready()
    events = [entry["event"] for entry in logged(worker)]
    assert any("although work is done up to" in event and "asking again" in event for event in events)
    assert any("go on" in event for event in events)
    assert await worker.stop() == 0


async def patience_with_what_is_declared(deploy: Deploy) -> None:
    """Idle; without PostgreSQL, and alive all the same; frozen: each for longer than the watchdog has patience."""
    switchboard = Switchboard()
    deployment = deploy(partitions=2)
    where = urlsplit(deployment.database)
    try:
        door = switchboard.door(where.port or 5432)
        through = where._replace(netloc=f"{where.netloc.rpartition(':')[0]}:{door.port}").geturl()
        deployment, worker = begun(deploy, database=through)
        await worker.until_ready()
        # Everything must be judged by the database that the worker writes to.
        deployment.database = deployment.given["TUTORMAX_DATABASE_URL"] = where.geturl()
        began = worker.process.pid
        await asyncio.sleep(PATIENCE_SECONDS + 2)  # idle
        door.cut()
        now_us = time.time_ns() // 1000
        await deployment.tell(
            ("tutors", tutor_payload("patient", now_us - DAY_US)),
            ("sessions", session_payload("patient-1", "patient", now_us - DAY_US, now_us - DAY_US)),
        )
        await eventually(lambda: "waits for PostgreSQL" in str(worker.health()))
        waited_since = time.monotonic()
        while time.monotonic() - waited_since < 2 * PATIENCE_SECONDS + 2:
            assert worker.get("/livez") == b'{"alive":true}'
            assert worker.running, worker.last_words()
            await asyncio.sleep(0.5)
        assert "waits for PostgreSQL" in str(worker.health())
        worker.freeze()
        await asyncio.sleep(PATIENCE_SECONDS + 2)
        worker.thaw()
        door.mend()
        await deployment.assert_right()
        assert worker.process.pid == began
        assert await worker.stop() == 0
        assert not [entry for entry in logged(worker) if "standing still" in entry["event"]]
    finally:
        switchboard.close()


async def patience_with_an_open_breaker(deploy: Deploy) -> None:
    """It leaves a topic alone for longer than the watchdog has patience with anything, and records of it wait."""
    window, cooldown = 50, 4 * PATIENCE_SECONDS
    deployment, worker = begun(
        deploy, TUTORMAX_BREAKER_WINDOW=str(window), TUTORMAX_BREAKER_COOLDOWN_SECONDS=str(cooldown)
    )
    await worker.until_ready()
    rubbish = [RawRecord("sessions", b"rubbish") for _ in range(4 * window)]
    await deployment.publish(rubbish[window:], poison=[b"rubbish"])
    await eventually(lambda: "breaker of topic sessions is open" in str(worker.health()))
    opened = time.monotonic()
    await deployment.publish(rubbish[:window], poison=[b"rubbish"])
    while time.monotonic() - opened < 2 * PATIENCE_SECONDS + 4:
        assert worker.running, worker.last_words()
        await asyncio.sleep(0.5)
    assert "breaker of topic sessions is open" in str(worker.health())
    assert worker.metric("lag_records", topic=deployment.topics.raw("sessions")) >= window
    assert await worker.stop() == 0
    assert not [entry for entry in logged(worker) if "standing still" in entry["event"]]


async def a_producer_that_writes_in_transactions_and_falls_silent(deploy: Deploy) -> None:
    """The end of its log is a marker that nobody is ever given: neither lag nor standing still."""
    deployment, worker = begun(deploy)
    await worker.until_ready()
    topic = deployment.topics.raw("sessions")
    now_us = time.time_ns() // 1000
    session = json.dumps(session_payload("in-transaction", "t", now_us - DAY_US, now_us - DAY_US)).encode()
    producer = AIOKafkaProducer(bootstrap_servers=deployment.settings.kafka_bootstrap_servers, transactional_id="t")
    async with producer, producer.transaction():
        for partition in range(deployment.settings.kafka_partitions):
            await producer.send(topic, session, partition=partition)
    await eventually(lambda: worker.metric("lag_records", topic=topic) == 2)
    await eventually(lambda: worker.metric("lag_records", topic=topic) == 0)
    assert worker.metric("lag_seconds", topic=topic) == 0
    await asyncio.sleep(PATIENCE_SECONDS + 2)
    assert worker.metric("lag_records") == 0
    assert await worker.stop() == 0


STORIES = [
    an_agent_that_awaits_what_never_comes,
    a_step_that_blocks_the_event_loop,
    a_step_that_is_busy_for_ever,
    a_consumer_thread_that_is_blocked,
    a_fetch_that_never_returns,
    a_commit_that_hangs_is_noticed_and_healed,
    patience_with_what_is_declared,
    patience_with_an_open_breaker,
    a_producer_that_writes_in_transactions_and_falls_silent,
]


@pytest.fixture(scope="module")
def endings(deploy: Deploy) -> Endings:
    return told(STORIES, deploy)


@pytest.mark.parametrize("story", STORIES, ids=title)
def test_(story: Story, endings: Endings):
    judge(endings, story)
