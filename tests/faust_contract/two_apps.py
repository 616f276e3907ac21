"""A worker as the product runs it: uvloop installed, two apps in one `faust.Worker`, until a signal or a failure.

Arguments: servers, two topics (each also a group's name), and how many records the first app takes before it fails.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust
import uvloop

from tests.faust_contract.apps import batch_app
from tutormax_streams.batches import RecordBatch, drive


def declared(kafka: str, topic: str, fails_after: int) -> faust.App:
    app = batch_app(kafka, topic, [topic])
    seen = 0

    async def step(batch: RecordBatch) -> list[Any]:
        nonlocal seen
        seen += len(batch.records)
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        print(topic, seen, loop, flush=True)
        if seen > fails_after:
            raise ValueError("too many")
        return []

    drive(app, topic, step, "step")
    app.finalize()
    return app


def main(kafka: str, first: str, second: str, fails_after: str) -> None:
    uvloop.install()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    apps = [declared(kafka, first, int(fails_after)), declared(kafka, second, sys.maxsize)]
    worker = faust.Worker(*apps, loop=loop, quiet=True, override_logging=False, redirect_stdouts=False)
    try:
        worker.execute_from_commandline()
    finally:
        print("crashed" if worker.crash_reason is not None else "stopped", repr(worker.crash_reason), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
