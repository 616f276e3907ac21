"""The one place where everything is put together: Faust apps from settings, each its own consumer group.

`stream` holds all tables and needs Kafka only; `sink` holds all of PostgreSQL and no table. One process may run both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import faust
from faust.types import TP

from agents import aggregate, enrich, flush, persist, validate
from agents.aggregate import Assignment
from agents.holding import Holding
from agents.ports import Clock
from models.breaker import Breaker
from models.metrics import decode as decode_metrics
from models.parsing import Parser
from tables import entities, tutor_windows
from tutormax_streams.backlog import LARGE_RECORDS, Backlog
from tutormax_streams.batches import Partitioner, Sender, attach_batches, batch_consumer, recovery_remaining
from tutormax_streams.batches.shelves import LAYOUT, SharedMemory
from tutormax_streams.epoch import Epoch
from tutormax_streams.kafka import LogReader, tls_context
from tutormax_streams.postgres.alerting import Judge
from tutormax_streams.postgres.database import Database, clock_skew
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter
from tutormax_streams.refusals import DeadLetterBox
from tutormax_streams.settings import Settings
from tutormax_streams.stillness import MOST_SILENCE_SECONDS, Stillness
from tutormax_streams.telemetry import Telemetry
from tutormax_streams.topics import RAW, Topics
from tutormax_streams.web import serving
from tutormax_streams.web.health import Health
from tutormax_streams.web.members import Members
from tutormax_streams.web.worker_state import WorkerState, lags

MOST_SKEW_SECONDS = 5.0
COMPARE_CLOCKS_SECONDS = 10.0


def wall_clock() -> int:
    """Microseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1000


def _skewed(whose: str, seconds: float) -> list[str]:
    if abs(seconds) <= MOST_SKEW_SECONDS:
        return []
    return [f"this worker's clock differs from {whose} by {seconds:.1f} s: synchronise it (NTP)"]


@dataclass(slots=True)
class Runtime:
    """What the apps of one process share."""

    settings: Settings
    epoch: Epoch
    clock: Clock = wall_clock
    telemetry: Telemetry = field(default_factory=Telemetry)
    health: Health = field(default_factory=Health)
    apps: list[faust.App] = field(default_factory=list)
    stillness: list[Stillness] = field(default_factory=list)  # of each app
    recovery: Backlog = field(default_factory=lambda: Backlog("recovery of tables"))
    backlog: Backlog = field(default_factory=lambda: Backlog("backlog", LARGE_RECORDS))
    breakers: dict[str, Breaker] = field(default_factory=dict)  # by topic
    holding: Holding | None = None  # of the sink
    held: Callable[[], dict[int, bool]] | None = None  # partitions of the tables -> whether they are answered from
    state: WorkerState = field(init=False)

    def __post_init__(self) -> None:
        self.state = WorkerState(self)

    @property
    def topics(self) -> Topics:
        return Topics.of(self.settings)

    def refresh(self) -> None:
        """Bring the gauges about positions up to date."""
        found = lags(self.apps, self.clock() / 1000)
        for topic, lag in found.items():
            self.telemetry.set("owned_partitions", len(lag.partitions), topic=topic)
            self.telemetry.set("lag_records", lag.records, topic=topic)
            self.telemetry.set("lag_seconds", lag.seconds, topic=topic)
        self.telemetry.set("oldest_uncommitted_seconds", max((lag.seconds for lag in found.values()), default=0))
        recovering = [app for app in self.apps if app.tables and app.in_recovery]
        self.telemetry.set("recovery_remaining", sum(map(recovery_remaining, recovering)))

    async def compare_clocks(self, database: Database) -> None:
        """The sink appends nothing that the broker gives a time to, so it asks whom it writes to."""
        skew = await clock_skew(database, self.clock)
        # Unknown is 0: a clock that was mended while PostgreSQL was away must not be complained of until it is back.
        self.telemetry.set("database_clock_skew_seconds", skew or 0.0)

    def look_after(self, role: str, app: faust.App, excused: Callable[[str], bool]) -> None:
        """Have it watched that the app's work goes on, unless `excused` explains why that of a topic does not."""
        self.stillness.append(Stillness(app, self.settings.watchdog_seconds, excused))
        self.health.watch(role, self.stillness[-1].reasons)
        self.health.watch_start(role, lambda: self._not_started(app))

    def _not_started(self, app: faust.App) -> list[str]:
        if not app.rebalancing_count:
            return ["has not joined its consumer group yet"]
        if app.tables and (app.in_recovery or not app.tables.actives_ready):
            return [f"tables are being recovered: {self.recovery.progress or 'reading the changelogs'}"]
        return ["has not been given its partitions yet"] if app.rebalancing else []

    def look(self) -> str | None:
        """About once a second: say how far long work has come. Answers why the worker should end, if it should."""
        now = time.monotonic()
        self.recovery.look(now, sum(recovery_remaining(app) for app in self.apps if app.tables and app.in_recovery))
        consumers = [consumer for app in self.apps if (consumer := batch_consumer(app)) is not None]
        positions = {(c.app.conf.id, tp): position for c in consumers for tp, position in c.positions().items()}
        self.backlog.look(now, sum(position.behind for position in positions.values()), of=positions.keys())
        self.health.look(now)
        self.state.look()
        return next((why for stillness in self.stillness if (why := stillness.judge())), None)

    def silences(self, app: faust.App) -> list[str]:
        """Why Kafka cannot be relied on now, and our partitions may be another's."""
        consumer = batch_consumer(app)
        if consumer is None:
            return []
        found = []
        silence, unconfirmed = consumer.silence_seconds(), consumer.unconfirmed_seconds()
        if silence is not None and silence >= MOST_SILENCE_SECONDS:
            found.append(f"no Kafka broker has answered for {silence:.0f} s")
        if unconfirmed is not None and unconfirmed >= app.conf.broker_session_timeout:
            found.append(f"its group has not confirmed this member for {unconfirmed:.0f} s")
        return found


