"""What the apps are put together with: time-outs, static membership, and clocks that have to agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tutormax_streams.app import Runtime, create_sink_app, create_stream_app
from tutormax_streams.epoch import Epoch
from tutormax_streams.settings import Settings


def runtime_of(**given: Any) -> Runtime:
    return Runtime(Settings(store="memory", **given), Epoch(1, 4, "empty", "complete", 0))


@pytest.mark.parametrize("create", [create_stream_app, create_sink_app])
def test_every_wait_on_kafka_has_its_deadline(create: Any):
    conf = create(runtime_of()).conf
    assert (conf.broker_session_timeout, conf.broker_heartbeat_interval) == (10.0, 2.0)
    assert (conf.producer_request_timeout, conf.broker_request_timeout) == (30.0, 30.0)


@pytest.mark.parametrize("create", [create_stream_app, create_sink_app])
def test_a_restarted_worker_is_the_same_member_of_its_groups(create: Any):
    """And two workers, or the groups of one, are never taken for each other."""
    conf = create(runtime_of(worker_name="worker-7")).conf
    assert conf.consumer_group_instance_id == f"{conf.id}-worker-7"
    assert create(runtime_of(worker_name="worker-8")).conf.consumer_group_instance_id != conf.consumer_group_instance_id


@pytest.mark.parametrize(("skew", "is_ready"), [(6.0, False), (-6.0, False), (4.9, True)])
def test_a_clock_that_differs_from_the_brokers_by_over_five_seconds_is_not_ready(
    skew: float, is_ready: bool, monkeypatch: pytest.MonkeyPatch
):
    runtime = runtime_of()
    app = create_stream_app(runtime, web=False)
    # As if it had its partitions: nothing else stands in the way.
    consumer = SimpleNamespace(silence_seconds=lambda: None, unconfirmed_seconds=lambda: 0.0)
    monkeypatch.setattr("tutormax_streams.app.batch_consumer", lambda app: consumer)
    monkeypatch.setattr(app.assignor, "assigned_actives", lambda: {"somewhere"})
    app.rebalancing = False
    app.tables.actives_ready = True
    runtime.telemetry.set("clock_skew_seconds", skew)
    report = runtime.health.report("stream")
    assert report["ready"] is is_ready
    told = [f"this worker's clock differs from the broker's by {skew} s: synchronise it (NTP)"]
    assert [reason for reason in report["roles"]["stream"]["reasons"] if "clock" in reason] == (
        [] if is_ready else told
    )


@pytest.mark.parametrize(
    ("silence", "unconfirmed", "is_sure"),
    [
        (None, None, True),
        (9.9, 9.9, True),
        (10.0, 0.0, False),
        (0.0, 10.0, False),
        (None, 60.0, False),
    ],
)
def test_a_worker_is_sure_of_its_partitions_while_kafka_answers_and_its_group_has_confirmed_it(
    silence: float | None, unconfirmed: float | None, is_sure: bool, monkeypatch: pytest.MonkeyPatch
):
    """After a session without a confirmation they may be another's, whatever fetches say: it may have been frozen."""
    runtime = runtime_of()
    app = create_stream_app(runtime, web=False)
    consumer = SimpleNamespace(silence_seconds=lambda: silence, unconfirmed_seconds=lambda: unconfirmed)
    monkeypatch.setattr("tutormax_streams.app.batch_consumer", lambda app: consumer)
    assert (runtime.silences(app) == []) is is_sure
