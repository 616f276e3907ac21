"""The short form of the campaign: ten faults and a story about zombies, told side by side, each judged by itself.

Faults of a server have servers of their own and come one after the other there. `make faults` is the long form.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from docs import reliability
from tests.faults import campaign, results
from tests.faults.ground import Ground
from tests.faults.load import Load
from tests.faults.of_postgres import fresh_lookups
from tests.faults.of_workers import late_records
from tests.faults.proxy import Switchboard
from tests.faults.registry import FAULTS, Fault
from tests.faults.results import Result, Tally
from tests.faults.run import Run, judge_times, unexpected, untold_alerts
from tests.faults.zombie_changelogs import a_zombie_writes_to_changelogs_late_and_the_broker_compacts
from tests.flow import judge
from tests.flow.driver import Ending
from tests.flow.judge import Difference, Doubled, Lost, Wrong
from tests.flow.processes import Worker
from tests.flow.stories import Deploy, ending
from tutormax_streams.embedded.kafka import ApacheKafka

SEED = 7
CHAINS = {
    "workers": ["kill9", "sigterm", "freeze"],
    "crashes": ["crash-points"],
    "inputs": ["poison-all", "postgres-disk-full", "disk-damaged"],
    "servers": ["fuzz", "postgres-down-short", "kafka-kill9"],
}
"""Runs side by side, and the faults of each run, one after the other. Those that break servers have a ground alone."""

needs_apache = pytest.mark.skipif(
    ApacheKafka.why_not() is not None, reason="needs Apache Kafka: a broker with several listeners that keeps its data"
)


def chain(name: str) -> Fault:
    """The short form of several faults as one."""
    faults = [FAULTS[fault] for fault in CHAINS[name]]

    async def happen(run: Run) -> None:
        for fault in faults:
            run.times = fault.short_times
            try:
                await run.ready()
                began, run.over = time.monotonic(), None
                await fault.happen(run)
                over = run.over or time.monotonic()
                await run.until_fresh(over, still_seconds=1.0)
                judge_times(fault, run.load.worst_age(began), run.load.fresh_after(over), run.patience)
            except Exception as failure:
                raise AssertionError(f"{fault.name}: {failure}") from failure

    return Fault(
        name,
        0,
        ", ".join(CHAINS[name]),
        happen,
        workers=2,
        proxied=any(fault.proxied for fault in faults),
        settings={key: value for fault in faults for key, value in fault.settings.items()},
        raw_partitions={key: count for fault in faults for key, count in fault.raw_partitions.items()},
        may_end_with={code: words for fault in faults for code, words in fault.may_end_with.items()},
        poison_share=max(fault.poison_share for fault in faults),
        per_second=40.0,
    )


@pytest.fixture(scope="module")
def told(deploy: Deploy) -> dict[str, Result | BaseException | None]:
    """How each run and the story ended."""

    async def tell(shared: Ground, to_be_broken: Ground) -> dict[str, Result | BaseException | None]:
        async def play(name: str) -> Result:
            ground = to_be_broken if name == "servers" else shared
            return await campaign.play(ground, chain(name), SEED, times=1, is_short=True)

        zombie = asyncio.create_task(ending(a_zombie_writes_to_changelogs_late_and_the_broker_compacts, deploy))
        results = await asyncio.gather(*map(play, CHAINS))
        return {**dict(zip(CHAINS, results, strict=True)), "zombie": await zombie}

    assert {fault.name for fault in FAULTS.values() if fault.short_times} == {f for c in CHAINS.values() for f in c}
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it has much to say of a broker that is away
    with Ground() as shared, Ground() as to_be_broken:
        return asyncio.run(tell(shared, to_be_broken))


@needs_apache
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", CHAINS, ids=lambda name: ", ".join(CHAINS[name]))
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


def test_every_fault_is_linked_from_what_the_readme_says_about_it():
    text = (reliability.PAGE.parent.parent / "README.md").read_text()
    linked = set(re.findall(r"\(docs/reliability\.md#([\w-]+)\)", text))
    assert set(FAULTS) - linked == set()


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


async def test_a_worker_that_has_just_ended_by_itself_is_not_ready(tmp_path: Path):
    worker = Worker("w", tmp_path, {"TUTORMAX_ROLES": "no such role"})
    worker.start()
    worker.process.wait()
    run = Run.__new__(Run)
    run.workers = [worker]
    with pytest.raises(AssertionError, match="w is not ready"):
        await run.ready(seconds=0.1)
    worker.kill()  # somebody stopped it
    await run.ready(seconds=0.1)


def test_late_records_are_those_of_a_known_writer_behind_a_new_one():
    def record(offset: int, writer: bytes, value: bytes | None = b"x", partition: int = 0) -> Any:
        return SimpleNamespace(topic="t", partition=partition, offset=offset, key=b"key" + writer * 6, value=value)

    frozen = [record(0, b"a"), record(0, b"a", partition=1)]
    thawed = [*frozen, record(1, b"a"), record(2, b"b"), record(3, b"a", None), record(4, b"b"), record(5, b"a")]
    assert late_records(frozen, [*thawed, record(1, b"a", partition=1)]) == {("t", 0, 5)}


def test_workers_end_by_themselves_only_as_their_fault_allows():
    away = Ending("w", 3, "tutormax-streams: no Kafka broker answers at 127.0.0.1:9092")
    bug = Ending("w", 70, "stopped by a failure, nothing unfinished was acknowledged: KeyError('Kafka')")
    false_alarm = Ending("w", 5, "tutormax-streams: topic x has been made anew while workers wrote to it")
    wedged = Ending("w", 75, "stopped by a failure: StoodStill('the worker does not end')")
    mute, killed, other = Ending("w", 3, ""), Ending("w", -11, "Kafka"), Ending("w", 3, "tutormax-streams: no")
    allowed = FAULTS["kafka-down"].may_end_with
    wrong = [bug, false_alarm, wedged, mute, killed, other]
    assert unexpected([away, *wrong], allowed) == wrong
    assert unexpected([away, *wrong], FAULTS["kill9"].may_end_with) == [away, *wrong]


@pytest.mark.parametrize("is_told", [True, False])
async def test_an_alert_that_is_born_between_two_looks_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
):
    """A soak has thousands of tutors: time changed one of them between the topic's end and the look at PostgreSQL."""
    looks = []

    async def read(_: str) -> list[Any]:
        looks.append(1)
        told = [1, 2] if is_told and len(looks) > 1 else [1]
        return [SimpleNamespace(value=json.dumps({"id": number, "sequence": number})) for number in told]

    def untold(_: str, alerts: list[Any]) -> list[Difference]:
        return [Lost(f"nobody was told of alert {number}") for number in {1, 2} - {alert["id"] for alert in alerts}]

    monkeypatch.setattr(judge, "untold_alerts", untold)
    monkeypatch.setattr("tests.faults.run.ALERT_PAUSES", (0.0, 0.01, 0.01))
    deployment = SimpleNamespace(read=read, topics=SimpleNamespace(alerts="alerts"), database="")
    found, count = await untold_alerts(deployment)
    assert (found, count, len(looks)) == (([], 2, 2) if is_told else (["nobody was told of alert 2"], 1, 3))


