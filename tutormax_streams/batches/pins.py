"""The versions whose inside we know, and each private name of theirs that we use with the test that watches it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PINNED = {
    "faust-streaming": "0.15.3",
    "mode-streaming": "0.7.1",
    "aiokafka": "0.14.0",
    "rocksdict": "0.3.29",
}

_CONSUMER = "faust.transport.drivers.aiokafka.Consumer"
_THREAD = "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread"
_PRODUCER = "faust.transport.drivers.aiokafka.Producer"
_CLIENT = "aiokafka.AIOKafkaConsumer"
_COORDINATOR = "aiokafka.consumer.group_coordinator.GroupCoordinator"
_FETCHED = "aiokafka.consumer.fetcher.PartitionRecords"
_BATCH = "aiokafka.record.default_records._DefaultRecordBatchPy"

# name -> test in tests/faust_contract that fails when it changes; tests/test_pins.py sees that no name is missing
PRIVATE_NAMES = {
    f"{_CONSUMER}._getmany": "test_fetching_asks_for_what_is_active_and_not_paused",
    f"{_CONSUMER}._wait_next_records": "test_fetching_asks_for_what_is_active_and_not_paused",
    f"{_CONSUMER}._paused_partitions": "test_fetching_asks_for_what_is_active_and_not_paused",
    f"{_CONSUMER}._is_changelog_tp": "test_changelogs_are_told_from_topics",
    f"{_CONSUMER}._thread": "test_the_thread_is_ours",
    f"{_CONSUMER}._new_consumer_thread": "test_the_thread_is_ours",
    f"{_CONSUMER}._read_offset": "test_seeking_notes_the_committed_offsets",
    f"{_CONSUMER}._committed_offset": "test_seeking_notes_the_committed_offsets",
    f"{_CONSUMER}._acked": "test_acknowledging_keeps_books_that_we_empty",
    f"{_CONSUMER}._acked_index": "test_acknowledging_keeps_books_that_we_empty",
    f"{_CONSUMER}._unacked_messages": "test_acknowledging_keeps_books_that_we_empty",
    f"{_CONSUMER}._filter_tps_with_pending_acks": "test_committing_goes_through_our_overrides",
    f"{_CONSUMER}._new_offset": "test_committing_goes_through_our_overrides",
    f"{_CONSUMER}._commit_offsets": "test_committing_goes_through_our_overrides",
    f"{_CONSUMER}._commit": "test_committing_goes_through_our_overrides",
    f"{_CONSUMER}._add_gap": "test_gaps_are_told_to_our_override",
    f"{_THREAD}._create_worker_consumer": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_THREAD}._ensure_consumer": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_THREAD}._stopped_set": "test_a_thread_that_a_crash_has_ended_can_be_stopped",
    f"{_THREAD}._stopped": "test_a_thread_that_a_crash_has_ended_can_be_stopped",
    f"{_THREAD}._fetch_records": "test_what_has_begun_is_fetched_first_in_one_call_into_the_thread",
    f"{_CLIENT}._max_poll_records": "test_what_has_begun_is_fetched_first_in_one_call_into_the_thread",
    f"{_THREAD}._commit": "test_the_thread_commits_through_our_override",
    f"{_CLIENT}._fetch_min_bytes": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_CLIENT}._fetch_max_wait_ms": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_CLIENT}._fetch_max_bytes": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_CLIENT}._subscription": "test_fetches_are_tuned_and_their_answers_dated",
    f"{_CLIENT}._coordinator": "test_a_member_knows_when_its_group_last_confirmed_it",
    f"{_COORDINATOR}._do_heartbeat": "test_a_member_knows_when_its_group_last_confirmed_it",
    f"{_CLIENT}._partition_assignment_strategy": "test_members_of_a_group_without_tables_tell_their_url",
    f"{_FETCHED}._unpack_records": "test_every_record_is_read_once_and_intact",
    f"{_FETCHED}._aborted_transactions": "test_every_record_is_read_once_and_intact",
    f"{_FETCHED}._aborted_producers": "test_every_record_is_read_once_and_intact",
    f"{_FETCHED}._records": "test_every_record_is_read_once_and_intact",
    f"{_FETCHED}._tp": "test_every_record_is_read_once_and_intact",
    f"{_BATCH}._maybe_uncompress": "test_every_record_is_read_once_and_intact",
    f"{_BATCH}._buffer": "test_every_record_is_read_once_and_intact",
    "aiokafka.record.memory_records._MemoryRecordsPy._next_slice": "test_every_record_is_read_once_and_intact",
    f"{_PRODUCER}._ensure_producer": "test_the_producer_waits_for_all_replicas_and_is_idempotent",
    f"{_PRODUCER}._settings_extra": "test_the_producer_waits_for_all_replicas_and_is_idempotent",
    "faust.web.drivers.aiohttp.Web._runner": "test_a_connection_on_which_no_whole_request_comes_is_closed",
    "faust.App._consumer": "test_the_thread_is_ours",
    "faust.tables.manager.TableManager._recovery": "test_a_recovery_whose_broker_is_silent_stops_the_worker",
    "faust.tables.recovery.Recovery._wait": "test_stock_recovery_stands_still_after_its_deadline",
    "faust.tables.table.Table._new_store": "test_a_table_comes_back_in_bulk_before_anything_is_delivered",
}

# Not private by name, but no interface either: `Recovery.active_tps`, `active_offsets`, `tp_to_table`, `in_recovery`,
# `need_recovery`, `signal_recovery_end`, `on_recovery_completed` (all of test_recovery.py), `Collection.on_start` and what
# `Store` must offer; `aiokafka.conn.AIOKafkaConnection` (tests/batches/test_closed_connections.py).


def mismatches() -> list[str]:
    """A sentence for each installed version that is not the one we know."""
    found = {name: _installed(name) for name in PINNED}
    return [
        f"{name} {found[name]} is installed, but this release is built on {wanted}: pip install {name}=={wanted}"
        for name, wanted in PINNED.items()
        if found[name] != wanted
    ]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"