def _create_app(runtime: Runtime, group: str, batch_topics: list[str], packed: list[str], web: bool) -> faust.App:
    settings = runtime.settings
    app = faust.App(
        group,
        broker=";".join(f"kafka://{server.strip()}" for server in settings.kafka_bootstrap_servers.split(",")),
        broker_credentials=_credentials(settings),
        broker_client_id=settings.instance_id,
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_request_timeout=30.0,
        broker_commit_interval=1.0,
        broker_max_poll_records=4000,
        consumer_max_fetch_size=512 * 1024,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{group}-{settings.instance_id}",
        producer_request_timeout=30.0,
        producer_linger=0.01,  # few large requests: both sides pay for each
        producer_max_batch_size=1 << 20,
        producer_max_request_size=8 << 20,
        # aiokafka has LZ4 work at its highest level, six times as long as Snappy for a tenth less.
        producer_compression_type="snappy" if settings.kafka_idempotent_producer else None,
        stream_buffer_maxsize=4096,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        topic_partitions=settings.kafka_partitions,
        topic_replication_factor=settings.kafka_replication_factor,
        topic_allow_declare=False,
        topic_disable_leader=True,
        datadir=str(settings.data_dir),
        store="memory://",
        autodiscover=False,
        web_enabled=web,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        canonical_url=settings.advertised_url,
        web_tables_enabled=False,
        web_router_enabled=False,
        worker_redirect_stdouts=False,
    )

    def gap(tp: TP, expected: int, found: int) -> None:
        runtime.telemetry.count("gap_records", found - expected, topic=tp.topic)

    attach_batches(
        app,
        batch_topics,
        packed_topics=packed,
        idempotent=settings.kafka_idempotent_producer,
        on_gap=staticmethod(gap),
    )
    runtime.apps.append(app)
    return app


