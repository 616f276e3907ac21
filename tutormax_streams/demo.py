"""The whole product on one machine: embedded servers, a worker, months of history, and live events.

Everything that it starts ends with it, however it ends: each process has a guard that notices when this one is gone. It
uses no server of the environment, so that it can never write into a real deployment.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tutormax_streams import topics
from tutormax_streams.audit import audit
from tutormax_streams.demo_figures import Scrape, Tables, cpu_seconds, quantile, resident_megabytes, scrape
from tutormax_streams.demo_load import Load, Stuck, settle
from tutormax_streams.demo_screen import Board, Loading, live_screen, seconds_text, summarise
from tutormax_streams.embedded import EmbeddedError, EmbeddedWorker, Stack
from tutormax_streams.embedded.server import free_port, is_free
from tutormax_streams.postgres import schema
from tutormax_streams.postgres.database import Connection, Database
from tutormax_streams.postgres.platform_tables import USERS_TABLE
from tutormax_streams.producer import Publisher, publish_all, publish_live, publisher
from tutormax_streams.settings import Settings
from tutormax_streams.simulation import FALLING_TUTOR_ID, Trickle, history
from tutormax_streams.web.access import token_for

T = TypeVar("T")

PARTITIONS: Final = 4
VIEWER_ID: Final = 1
SIGNED_IN_SECONDS: Final = 12 * 3600
USUAL_PORT: Final = 6066
INTERRUPTED: Final = 130
LIVE_LOOK_SECONDS: Final = 1.0
LINE_SECONDS: Final = 10.0  # between lines where there is no terminal to draw on
ONCE_LIVE_SECONDS: Final = 10.0  # of live events, so that --once can say how fresh rows are


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for."""

    tutors: int = 300
    days: int = 90
    rate: float = 20.0
    seed: int = 1
    once: bool = False
    servers: Literal["light", "real"] = "light"


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there once everything is set up."""

    plan: Plan
    console: Console
    settings: Settings
    database: Database
    tables: Tables
    worker: EmbeddedWorker
    publisher: Publisher
    dashboard: str  # its address, with what signs in


def run(plan: Plan, console: Console) -> int:
    """Show the demo until it is done or stopped: the exit code. 0, or 1 when something is not right; stopped by a
    signal 0, and 130 with `once`."""
    try:
        return asyncio.run(_until_stopped(plan, console))
    except asyncio.CancelledError:
        return INTERRUPTED if plan.once else 0


async def _until_stopped(plan: Plan, console: Console) -> int:
    showing = asyncio.current_task()
    assert showing is not None

    def stop() -> None:
        if showing.cancelling():
            os._exit(INTERRUPTED)  # asked twice; the guards end what is left
        showing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        async with _stage(plan, console) as stage:
            loaded = await _load(stage)
            if plan.once:
                return await _judge(stage, loaded)
            await _live(stage, loaded)
    except (EmbeddedError, Stuck) as error:
        console.print(Text.assemble(("The demo failed: ", "bold red"), str(error)), soft_wrap=True)
        return 1
    return 0


@asynccontextmanager
async def _stage(plan: Plan, console: Console) -> AsyncIterator[Stage]:
    """Servers with tables and topics, and a worker that is not started yet."""
    async with AsyncExitStack() as ending:
        started = time.monotonic()
        servers = Stack(prefer=plan.servers, environ={})
        ending.push_async_callback(_in_thread, servers.close)
        await _in_thread(servers.start)
        console.print(f"  {servers.description}; up in {time.monotonic() - started:.1f} s", soft_wrap=True)
        settings = _settings(servers)
        database = await ending.enter_async_context(Database(settings.conninfo, size=2))
        await database.run(schema.ensure_platform_tables)
        await database.run(schema.ensure_side_tables)
        await topics.ensure(settings)
        await database.run(_add_viewer)
        secret_key = secrets.token_urlsafe(32)
        worker = EmbeddedWorker(
            {**servers.environment, "KAFKA_PARTITIONS": str(PARTITIONS), "SECRET_KEY": secret_key},
            port=USUAL_PORT if is_free(USUAL_PORT) else free_port(),
        )
        ending.push_async_callback(_in_thread, worker.close)
        publish = await ending.enter_async_context(publisher(settings))
        token = token_for(VIEWER_ID, secret_key, expires_at=time.time() + SIGNED_IN_SECONDS)
        # The fragment stays in the browser: no server, proxy or log gets to see the token.
        dashboard = f"{worker.url}/dashboard#token={token}"
        yield Stage(plan, console, settings, database, Tables(database), worker, publish, dashboard)


async def _add_viewer(connection: Connection) -> None:
    """The one user of this deployment, who may read everything."""
    await connection.execute(USERS_TABLE)
    await connection.execute(
        "INSERT INTO users (id, email, hashed_password, is_active, is_superuser, is_verified, full_name, roles)"
        " VALUES (%s, 'viewer@example.org', '', true, false, true, 'Demo viewer', ARRAY['OPERATIONS_MANAGER'])",
        [VIEWER_ID],
    )


def _settings(servers: Stack) -> Settings:
    # Constructed, not read: the environment's settings are for other servers.
    return Settings.model_construct(
        kafka_bootstrap_servers=servers.bootstrap_servers,
        kafka_partitions=PARTITIONS,
        kafka_idempotent_producer=servers.kafka is None or servers.kafka.idempotent_producers,
        database_url=SecretStr(servers.conninfo),
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of the history."""

    load: Load
    events: int
    seconds: float  # until rows were right
    cpu_seconds: float | None  # of the worker