async def test_what_watches_lookups_fails_the_run_when_it_fails_and_when_it_asks_too_little(tmp_path: Path):
    run: Any = SimpleNamespace(workers=[], notes={}, patience=1.0, load=SimpleNamespace(probes=[]))
    with pytest.raises(AttributeError, match="running"):  # of the task that watches
        async with fresh_lookups(run):
            await asyncio.sleep(0.05)
    run.running, run.workers = [], [Worker("w", tmp_path, {})]
    with pytest.raises(AssertionError, match="only 0 lookups"):
        async with fresh_lookups(run):
            await asyncio.sleep(0.05)


def test_a_result_is_right_only_with_two_clean_verdicts(tmp_path: Path):
    clean, dirty = Tally(), Tally.of([Lost("a row"), Doubled("another"), Wrong("a third"), Lost("a fourth")])
    assert str(dirty) == "lost 2, doubled 1, wrong 1"
    runs = [
        Result("kill9", 1, 1, tally=clean, rebuilt=clean),
        Result("kill9", 1, 1, tally=clean),  # it never came to the second
        Result("kill9", 1, 1, tally=clean, rebuilt=dirty),
        Result("kill9", 1, 1, tally=clean, rebuilt=clean, failure="a worker ended without a reason"),
    ]
    assert [run.is_right for run in runs] == [True, False, False, False]
    assert [bool(run.trouble()) for run in runs] == [False, False, True, True]
    for run in runs:
        results.append(run, tmp_path / "results.jsonl")
    assert results.read(tmp_path / "results.jsonl") == runs


APPENDING = """
import sys
from pathlib import Path
from tests.faults import results
print("ready", flush=True)
for number in range(10):
    results.append(results.Result(sys.argv[2], 1, number, failure="x" * 200_000, commit="before"), Path(sys.argv[1]))
"""


