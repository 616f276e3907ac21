"""The versions whose inside we know, and each private name of theirs that we use with the test that watches it."""

from __future__ import annotations

from importlib.metadata import version

PINNED = {
    "faust-streaming": "0.15.3",
    "mode-streaming": "0.7.1",
    "aiokafka": "0.14.0",
    "rocksdict": "0.3.29",
}

# name -> test in tests/faust_contract that fails when it changes
PRIVATE_NAMES = {
    "faust Consumer._getmany, _wait_next_records, _is_changelog_tp, _paused_partitions": "test_delivery",
    "faust Consumer._read_offset, _committed_offset, _unacked_messages, _acked, _acked_index": "test_positions",
    "faust Consumer._filter_tps_with_pending_acks, _new_offset, _add_gap, _commit_offsets, _commit": "test_commit",
    "faust AIOKafkaConsumerThread._create_worker_consumer, _ensure_consumer, _commit, seek": "test_fetch_tuning",
    "faust Producer._ensure_producer, _settings_extra": "test_producer",
    "faust Recovery._set_recovery_ended, active_offsets, active_tps, tp_to_table": "test_recovery",
    "faust Table._new_store; Store, Collection.on_start": "test_table",
    "aiokafka AIOKafkaConsumer._fetch_min_bytes, _fetch_max_wait_ms, _fetch_max_bytes": "test_fetch_tuning",
}


def mismatches() -> list[str]:
    """A sentence for each installed version that is not the one we know."""
    return [
        f"{name} {version(name)} is installed, but this release is built on {wanted}: pip install {name}=={wanted}"
        for name, wanted in PINNED.items()
        if version(name) != wanted
    ]
