"""What is checked before a worker starts: state is complete, or the worker says what is wrong and how to mend it."""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable

from aiokafka import TopicPartition
from psycopg.sql import SQL, Identifier

from tutormax_streams import epoch as epochs
from tutormax_streams import kafka, topics
from tutormax_streams.batches import ChangelogMadeAnew, pins
from tutormax_streams.epoch import Epoch
from tutormax_streams.postgres import schema
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.errors import SinkUnavailable
from tutormax_streams.refused import CONFIGURATION, KAFKA, POSTGRES, STATE, Refused
from tutormax_streams.settings import Settings
from tutormax_streams.topics import RAW, Topics

__all__ = ["CONFIGURATION", "KAFKA", "POSTGRES", "STATE", "Refused", "check_machine", "prepare"]

logger = logging.getLogger(__name__)

HISTORY_TABLES = ("tutors", "sessions", "student_feedback", "tutor_events")
SURELY_FLUSHED = 100  # records of metrics: so many are never all refused, or a stranger's
REBUILD = "stop all workers, run `tutormax-streams rebuild`, and start them again"


def check_machine(settings: Settings) -> None:
    """What this worker needs of the machine that it runs on. Raises `Refused`."""
    if settings.store == "rocksdb":
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=settings.data_dir):
                pass
        except OSError as exc:
            raise Refused(
                f"the data directory {settings.data_dir} cannot be written ({exc.strerror}): set TUTORMAX_DATA_DIR to "
                "one of this worker's own",
                CONFIGURATION,
            ) from exc
    _check_port(settings.web_host, settings.web_port, "lookups, health and metrics", "TUTORMAX_WEB_PORT")
    if settings.health_port is not None:
        _check_port(settings.web_host, settings.health_port, "health and metrics", "TUTORMAX_HEALTH_PORT")


def _check_port(host: str, port: int, what: str, variable: str) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise Refused(
            f"{what} cannot be served on {host}:{port} ({exc.strerror}): set TUTORMAX_WEB_HOST and {variable} to an "
            "address of this machine and a port of this worker's own",
            CONFIGURATION,
        ) from exc


async def prepare(settings: Settings) -> Epoch:
    """Create what may be created, check everything else: the epoch to work in. Raises `Refused`."""
    if faults := pins.mismatches():
        raise Refused("; ".join(faults), CONFIGURATION)
    try:
        created = await topics.ensure(settings)
        if created:
            logger.info("created topics %s", ", ".join(created))
        epoch = await epochs.read(settings)
        if epoch is None:
            try:
                return await _begin(settings)
            except Refused:
                # Another worker may have begun a moment ago, and what stands in the way is its work.
                epoch = await epochs.read(settings)
                if epoch is None:
                    raise
        if epoch.state != "complete":
            raise Refused(f"a rebuild was begun and not finished: {REBUILD}", STATE)
        await _check_kafka_state(settings, epoch)
        await _check_database(settings, epoch)
    except (kafka.KafkaAway, topics.TopicsWrong) as exc:
        raise Refused(str(exc), KAFKA) from exc
    else:
        return epoch


async def _begin(settings: Settings) -> Epoch:
    """First start of a deployment: nothing must have happened without us."""
    try:
        async with Database(settings.conninfo, size=1) as database:
            problems = await database.run(schema.check)
            if problems:
                raise Refused(f"PostgreSQL is not ready. {' '.join(problems)}", POSTGRES)
            held = await database.run(_tables_with_rows)
            last_epoch = await database.run(_last_epoch)
    except SinkUnavailable as exc:
        raise Refused(
            f"PostgreSQL cannot be reached, and a first start needs it to see whether it holds history: {exc}. "
            "Check TUTORMAX_DATABASE_URL or POSTGRES_*",
            POSTGRES,
        ) from exc
    if held:
        raise Refused(
            f"PostgreSQL holds history that never went through this deployment (rows in {', '.join(held)}): {REBUILD}",
            STATE,
        )
    ends = await kafka.log_ends(settings, Topics.of(settings).rebuilt)
    used = sorted({tp.topic for tp, (_, end) in ends.items() if end} - await epochs.only_marked(settings))
    if used:
        raise Refused(f"topics {', '.join(used)} hold records, but of no known epoch: {REBUILD}", STATE)
    epoch = Epoch(last_epoch + 1, settings.kafka_partitions, "empty", "complete", time.time_ns() // 1000)
    async with kafka.producer(settings) as producer:
        await epochs.mark_topics(settings, producer, epoch)
        await epochs.write(settings, producer, epoch)
    logger.info("began epoch %s with empty state", epoch.number)
    return epoch


async def _tables_with_rows(connection: Connection) -> list[str]:
    held = []
    for table in HISTORY_TABLES:
        cursor = await connection.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(Identifier(table)))
        row = await cursor.fetchone()
        if row and row[0]:
            held.append(table)
    return held


