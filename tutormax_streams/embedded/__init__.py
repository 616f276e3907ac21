"""Servers for demos and tests: a Kafka broker and a PostgreSQL that start in seconds and never outlive their parent.

    with EmbeddedKafka.pick("apache") as kafka, EmbeddedPostgres.pick("binaries") as postgres:
        print(kafka.bootstrap_servers, postgres.conninfo())

Nothing here is for production. Every failure to start is an `EmbeddedError` of one sentence.
"""

from __future__ import annotations

from tutormax_streams.embedded.kafka import ApacheKafka, EmbeddedKafka, TansuKafka
from tutormax_streams.embedded.postgres import BinariesPostgres, EmbeddedPostgres, WheelPostgres
from tutormax_streams.embedded.server import EmbeddedError
from tutormax_streams.embedded.stack import Stack, database_url
from tutormax_streams.embedded.worker import EmbeddedWorker

__all__ = [
    "ApacheKafka",
    "BinariesPostgres",
    "EmbeddedError",
    "EmbeddedKafka",
    "EmbeddedPostgres",
    "EmbeddedWorker",
    "Stack",
    "TansuKafka",
    "WheelPostgres",
    "database_url",
]
