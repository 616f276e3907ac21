"""The fence: whoever is behind writes nothing, however late and whatever its clock says."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import psycopg

from models.metrics import MetricsUpdated, decode, encode
from tests.flow.driver import Deployment, eventually
from tests.flow.processes import Worker
from tests.oracle import DAY_US
from tests.samples import session_payload, tutor_payload

LATER_US = 3_600_000_000


async def test_a_zombies_late_records_are_refused_in_the_order_epoch_position_as_of(living: Deployment, worker: Worker):
    now_us = time.time_ns() // 1000
    await living.tell(
        ("tutors", tutor_payload("fenced", now_us)),
        *(("sessions", session_payload(f"fenced-{n}", "fenced", now_us - DAY_US, now_us - DAY_US)) for n in range(3)),
    )
    await living.assert_right()
    newest, partition = await newest_record(living)
    for behind in (
        {"position": newest.position - 1, "as_of_us": newest.as_of_us + LATER_US},
        {"position": newest.position, "as_of_us": newest.as_of_us - 1},
        {"position": newest.position + 1000, "epoch": newest.epoch - 1, "as_of_us": newest.as_of_us + LATER_US},
    ):
        refused = worker.metric("fenced")

        async def is_refused(behind: dict[str, int] = behind, refused: float = refused) -> bool:
            await forge(living, partition, newest, **behind)
            await asyncio.sleep(1)  # a true record that comes to the same batch takes its place before it is judged
            return worker.metric("fenced") > refused

        await eventually(is_refused)
        assert living.rows_of("fenced")["SEVEN_DAY"]["sessions_completed"] == 3, behind
    await living.assert_right()

    # The forgery works: what is ahead is written, and then holds up what is behind it in turn.
    for ahead in ({"position": newest.position, "as_of_us": newest.as_of_us + LATER_US}, {"epoch": newest.epoch + 1}):
        await forge(living, partition, newest, **ahead)
        await eventually(lambda: living.rows_of("fenced")["SEVEN_DAY"]["sessions_completed"] == 77)
        await living.tell(("tutors", tutor_payload("fenced", now_us + 1000 * len(ahead))))
        if "epoch" in ahead:
            await living.quiet()
            assert living.rows_of("fenced")["SEVEN_DAY"]["sessions_completed"] == 77
            with psycopg.connect(living.database, autocommit=True) as connection:
                connection.execute("DELETE FROM tutormax_streams.metric_fences WHERE tutor_id = 'fenced'")
            await living.tell(("tutors", tutor_payload("fenced", now_us + 5000)))
        await eventually(lambda: living.rows_of("fenced")["SEVEN_DAY"]["sessions_completed"] == 3)


async def newest_record(living: Deployment) -> tuple[MetricsUpdated, int]:
    """The last record of the tutor, and where it lies."""
    records = [r for r in await living.read(living.topics.metrics) if r.key == b"fenced"]
    return decode(records[-1].value), records[-1].partition


async def forge(living: Deployment, partition: int, record: MetricsUpdated, **changes: Any) -> None:
    """A record with wrong figures under another fence."""
    windows = {name: msgspec.structs.replace(window, sessions_completed=77) for name, window in record.windows.items()}
    forged = msgspec.structs.replace(record, windows=windows, oldest_event_time_ms=None, **changes)
    async with living.producer() as producer:
        await producer.send_and_wait(living.topics.metrics, encode(forged), key=b"fenced", partition=partition)