async def _last_epoch(connection: Connection) -> int:
    cursor = await connection.execute("SELECT coalesce(max(epoch), 0) FROM tutormax_streams.metric_fences")
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _check_kafka_state(settings: Settings, epoch: Epoch) -> None:
    """Changelogs are the ones we began with, and no committed offset lies beyond its log."""
    if epoch.partitions != settings.kafka_partitions:
        raise Refused(
            f"the state was begun with {epoch.partitions} partitions, KAFKA_PARTITIONS is {settings.kafka_partitions}: "
            f"set it back, or {REBUILD}",
            STATE,
        )
    names = Topics.of(settings)
    raw = [names.raw(name) for name in RAW]
    # Before the ends: others work on, and what they commit meanwhile lies beyond ends that were asked for before.
    groups = (settings.stream_group, settings.sink_group)
    committed = {group: await kafka.committed_offsets(settings, group) for group in groups}
    ends = await kafka.log_ends(settings, [*raw, *names.rebuilt])
    for topic in names.marked:
        empty = [tp.partition for tp, (_, end) in ends.items() if tp.topic == topic and end == 0]
        if empty:
            raise Refused(
                f"topic {topic} has been emptied or made anew (partition {min(empty)} holds nothing): {REBUILD}", STATE
            )
    if unmarked := await epochs.without_mark(settings, ends):
        topic, partition = min(unmarked)
        raise Refused(f"{ChangelogMadeAnew(topic, partition)}: {REBUILD}", STATE)
    for group, offsets in committed.items():
        for tp, offset in offsets.items():
            place = ends.get(TopicPartition(tp.topic, tp.partition))
            if place is not None and offset > place[1]:
                raise Refused(
                    f"group {group} has committed offset {offset} of {tp.topic}-{tp.partition}, which ends at "
                    f"{place[1]}: the topic was made anew. To begin again, {REBUILD}",
                    STATE,
                )


async def _check_database(settings: Settings, epoch: Epoch) -> None:
    """Schema and fences, where PostgreSQL can be reached: its absence must not keep intake and lookups from working."""
    # Before PostgreSQL is asked: rows are committed before their offsets.
    flushed = await _flushed(settings)
    try:
        async with Database(settings.conninfo, size=1) as database:
            problems = await database.run(schema.check)
            last_epoch = await database.run(_last_epoch) if not problems else 0
            furthest = await database.run(_furthest(epoch.number)) if not problems else []
            is_untouched = not problems and await database.run(_is_untouched)
    except SinkUnavailable as exc:
        if settings.roles == ("sink",):
            logger.warning("PostgreSQL cannot be reached yet, the sink waits for it: %s", exc)
        else:
            logger.warning("PostgreSQL cannot be reached, starting without it; the sink waits: %s", exc)
        return
    if problems:
        raise Refused(f"PostgreSQL is not ready. {' '.join(problems)}", POSTGRES)
    if is_untouched and flushed >= SURELY_FLUSHED:
        raise Refused(
            f"{flushed:,} records of metrics were written to PostgreSQL, and this database has seen none of them: it is "
            "another one. Set TUTORMAX_DATABASE_URL or POSTGRES_* to the one that was used, or restore that from its "
            "backup",
            POSTGRES,
        )
    if last_epoch > epoch.number:
        raise Refused(
            f"PostgreSQL holds rows of epoch {last_epoch}, Kafka's is {epoch.number}: Kafka was restored from before "
            f"a rebuild. To begin again, {REBUILD}",
            STATE,
        )
    if furthest:
        topic = Topics.of(settings).facts
        ends = await kafka.log_ends(settings, [topic])
        for partition, position in furthest:
            place = ends.get(TopicPartition(topic, partition))
            if place is None or position > place[1]:
                raise Refused(
                    f"PostgreSQL holds rows made at position {position} of {topic}-{partition}, which ends at "
                    f"{place[1] if place else 0}: the topic was made anew. To begin again, {REBUILD}",
                    STATE,
                )


async def _flushed(settings: Settings) -> int:
    """Records of metrics that sinks have done with."""
    committed = await kafka.committed_offsets(settings, settings.sink_group)
    return sum(offset for tp, offset in committed.items() if tp.topic == Topics.of(settings).metrics)


async def _is_untouched(connection: Connection) -> bool:
    """Whether no metrics were ever flushed to this database, not even to wait for their tutor."""
    cursor = await connection.execute(
        "SELECT NOT EXISTS (SELECT FROM tutormax_streams.metric_fences)"
        " AND NOT EXISTS (SELECT FROM tutormax_streams.parked_metrics)"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


def _furthest(epoch: int) -> Callable[[Connection], Awaitable[list[tuple[int, int]]]]:
    async def read(connection: Connection) -> list[tuple[int, int]]:
        cursor = await connection.execute(
            "SELECT facts_partition, max(position) FROM tutormax_streams.metric_fences WHERE epoch = %s GROUP BY 1",
            (epoch,),
        )
        return [(int(partition), int(position)) for partition, position in await cursor.fetchall()]

    return read
