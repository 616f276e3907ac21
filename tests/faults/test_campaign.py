"""The short form of the campaign: ten faults and a story about zombies, told side by side, each judged by itself.

Faults of a server have servers of their own and come one after the other there. `make faults` is the long form.
"""

from __future__ import annotations

import asyncio

import pytest

from docs import reliability
from tests.faults import campaign, results
from tests.faults.ground import Ground
from tests.faults.proxy import Switchboard
from tests.faults.registry import FAULTS, Fault
from tests.faults.results import Result
from tests.faults.zombie_changelogs import a_zombie_writes_to_changelogs_late_and_the_broker_compacts
from tests.flow.stories import Deploy, ending
from tutormax_streams.embedded.kafka import ApacheKafka

SEED = 7
SHORT = {name: fault for name, fault in FAULTS.items() if fault.short_times}
OF_SERVERS = [fault for fault in SHORT.values() if fault.breaks_servers]
OF_OTHERS = [fault for fault in SHORT.values() if not fault.breaks_servers]

needs_apache = pytest.mark.skipif(
    ApacheKafka.why_not() is not None, reason="needs Apache Kafka: a broker with several listeners that keeps its data"
)


async def play(ground: Ground, fault: Fault) -> Result:
    return await campaign.play(ground, fault.in_short(), SEED, times=fault.short_times, is_short=True)


async def play_in_turn(ground: Ground, faults: list[Fault]) -> list[Result]:
    return [await play(ground, fault) for fault in faults]


@pytest.fixture(scope="module")
def told(deploy: Deploy) -> dict[str, Result | BaseException | None]:
    """How each run and the story ended."""

    async def tell(shared: Ground, to_be_broken: Ground) -> dict[str, Result | BaseException | None]:
        zombie = asyncio.create_task(ending(a_zombie_writes_to_changelogs_late_and_the_broker_compacts, deploy))
        in_turn = asyncio.create_task(play_in_turn(to_be_broken, OF_SERVERS))
        results = [*await asyncio.gather(*(play(shared, fault) for fault in OF_OTHERS)), *await in_turn]
        return {**{result.fault: result for result in results}, "zombie": await zombie}

    with Ground() as shared, Ground() as to_be_broken:
        return asyncio.run(tell(shared, to_be_broken))


@needs_apache
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHORT)
def test_all_is_right_after(told: dict[str, Result], name: str):
    result = told[name]
    print(result.line())
    assert result.is_right, result.trouble()


@needs_apache
@pytest.mark.timeout(600)
def test_a_late_record_of_a_zombie_brings_nothing_back_when_the_broker_has_compacted(
    told: dict[str, BaseException | None],
):
    failure = told["zombie"]
    if failure is not None:
        raise failure


# -- the campaign's own parts -------------------------------------------------------------------------------------------


def test_the_page_about_reliability_is_current():
    assert reliability.PAGE.read_text() == reliability.page(results.read()), "run `python -m docs.reliability`"


async def test_a_door_passes_stalls_breaks_and_is_mended():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    switchboard = Switchboard()
    door = switchboard.door(server.sockets[0].getsockname()[1])
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

        async def echoed(word: bytes, seconds: float = 5.0) -> bytes:
            writer.write(word)
            return await asyncio.wait_for(reader.read(100), seconds)

        assert await echoed(b"one") == b"one"
        door.stall()
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await echoed(b"two", 0.3)
        door.mend()
        assert await asyncio.wait_for(reader.read(100), 5) == b"two"
        door.cut()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(reader.read(100), 5)
    finally:
        switchboard.close()
        server.close()
