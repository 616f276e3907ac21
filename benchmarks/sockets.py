"""Memory of idle clients: `python -m benchmarks.sockets [--sockets 1000] [--tutors 300]`.

So many WebSockets are opened to one worker, which holds the windows of some tutors. RSS is read before the first, once
one has made the worker read the topics of changes, and a while after the last. Then one event is sent, and each socket
must be told of it.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from benchmarks.conditions import Conditions
from benchmarks.freshness import session_payload, tutor_id, tutor_payload
from benchmarks.ground import Ground
from benchmarks.lookups import WARM_SESSIONS, signed_in
from benchmarks.memory import ready
from tutormax_streams import kafka, topics
from tutormax_streams.topics import Topics

AT_ONCE = 50
REST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Idle:
    """RSS in MiB; `told` sockets heard of the event."""

    before: float
    with_one: float
    with_all: float
    sockets: int
    told: int

    @property
    def cost_mib(self) -> float:
        return self.with_all - self.before

    def line(self) -> str:
        return (
            f"{self.sockets:,} idle sockets: {self.cost_mib:.0f} MiB (RSS {self.before:.0f} MiB before, "
            f"{self.with_one:.0f} MiB with one, {self.with_all:.0f} MiB with all); {self.told:,} were told of the next "
            "event"
        )


async def measure(ground: Ground, sockets: int, tutors: int) -> Idle:
    async with signed_in(ground) as (deployment, token), AsyncExitStack() as stack:
        await topics.ensure(deployment.settings)
        sessions = Topics.of(deployment.settings).raw("sessions")
        async with kafka.producer(deployment.settings) as producer:
            for number in range(tutors):
                await producer.send(
                    Topics.of(deployment.settings).raw("tutors"), tutor_payload(number, datetime.now(UTC))
                )
                for session in range(WARM_SESSIONS):
                    await producer.send(sessions, session_payload(number, session, datetime.now(UTC)))
        worker = stack.enter_context(deployment.worker("stream", "sink"))
        await ready(worker)
        await asyncio.sleep(REST_SECONDS)
        client = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(limit=0))
        )
        url = worker.url.replace("http", "ws") + "/ws/dashboard"
        before = worker.usage.rss_mib
        listening = [asyncio.create_task(_hears(await client.ws_connect(url), tutor_id(0)))]
        await asyncio.sleep(REST_SECONDS)
        with_one = worker.usage.rss_mib
        for begin in range(1, sockets, AT_ONCE):
            some = range(begin, min(begin + AT_ONCE, sockets))
            opened = await asyncio.gather(*(client.ws_connect(url) for _ in some))
            listening += [asyncio.create_task(_hears(socket, tutor_id(0))) for socket in opened]
        await asyncio.sleep(REST_SECONDS)
        with_all = worker.usage.rss_mib
        async with kafka.producer(deployment.settings) as producer:
            await producer.send_and_wait(sessions, session_payload(0, WARM_SESSIONS, datetime.now(UTC)))
        await asyncio.wait(listening, timeout=6 * REST_SECONDS)
        return Idle(
            before, with_one, with_all, len(listening), sum(task.done() and task.result() for task in listening)
        )


async def _hears(socket: aiohttp.ClientWebSocketResponse, tutor: str) -> bool:
    """Whether the socket is told of that tutor before it is closed. Who does not listen answers no ping either."""
    async for message in socket:
        update = message.json()
        if update["type"] == "metrics_update" and update["data"]["tutor_id"] == tutor:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--tutors", type=int, default=300)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        idle = asyncio.run(measure(ground, options.sockets, options.tutors))
    print(idle.line())


if __name__ == "__main__":
    main()
