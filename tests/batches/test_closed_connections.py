"""What aiokafka's callers are told when they write to a connection that has closed a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from aiokafka import conn
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.admin import ApiVersionRequest

from tutormax_streams.batches import expect_closed_connections


def with_closed_transport(then: Callable[[conn.AIOKafkaConnection], Awaitable[None]]) -> None:
    """`then` has a connection whose transport closed in the same turn of uvloop."""

    async def talk() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        connection = conn.AIOKafkaConnection(host, port)
        await connection.connect()
        connection._writer.transport.abort()
        await asyncio.sleep(0)  # the transport closes, and aiokafka's reader has not yet had its turn
        try:
            await then(connection)
        finally:
            connection.close()
            server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())


@pytest.fixture(autouse=True)
def server_is_none_of_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(connection: conn.AIOKafkaConnection) -> None: ...

    monkeypatch.setattr(conn.AIOKafkaConnection, "_do_version_lookup", nothing)


@pytest.fixture
def connections_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conn, "AIOKafkaConnection", conn.AIOKafkaConnection)  # put back afterwards
    expect_closed_connections()


def test_a_closed_transport_is_an_error_of_kafka(connections_are_ours: None):
    async def send(connection: conn.AIOKafkaConnection) -> None:
        with pytest.raises(KafkaConnectionError, match="broken"):
            await connection.send(ApiVersionRequest())
        assert not connection.connected()

    with_closed_transport(send)


def test_without_us_it_is_none():
    """When this fails, aiokafka or uvloop has mended it, and ours can go."""

    async def send(connection: conn.AIOKafkaConnection) -> None:
        with pytest.raises(RuntimeError, match="the handler is closed") as raised:
            await connection.send(ApiVersionRequest())
        assert not isinstance(raised.value, KafkaError)  # which is a `RuntimeError` as well

    with_closed_transport(send)
