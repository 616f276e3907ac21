"""One replica: start-up checks, then the apps of its roles until a signal or a failure stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import faust
import uvloop
from aiokafka.errors import IllegalArgumentError, IllegalStateError
from mode import Service

from models.layouts import UnknownVersion
from tutormax_streams import environment, failures, kafka, logs, memory, signals, startup
from tutormax_streams.app import Runtime, create_sink_app, create_stream_app
from tutormax_streams.batches import (
    BatchConsumer,
    ChangelogMadeAnew,
    DirectoryInUse,
    UnreadableShelf,
    batch_consumer,
    crash_soon,
    expect_closed_connections,
    read_any_header_name,
)
from tutormax_streams.epoch import Epoch
from tutormax_streams.refused import CONFIGURATION, CRASHED, STATE
from tutormax_streams.settings import Settings
from tutormax_streams.watchdog import STOOD_STILL, StoodStill, Watchdog
from tutormax_streams.web import health

logger = logging.getLogger(__name__)


async def _prepared(settings: Settings) -> Epoch | None:
    """The epoch to work in, or None after a signal. Raises `startup.Refused`."""
    preparing = asyncio.ensure_future(startup.prepare(settings))
    loop = asyncio.get_running_loop()
    for number in signals.ENDING:
        loop.add_signal_handler(number, preparing.cancel)
    try:
        return await preparing
    except asyncio.CancelledError:
        logger.info("stopped by a signal before work began")
        return None


def _watchdog(runtime: Runtime, worker: faust.Worker, loop: asyncio.AbstractEventLoop) -> Watchdog:
    def consumers() -> list[BatchConsumer]:
        return [consumer for app in runtime.apps if (consumer := batch_consumer(app)) is not None]

    return Watchdog(
        runtime.settings.watchdog_seconds,
        loop,
        crash=lambda failure: crash_soon(runtime.apps[0], failure),
        judge=runtime.look,
        thread_beats=lambda: [(f"the consumer's thread of {c.app.conf.id}", c.thread_beats()) for c in consumers()],
        thread_loops=lambda: [consumer.thread_loop() for consumer in consumers()],
        stopping=lambda: worker.should_stop or any(app.should_stop for app in runtime.apps),
        is_excused=lambda: not kafka.can_be_connected(runtime.settings),
    )


def verdict(crash: BaseException) -> tuple[str | None, int]:
    """(what an operator is told, exit code) of the failure that stopped a worker; None where the log says all there is
    to say: it stood still, or it is a bug."""
    match crash:
        case IllegalStateError() | IllegalArgumentError():  # of aiokafka's user, though a KafkaError
            return None, CRASHED
        case StoodStill():
            return None, STOOD_STILL
        case ChangelogMadeAnew():
            return f"{crash}: {startup.REBUILD}", STATE
        case UnknownVersion() | DirectoryInUse():
            return str(crash), CONFIGURATION
        case UnreadableShelf():
            return str(crash), failures.FAILED
    return failures.told(crash) or (None, CRASHED)


def run(settings: Settings) -> int:
    """Work until stopped: the process's exit code.

    0 after a signal, `startup`'s codes when refused or when a server stopped it, 70 after a crash, 75 where the watchdog
    ended it.
    """
    os.environ["TZ"] = "UTC"
    memory.return_large_blocks()
    logs.configure(settings.log_level, settings.log_format)
    uvloop.install()
    expect_closed_connections()
    read_any_header_name()
    try:
        startup.check_machine(settings)
        epoch = asyncio.run(_prepared(settings))
    except startup.Refused as refusal:
        sys.stderr.write(f"tutormax-streams: {refusal}\n")
        return refusal.code
    if epoch is None:
        return 0
    signals.end_the_process()  # the loop that has just ended had them, and Faust takes them when it runs
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    runtime = Runtime(settings, epoch)
    apps: list[faust.App] = []
    if "stream" in settings.roles:
        apps.append(create_stream_app(runtime, web=True))
    if "sink" in settings.roles:
        apps.append(create_sink_app(runtime, web=not apps))
    probes = health.probes(runtime.health, runtime.telemetry, runtime.refresh)
    beside: list[Service] = []
    if settings.health_port is None:
        health.attach(apps[0], probes)
    else:
        beside.append(health.HealthServer(probes, settings.web_host, settings.health_port, loop=loop))
    for app in apps:
        app.finalize()
    memory.spare_the_collector()
    memory.attach(apps[0])
    worker = faust.Worker(
        apps[0], *beside, *apps[1:], loop=loop, quiet=True, override_logging=False, redirect_stdouts=False
    )
    logger.info("worker %s starts with roles %s", settings.instance_id, ", ".join(settings.roles))
    watchdog = _watchdog(runtime, worker, loop)
    watchdog.start()
    crash: BaseException | None = None
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:
        # How Faust ends, in peace or after a failure while starting, which it has printed.
        crash = ended if ended.code else None
    except Exception as exc:  # noqa: BLE001 - whatever it was, the exit code tells
        crash = exc
    finally:
        watchdog.stop()
    crash = worker.crash_reason or crash
    if crash is not None:
        logger.critical("stopped by a failure, nothing unfinished was acknowledged: %r", crash)
        sentence, code = verdict(crash)
        if sentence:
            sys.stderr.write(f"tutormax-streams: {sentence}\n")
        return code
    logger.info("stopped")
    return 0


def main() -> int:
    """`run` with the settings of the environment. Raises what `failures` has a sentence for."""
    return run(environment.load())