def _credentials(settings: Settings) -> Any:
    protocol = settings.kafka_security_protocol
    context = tls_context(settings) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        password = settings.kafka_security_password
        return faust.SASLCredentials(
            username=settings.kafka_security_username,
            password=password.get_secret_value() if password else None,
            mechanism=settings.kafka_security_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None


def create_stream_app(runtime: Runtime, *, web: bool = True) -> faust.App:
    """Validate, enrich and aggregate, with all tables."""
    settings, topics, telemetry = runtime.settings, runtime.topics, runtime.telemetry
    raw = {name: topics.raw(name) for name in RAW}
    app = _create_app(
        runtime,
        settings.stream_group,
        [*raw.values(), topics.validated, topics.facts],
        [topics.validated, topics.facts],
        web,
    )
    partitions = settings.kafka_partitions
    directory = None
    if settings.store == "rocksdb":
        # A new epoch begins with empty tables, and so does a new layout: each gets a directory of its own. The moment
        # tells an epoch 1 from the epoch 1 of a Kafka that was wiped.
        epoch = f"epoch-{runtime.epoch.number}-{runtime.epoch.begun_us}"
        directory = settings.data_dir / settings.stream_group / f"{epoch}-layout-{LAYOUT}"
    memory = SharedMemory()
    homes = entities.declare(app, partitions, directory, memory)
    windows = tutor_windows.declare(app, partitions, directory, memory)
    for table in (homes, windows.table):
        table.on_foreign = partial(telemetry.count, "foreign_records", table=table.name)
    sender, reader = Sender(app), LogReader(settings)
    letters = DeadLetterBox(topics, sender, reader)
    breakers = {
        name: Breaker(settings.breaker_bad_pct, settings.breaker_window, settings.breaker_cooldown_seconds)
        for name in RAW
    }
    validate.attach(
        app,
        raw,
        {
            name: validate.Validate(
                name, topics.validated, Parser(settings.zone), breakers[name], Partitioner(partitions), sender,
                letters, runtime.clock, telemetry,
            )
            for name in RAW
        },
    )  # fmt: skip
    tutor_partition = Partitioner(partitions)
    enrich.attach(
        app,
        topics.validated,
        enrich.Enrich(topics.enriched, topics.facts, homes, tutor_partition, sender, letters, runtime.clock, telemetry),
    )

    async def note_assignment(partition: int) -> Assignment:
        first, end = await reader.ends(topics.facts, partition)
        committed = await consumer.committed(TP(topics.facts, partition)) if (consumer := batch_consumer(app)) else None
        # Not the last one's: behind it may lie what a zombie sent late.
        as_ofs = [metrics.as_of_us for metrics in await reader.recent(topics.metrics, partition, decode_metrics)]
        return Assignment(end, max(committed or 0, first), max(as_ofs, default=0))

    step = aggregate.Aggregate(
        topics.metrics,
        windows,
        sender,
        letters,
        runtime.clock,
        telemetry,
        runtime.epoch.number,
        partitions if runtime.epoch.origin == "database" else 0,
        settings.engagement_mode,
        note_assignment,
        int(settings.alert_settle_seconds * 1e6),
    )
    aggregate.attach(app, topics.facts, step)
    if web:
        serving.serve(
            app,
            settings,
            step,
            telemetry,
            runtime.clock,
            unsure=lambda: runtime.silences(app),
            state=runtime.state,
            members=Members(settings, runtime.apps),
        )

    def reasons() -> list[str]:
        if batch_consumer(app) is None or not app.assignor.assigned_actives():
            return ["no partitions are assigned yet"]
        found = runtime.silences(app)
        if app.rebalancing:
            found.append("the group is rebalancing")
        if app.in_recovery or not app.tables.actives_ready:
            found.append(f"tables are being recovered: {runtime.recovery.progress or 'reading the changelogs'}")
        elif not step.complete:
            found.append("catching up with the log before publishing")
        found += _skewed("the broker's", telemetry.value("clock_skew_seconds"))
        found += [f"breaker of topic {name} is open" for name, b in breakers.items() if b.state == "open"]
        return found

    def held() -> dict[int, bool]:
        owned = windows.table.owned_partitions()
        return {p: (shard := step.shards.get(p)) is not None and shard.publishing for p in owned}

    runtime.held = held
    runtime.health.watch("stream", reasons)
    breaker_of = runtime.breakers = {raw[name]: breaker for name, breaker in breakers.items()}
    runtime.look_after("stream", app, lambda topic: topic in breaker_of and breaker_of[topic].state == "open")
    return app


def create_sink_app(runtime: Runtime, *, web: bool = False) -> faust.App:
    """Persist and flush: all of PostgreSQL."""
    settings, topics, telemetry = runtime.settings, runtime.topics, runtime.telemetry
    app = _create_app(
        runtime, settings.sink_group, [topics.enriched, topics.metrics], [topics.enriched, topics.metrics], web
    )
    if web:
        serving.serve_state(app, settings, runtime.clock, runtime.state, Members(settings, runtime.apps))
    database = Database(settings.conninfo)
    sender = Sender(app)
    letters = DeadLetterBox(topics, sender, LogReader(settings))
    holding = runtime.holding = Holding(telemetry)
    persist.attach(
        app,
        topics.enriched,
        persist.Persist(
            topics.persisted, Partitioner(settings.kafka_partitions), RecordWriter(database, runtime.clock), sender, letters,
            runtime.clock, telemetry, holding("persist"),
        ),
    )  # fmt: skip
    flush.attach(
        app,
        topics.metrics,
        flush.Flush(
            topics.alerts, Partitioner(settings.kafka_partitions),
            MetricsWriter(database, Judge(runtime.clock, settings.alert_hysteresis_pct)), sender, letters,
            runtime.clock, telemetry, holding("flush"), settings.flush_interval_seconds,
        ),
    )  # fmt: skip

    def reasons() -> list[str]:
        found = runtime.silences(app)
        if not app.rebalancing_count:
            found.append("has not joined its consumer group yet")
        found += [f"{sink} waits for PostgreSQL: {why}" for sink, why in holding.reasons.items()]
        if app.rebalancing:
            found.append("the group is rebalancing")
        return found + _skewed("PostgreSQL's", telemetry.value("database_clock_skew_seconds"))

    async def compare_clocks() -> None:
        await runtime.compare_clocks(database)

    app.timer(COMPARE_CLOCKS_SECONDS)(compare_clocks)
    runtime.health.watch("sink", reasons)
    runtime.look_after("sink", app, lambda _: bool(holding.reasons))
    return app