def test_campaigns_side_by_side_append_whole_lines_one_at_a_time(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    with results.locked(path):
        campaigns = [
            subprocess.Popen(
                [sys.executable, "-c", APPENDING, str(path), name], cwd=results.ROOT, stdout=subprocess.PIPE
            )
            for name in ("one", "two", "three")
        ]
        for campaign_ in campaigns:
            assert campaign_.stdout is not None
            assert campaign_.stdout.readline() == b"ready\n"
        time.sleep(0.5)
        assert path.read_bytes() == b""  # while somebody else holds it
    for campaign_ in campaigns:
        campaign_.communicate(timeout=60)
        assert campaign_.returncode == 0
    found = results.read(path)
    assert sorted((r.fault, r.seed) for r in found) == [(f, n) for f in ("one", "three", "two") for n in range(10)]
    assert all(r.commit.startswith("before..") for r in found)  # it changed while the fault ran


def test_the_page_shows_the_newest_run_of_each_fault():
    wrong = Result("kill9", 3, 1, tally=Tally(lost=4), rebuilt=Tally(lost=1), at="1", commit="a")
    right = Result("kill9", 5, 2, events=1234, tally=Tally(), rebuilt=Tally(), worst_age=7.25, at="2", commit="b")
    page = reliability.page([wrong, right])
    assert "| [kill9](#kill9) | 5 | 2 | 1,234 | 0 | 0 | 0 | 7.2 s | 0.0 s | 0 | yes |" in page
    assert "All right." in page
    assert "| 3 | 1 | 0 | 5 | 0 | 0 |" in reliability.page([right, wrong])
    assert "Not right: kill9." in reliability.page([right, wrong])


def test_the_table_of_healing_takes_its_figures_from_runs_and_benchmarks():
    runs = {
        "kill9-one": Result("kill9-one", 3, 1, fresh_after=13.5),
        "sigterm": Result("sigterm", 3, 1, worst_age=18.2),
    }
    bench = (
        "| recovery of 10,000 tutors x 90 days, extrapolated, seconds | 49 | 120 | 60 |\n"
        "recovery of 305 tutors x 90 days, 160,751 changelog records: 1.5 s beyond a start of 5.2 s, 107,445 records/s\n"
    )
    large = (
        "recovery of 2,500 tutors x 90 days, 3,854,570 changelog records: 31.7 s beyond a start of 4.0 s, 121,600 "
        "records/s, 83,813 records per CPU second; extrapolated to 10,000 tutors: 127 s\n"
    )
    table = reliability.healing(runs, bench, large)
    assert "all rows fresh again | 13.5 s | 30 s | 15 s |" in table
    assert "greatest age of a row | 18.2 s | 60 s |" in table
    assert "on its disk, 305 tutors x 90 days | 5.2 s | 10 s |" in table
    assert "from nothing, 10,000 tutors x 90 days, extrapolated | 49 s | 120 s | 60 s |" in table
    assert "extrapolated from 2,500 tutors x 90 days, 3,854,570 changelog records | 127 s | 120 s | 60 s |" in table
    assert reliability.healing({}, "", "").count("| not measured |") == 5


def test_a_fault_is_judged_by_its_own_times():
    judge_times(FAULTS["sigterm"], 60.0, 60.0)
    for worst_age, fresh_after in ((60.1, 1.0), (1.0, 60.1)):
        with pytest.raises(AssertionError, match="is promised"):
            judge_times(FAULTS["sigterm"], worst_age, fresh_after)
    with pytest.raises(AssertionError, match=r"fresh 30\.1 s after it, 30"):
        judge_times(FAULTS["postgres-down"], 90.0, 30.1)
    judge_times(FAULTS["sigterm"], 120.0, 120.0, patience=2.0)
    with pytest.raises(AssertionError, match=r"60\.0 is promised, times 2"):
        judge_times(FAULTS["sigterm"], 120.1, 120.0, patience=2.0)


async def test_rows_are_as_old_as_the_first_session_that_they_do_not_count(deploy: Deploy):
    load = Load(deploy(), seed=1, per_second=1)
    now = time.monotonic()
    load.probes[2].acknowledged = [now - 9, now - 4]
    assert 8.9 < load.age() < 9.5
    load.probes[2].counted = 1
    assert 3.9 < load.age() < 4.5
    load.ages = [(10, 0.1), (20, 8.0), (30, 6.0), (40, 0.2)]
    assert load.worst_age(since=25) == 6.0
    assert load.fresh_after(since=15) == 25  # not before somebody saw it
    assert load.fresh_after(since=35) == 0
    load.ages.pop()
    assert load.fresh_after(since=15) == 15  # and still not, when nobody looked any more