async def _load(stage: Stage) -> Loaded:
    """Publish the history while the worker starts and works, until its rows are right."""
    plan, started = stage.plan, time.monotonic()
    load = Load(stage.publisher, datetime.now(UTC), plan.days)

    async def publish() -> None:
        records = history(plan.seed, plan.tutors, plan.days, load.start)
        await publish_all(stage.publisher, records, seen=load.see)
        load.complete = True

    with Loading(stage.console) as bars:
        async with _beside(_in_thread(stage.worker.start), publish()) as raise_failure:
            await settle(stage.database, stage.worker, load, bars.show, raise_failure)
    loaded = Loaded(load, load.published, time.monotonic() - started, cpu_seconds(stage.worker.pid))
    stage.console.print(
        f"  {plan.days} days of {plan.tutors:,} tutors: {loaded.events:,} events, rows right after"
        f" {loaded.seconds:.1f} s",
        soft_wrap=True,
    )
    return loaded


async def _judge(stage: Stage, loaded: Loaded) -> int:
    """Some seconds of live events, then what came of everything."""
    plan, events = stage.plan, loaded.events
    before = await _scraped(stage.worker)
    await publish_live(stage.publisher, _trickle(plan), seconds=ONCE_LIVE_SECONDS, seen=loaded.load.see)
    await settle(stage.database, stage.worker, loaded.load)
    after = await _scraped(stage.worker)
    counts = await stage.tables.counts()
    result = await audit(stage.database, stage.settings.engagement_mode)
    verdict = "no differences" if result.ok else f"{len(result.differences):,} DIFFERENCES"
    p50, p99 = (seconds_text(quantile(before, after, "tutormax_freshness", share)) for share in (0.5, 0.99))
    lines = [
        ("history", f"{events:,} events in {loaded.seconds:.1f} s: {events / loaded.seconds:,.0f} events/s"),
        ("live", f"{after.events - events:,} events in {ONCE_LIVE_SECONDS:g} s: freshness p50 {p50}, p99 {p99}"),
        ("rows", ", ".join(f"{count:,} {name}" for name, count in counts.items())),
        ("dead letters", f"{after.dead_letters:,}"),
        ("audit", f"{result.rows:,} rows of metrics computed again in SQL: {verdict}"),
    ]
    used, memory = loaded.cpu_seconds, resident_megabytes(stage.worker.pid)
    if used and memory:
        lines.insert(1, ("worker", f"{used:.1f} CPU s, {events / used:,.0f} events per CPU second, {memory:.0f} MB"))
    summarise(stage.console, "Right." if result.ok else "Not right.", lines)
    return 0 if result.ok else 1


def _command() -> str:
    """How the shell that began this finds our command: by its name, or where it is installed."""
    name = "tutormax-streams"
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).with_name(name))


async def _live(stage: Stage, loaded: Loaded) -> None:
    """Live events and the live screen until cancelled."""
    board = Board(
        loaded=loaded.events,
        falling=FALLING_TUTOR_ID,
        links={
            "dashboard:": stage.dashboard,
            "health:": f"{stage.worker.url}/readyz",
            "metrics:": f"{stage.worker.url}/metrics",
            "tables:": f"psql {stage.settings.conninfo}",
            "topics:": f"KAFKA_BOOTSTRAP_SERVERS={stage.settings.kafka_bootstrap_servers} {_command()} topics tail",
        },
    )
    terminal = stage.console.is_terminal
    stage.console.print(f"  dashboard: {stage.dashboard}", soft_wrap=True)
    try:
        async with _beside(publish_live(stage.publisher, _trickle(stage.plan))) as raise_failure:
            with Live(console=stage.console, screen=terminal, auto_refresh=False) as live:
                said = started = time.monotonic()
                while True:
                    raise_failure()
                    stage.worker.ensure_running()
                    now = time.monotonic()
                    at = datetime.now().astimezone().strftime("%H:%M:%S")
                    board.look(await scrape(stage.worker), await stage.tables.standings(), at, now - started)
                    if terminal:
                        live.update(live_screen(board), refresh=True)
                    elif now - said >= LINE_SECONDS:
                        said = now
                        stage.console.print(f"  {board.line()}", soft_wrap=True)
                    await asyncio.sleep(LIVE_LOOK_SECONDS)
    finally:
        stage.console.print(f"  {board.line()}\n  Stopping ...", soft_wrap=True)


def _trickle(plan: Plan) -> Trickle:
    return Trickle(plan.seed, plan.tutors, datetime.now(UTC), plan.rate)


async def _scraped(worker: EmbeddedWorker) -> Scrape:
    found = await scrape(worker)
    if found is None:
        raise Stuck("the worker does not answer any more")
    return found


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator[Callable[[], None]]:
    """Run `works` beside the body; gives a function that raises what one of them failed with. Ends them at the end."""
    tasks = [asyncio.create_task(work) for work in works]

    def raise_failure() -> None:
        for task in tasks:
            if task.done():
                task.result()

    try:
        yield raise_failure
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _in_thread(work: Callable[[], T]) -> T:
    """Blocking work that is never left half done: a cancellation waits for it."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
