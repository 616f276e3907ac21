"""Somebody writes into topics that are not theirs, and a session is named with more tutors than anybody has: on real
servers no worker stops, and work goes on around it."""

from __future__ import annotations

import asyncio
import time

import pytest

from models.homes import MOST_TUTORS
from models.layouts import LATER
from tests.flow import judge
from tests.flow.driver import eventually
from tests.flow.stories import Deploy
from tests.samples import bare, session_payload, tutor_payload
from tutormax_streams.refused import CONFIGURATION

RUBBISH = b'{"who": "somebody else"}'
MORE = 20


@pytest.mark.slow
async def test_workers_live_with_what_is_not_theirs(deploy: Deploy):
    deployment = deploy()
    topics, now_us = deployment.topics, time.time_ns() // 1000
    worker = deployment.worker()
    worker.start()
    await worker.until_ready()
    async with deployment.producer() as producer:
        await producer.send_and_wait(topics.raw("tutors"), bare(tutor_payload("t00000", now_us)))
        for number in range(MOST_TUTORS + MORE):
            session = session_payload("s1", f"t{number:05d}", now_us, now_us - 1_000_000 + number)
            await producer.send(topics.raw("sessions"), bare(session), partition=0)
        for topic in (topics.validated, topics.enriched, topics.facts, topics.metrics, *topics.changelogs):
            for partition in range(4):
                await producer.send(topic, RUBBISH, key=b"somebody else's", partition=partition)
        await producer.flush()
    await eventually(lambda: worker.metric("dead_letters") == MORE + 4 * 4)
    assert await worker.stop() == 0

    # What lies in the changelogs is met when tables are recovered, and the end of `metrics` at each assignment.
    async with deployment.producer() as producer:
        for partition in range(4):
            await producer.send_and_wait(topics.metrics, RUBBISH, key=b"somebody else's", partition=partition)
    again = deployment.worker(TUTORMAX_STORE="memory")
    again.start()
    await again.until_ready()
    assert again.metric("foreign_records") == 2 * 4
    async with deployment.producer() as producer:
        await producer.send_and_wait(topics.raw("sessions"), bare(session_payload("s2", "t00000", now_us, now_us)))
    await eventually(lambda: judge.rows(deployment.database, "SELECT FROM sessions WHERE session_id = 's2'"))
    assert await again.stop() == 0

    # A later release is nobody else: without what it knows, no worker may go on.
    async with deployment.producer() as producer:
        await producer.send_and_wait(topics.changelogs[0], LATER + b"\x02...", key=b"ss3writer", partition=0)
    code, words = await asyncio.to_thread(deployment.refused)
    assert code == CONFIGURATION, words
    assert "a value of a table has version 2" in words.splitlines()[-1]
    assert "run `tutormax-streams rebuild`" in words.splitlines()[-1]
