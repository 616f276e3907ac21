"""Alerts are born with the rows that they are about, and told even if the worker dies in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from agents import flush as flush_step
from models.alerts import Alert, decode
from models.metrics import MetricsUpdated, encode
from tests.agents.fakes import BrokerAway, Record, batch
from tests.agents.rigs import FlushRig
from tests.postgres.builders import DAY, T, metrics, rows, tutor
from tutormax_streams.postgres.database import Database
from tutormax_streams.postgres.metric_rows import MetricsWriter
from tutormax_streams.postgres.records import RecordWriter
from tutormax_streams.postgres.stored_figures import StoredFigures

GOOD: dict[str, Any] = {"scheduled": 10, "on_time": 10, "engagement": [95.0], "ratings": 4, "rating_sum": 20}
BAD = GOOD | {"rating_sum": 16}  # 4.0 stars: a warning, and the same tier
RAISED = "t1/alert.raised/1"


def update(position: int, inputs: dict[str, Any] = GOOD, **changes: Any) -> MetricsUpdated:
    return msgspec.structs.replace(metrics("t1", position=position, **inputs), **changes)


def names(alerts: Sequence[Alert]) -> list[str]:
    return [alert.id for alert in alerts]


def waiting(url: str) -> list[str]:
    found = rows(url, "SELECT payload FROM tutormax_streams.alert_outbox ORDER BY tutor_id, sequence")
    return names([decode(payload) for (payload,) in found])


@pytest.fixture
async def writer(records: RecordWriter, metric_writer: MetricsWriter) -> MetricsWriter:
    """With a tutor of whom all is well."""
    await records.write([tutor("t1")])
    assert (await metric_writer.write([(0, update(1))])).alerts == []
    return metric_writer


async def test_a_change_is_born_with_its_rows_and_once(writer: MetricsWriter, postgres: str):
    result = await writer.write([(0, update(2, BAD))])
    assert names(result.alerts) == [RAISED]
    assert waiting(postgres) == [RAISED]
    assert (await writer.write([(0, update(2, BAD))])).alerts == [], "a replay"
    assert (await writer.write([(0, update(1))])).alerts == [], "a stale writer"
    assert (await writer.write([(0, update(3, BAD))])).alerts == []
    await writer.told_alerts(result.alerts)
    assert waiting(postgres) == []
    assert names((await writer.write([(0, update(4))])).alerts) == ["t1/alert.cleared/2"]


async def test_what_stands_is_what_was_raised_and_not_cleared(writer: MetricsWriter, database: Database, postgres: str):
    async def standing() -> Sequence[Alert]:
        return await StoredFigures(database).standing_alerts()

    assert await standing() == []
    (raised,) = (await writer.write([(0, update(2, BAD))])).alerts
    rows(postgres, "UPDATE tutors SET name = 'Augusta'")
    assert await standing() == [msgspec.structs.replace(raised, tutor_name="Augusta")], "under the present name"
    await writer.write([(0, update(3, BAD))])
    assert names(await standing()) == [RAISED], "as it was raised"
    rows(postgres, "DELETE FROM tutors")
    assert await standing() == [], "who left has none"


async def test_an_alert_that_was_cleared_stands_no_more(writer: MetricsWriter, database: Database):
    await writer.write([(0, update(2, BAD))])
    await writer.write([(0, update(3))])
    assert await StoredFigures(database).standing_alerts() == []


async def test_what_flows_in_and_what_is_old_waits_and_only_what_is_left_of_it_is_told(
    writer: MetricsWriter, postgres: str
):
    assert (await writer.write([(0, update(2, BAD, is_settled=False))])).alerts == []
    assert (await writer.write([(0, update(3, BAD, as_of_us=T - DAY))])).alerts == []
    assert rows(postgres, "SELECT avg_rating FROM tutor_performance_metrics WHERE \"window\" = 'THIRTY_DAY'") == [
        (4.0,)
    ]
    assert (await writer.write([(0, update(4))])).alerts == [], "it came and went"
    await writer.write([(0, update(5, BAD, is_settled=False))])
    assert names((await writer.write([(0, update(6, BAD))])).alerts) == [RAISED]


async def test_with_a_neighbour_at_fault_the_others_alerts_are_born(writer: MetricsWriter, postgres: str):
    broken = msgspec.structs.replace(metrics("t2", position=2), as_of_us=2**62)
    result = await writer.write([(0, broken), (0, update(2, BAD))])
    assert (names(result.alerts), len(result.refused) + result.parked) == ([RAISED], 1)
    assert waiting(postgres) == [RAISED]


async def test_who_had_to_wait_for_the_tutor_is_looked_at_too(
    records: RecordWriter, metric_writer: MetricsWriter, postgres: str
):
    assert (await metric_writer.write([(0, update(1, BAD))])).parked == 1
    rows(
        postgres,
        "INSERT INTO tutors SELECT 't1', 'n', 'e', now(), 'ACTIVE', '{}', NULL, NULL, NULL, NULL, now(), now()",
    )
    assert names((await metric_writer.retry_parked(10)).alerts) == [RAISED]


@pytest.fixture
async def rig(writer: MetricsWriter, monkeypatch: pytest.MonkeyPatch) -> FlushRig:
    """Flush on a real database; `crash` gives the broker and the database another worker."""
    monkeypatch.setattr(flush_step, "TELL_AGAIN_SECONDS", 0.0)
    made = FlushRig([])
    made.postgres = writer  # type: ignore[assignment]
    await made.begin()
    return made


def of(*updates: MetricsUpdated) -> Any:
    return batch([Record("metrics", 0, n, encode(update)) for n, update in enumerate(updates)])


def sent(rig: FlushRig) -> list[str]:
    return names([decode(record.value or b"") for record in rig.broker.records("alerts")])


async def test_alerts_are_sent_under_their_tutor(rig: FlushRig, postgres: str):
    await rig.feed(of(update(2, BAD)))
    (record,) = rig.broker.records("alerts")
    assert (record.key, sent(rig), waiting(postgres)) == (b"t1", [RAISED], [])
    assert rig.counts.counted["alerts", "alert.raised"] == 1
    await rig.flush.retry_parked()
    assert sent(rig) == [RAISED]


async def test_a_death_between_the_rows_and_the_telling_loses_no_alert(rig: FlushRig, postgres: str):
    rig.broker.patience = 0
    with pytest.raises(BrokerAway):
        await rig.feed(of(update(2, BAD)))
    rig.broker.patience = None
    await rig.crash()
    await rig.feed(of(update(2, BAD)))  # replayed: a fence that is stored gives rise to nothing
    assert (sent(rig), waiting(postgres)) == ([], [RAISED])
    await rig.flush.retry_parked()
    assert (sent(rig), waiting(postgres)) == ([RAISED], [])
