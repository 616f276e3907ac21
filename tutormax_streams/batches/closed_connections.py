"""A connection to Kafka that has just broken is an error of Kafka's under uvloop too."""

from __future__ import annotations

from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError, KafkaError


class Connection(conn.AIOKafkaConnection):  # type: ignore[misc] # aiokafka has no types
    """Between the moment that a transport closes and the moment that aiokafka's reader learns of it, asyncio throws
    what is written away; uvloop raises `RuntimeError`, which nothing in aiokafka expects: it ended the worker.
    """

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """As in aiokafka. Raises `KafkaConnectionError`, which its callers answer by connecting again."""
        try:
            return super().send(request, expect_response)
        except KafkaError:  # a `RuntimeError` as well
            raise
        except RuntimeError as exc:
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {exc}") from exc


def expect_closed_connections() -> None:
    """Every connection that aiokafka makes from now on is one of ours."""
    conn.AIOKafkaConnection = Connection
