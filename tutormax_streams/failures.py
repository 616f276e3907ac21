"""Failures that an operator can mend: what is said of them, and the exit code. Everything else is a bug."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1


def told(error: BaseException) -> tuple[str, int] | None:
    """(sentence, exit code) of what is not a bug."""
    from aiokafka.errors import KafkaError

    from agents.ports import SinkUnavailable
    from tutormax_streams.dead_letters import NotReplayable
    from tutormax_streams.embedded import EmbeddedError
    from tutormax_streams.kafka import KafkaAway
    from tutormax_streams.refused import KAFKA, POSTGRES, Refused
    from tutormax_streams.scans import NoSuchTopic
    from tutormax_streams.topics import TopicsWrong

    match error:
        case Refused():
            return str(error), error.code
        case KafkaAway() | TopicsWrong() | NoSuchTopic():
            return str(error), KAFKA
        case KafkaError():
            return f"Kafka failed: {error}", KAFKA
        case SinkUnavailable():
            return f"PostgreSQL cannot be used: {error}. Check TUTORMAX_DATABASE_URL or POSTGRES_*", POSTGRES
        case EmbeddedError() | NotReplayable():
            return str(error), FAILED
    return None
