"""The embedded servers: they serve, keep their data over a crash, and never outlive the process that started them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tutormax_streams.embedded import (
    ApacheKafka,
    BinariesPostgres,
    EmbeddedError,
    EmbeddedKafka,
    EmbeddedPostgres,
    Stack,
    TansuKafka,
    WheelPostgres,
)
from tutormax_streams.embedded import postgres as postgres_module
from tutormax_streams.embedded.server import Server

pytestmark = pytest.mark.servers
KAFKAS = [ApacheKafka, TansuKafka]
POSTGRESES = [BinariesPostgres, WheelPostgres]
PART = TopicPartition("greetings", 0)

ORPHANING = """
import sys, time
from tutormax_streams import embedded
server = getattr(embedded, sys.argv[1])()
server.start()
print(server.pid, server.log_path.parent, flush=True)
time.sleep(600)
"""


def available(kind: type[Server]) -> Server:
    reason = kind.why_not()
    if reason is not None:
        pytest.skip(reason)
    return kind()


def eventually(check: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.05)
    return check()


def family() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def produced(kafka: EmbeddedKafka, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, enable_idempotence=kafka.idempotent_producers, acks="all"
    )
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(PART.topic, value, partition=PART.partition)
    finally:
        await producer.stop()


async def consumed(kafka: EmbeddedKafka, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([PART])
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def create_topic(kafka: EmbeddedKafka) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(PART.topic, 1, 1)])
    finally:
        await admin.close()


@pytest.mark.parametrize("kind", KAFKAS)
async def test_a_broker_serves_and_leaves_nothing_behind(kind: type[EmbeddedKafka]) -> None:
    before = family()
    kafka = available(kind)
    assert isinstance(kafka, EmbeddedKafka)
    with kafka:
        home = kafka.log_path.parent
        await create_topic(kafka)
        await produced(kafka, [b"one", b"two"])
        assert await consumed(kafka, 2) == [b"one", b"two"]
    assert family() == before
    assert not home.exists()


@pytest.mark.parametrize("kind", POSTGRESES)
def test_a_database_serves_keeps_its_data_over_a_crash_and_leaves_nothing_behind(kind: type[EmbeddedPostgres]) -> None:
    before = family()
    postgres = available(kind)
    assert isinstance(postgres, EmbeddedPostgres)
    with postgres:
        home = postgres.log_path.parent
        with psycopg.connect(postgres.conninfo()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        postgres.kill()
        assert not postgres.running
        postgres.start()
        with psycopg.connect(postgres.conninfo()) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
            assert connection.execute("SHOW timezone").fetchone() == ("UTC",)
    assert family() == before
    assert not home.exists()


@pytest.mark.slow
async def test_apache_kafka_keeps_its_data_and_port_over_a_stop_and_a_crash() -> None:
    kafka = available(ApacheKafka)
    assert isinstance(kafka, EmbeddedKafka)
    with kafka:
        servers = kafka.bootstrap_servers
        await create_topic(kafka)
        await produced(kafka, [b"before the stop"])
        kafka.stop()
        kafka.start()
        await produced(kafka, [b"before the crash"])
        kafka.kill()
        kafka.start()
        assert kafka.bootstrap_servers == servers
        assert await consumed(kafka, 2) == [b"before the stop", b"before the crash"]


@pytest.mark.parametrize("kind", [*KAFKAS, *POSTGRESES])
def test_no_server_outlives_a_parent_that_is_killed(kind: type[Server]) -> None:
    available(kind)
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANING, kind.__name__], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        assert parent.stdout is not None
        pid, home = parent.stdout.readline().split()
        guard = psutil.Process(int(pid)).ppid()
        offspring = [
            psutil.Process(int(pid)),
            psutil.Process(guard),
            *psutil.Process(int(pid)).children(recursive=True),
        ]
    finally:
        parent.kill()
        parent.communicate()
    _, alive = psutil.wait_procs(offspring, timeout=25)
    assert alive == []
    assert eventually(lambda: not Path(home).exists())


def test_no_server_outlives_a_guard_that_is_killed() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child of its parent's death")
    with available(TansuKafka) as kafka:
        assert kafka.pid is not None
        server = psutil.Process(kafka.pid)
        os.kill(server.ppid(), signal.SIGKILL)
        server.wait(10)


def test_a_wheel_that_only_root_may_read_still_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root's servers run as another user")
    available(WheelPostgres)
    installed = postgres_module._wheel()
    assert installed is not None
    for part in (installed.name, f"{installed.name}.libs"):
        shutil.copytree(installed.parent / part, tmp_path / part)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(postgres_module, "_wheel", lambda: tmp_path / installed.name)
    with WheelPostgres() as postgres, psycopg.connect(postgres.conninfo()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_does_not_start_says_why_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = available(TansuKafka)
    monkeypatch.setattr(TansuKafka, "_command", lambda *_: ["/bin/sh", "-c", "echo no luck today; exit 3"])
    with pytest.raises(EmbeddedError, match=r"^Tansu .* ended while starting: no luck today$"):
        kafka.start()
    assert not kafka.running
    kafka.close()


def test_what_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert ApacheKafka.why_not() == "Apache Kafka needs Java 17 or later and Maven on the PATH."


def test_the_environment_goes_before_embedded_servers() -> None:
    stack = Stack(
        environ={"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "p@ss/word"}
    )
    with stack:
        assert stack.kafka is None
        assert stack.postgres is None
        assert stack.environment == {
            "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
            "TUTORMAX_DATABASE_URL": "postgresql://tutormax:p%40ss%2Fword@db:5432/tutormax",
        }
    assert "word" not in stack.description
