"""Recovery of merged tables from their changelogs, a fetch at a time instead of Faust's record by record.

Faust still decides what to recover and when it is complete; only the application of records is ours. A record that
somebody else wrote into a changelog is passed over, and told loudly: one such record must not stop every worker. What
a later release of ours wrote does stop it (`UnknownVersion`): to go on without it would be to lose it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP

from models.layouts import UnknownVersion
from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.records import Record
from tutormax_streams.batches.shelves import RESERVED
from tutormax_streams.batches.table import EPOCH_KEY, WRITER_BYTES, MergedTable, held_of, payload_of, writers_of

logger = logging.getLogger(__name__)

STEP = 2_000  # records applied before the event loop gets a turn
MOST_TOLD = 20  # places in one line of the log


class ImpatientRecovery(Recovery):
    """Stock recovery takes a deadline of its own for the order to stop, and then stands still for ever.

    This one also takes back the memory that `apply_changelog` was granted. One that another overtakes leaves that to
    its successor.
    """

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ASYNC109 - Faust's
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if self.should_stop:
                raise
            raise TimeoutError(f"Kafka did not answer within {timeout} s while tables were recovered") from None

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """Raises `ChangelogMadeAnew` before any event is delivered.

        Faust comes here also after a recovery that a rebalance or the order to stop cut short (`_restart_recovery`
        passes over what its wait for the end raised). Its changelogs were not read to their ends: nothing is said of
        their marks, and the next recovery begins.
        """
        if self.should_stop:
            raise ServiceStopped
        if self.signal_recovery_start.is_set() or generation_id != self.app.consumer_generation_id:
            raise RebalanceAgain
        for table in self.tables.values():
            check_mark(table)
        await super().on_recovery_completed(generation_id)
        for table in self.tables.values():  # from here on no fetch of a changelog widens it again
            settle(table)


class ChangelogMadeAnew(RuntimeError):
    """A changelog was read from its beginning, and is not the one that the state was begun with: some is missing."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(
            f"topic {topic} has been made anew while workers wrote to it (partition {partition} does not hold what it "
            "began with)"
        )


def check_mark(table: MergedTable[Any]) -> None:
    """Workers that go on writing fill a topic that was deleted and made anew: it is not empty, and only the epoch's
    mark is missing. Compaction moves the mark, and two workers that begin together both write one: it may lie anywhere.
    """
    if table.is_marked and table.held.unmarked:
        raise ChangelogMadeAnew(table.changelog_name, min(table.held.unmarked))


async def apply_changelog(app: Any, tp: TP, records: Sequence[Record]) -> None:
    """Apply what was fetched of changelog partition `tp`, and tell Faust how far recovery has come."""
    recovery = app.tables.recovery
    if not recovery.in_recovery or tp not in recovery.active_tps:
        return
    table: MergedTable[Any] = recovery.tp_to_table[tp]
    seen = recovery.active_offsets.get(tp)
    fresh = [r for r in records if seen is None or r.offset > seen]
    if fresh:
        table.memory.widen()
    for at in range(0, len(fresh), STEP):
        if tp not in recovery.active_tps or tp.partition not in table.held.shelves:
            return  # it was taken away, or the worker stops
        step = fresh[at : at + STEP]
        merge_records(table, tp.partition, step)
        recovery.active_offsets[tp] = step[-1].offset
        await reached("recovering")
        await asyncio.sleep(0)
    if tp not in recovery.active_tps:
        return
    if recovery.in_recovery and not recovery.need_recovery():
        # Wakes who waits now. Left set, the next recovery would take it for its own and end before it began. Should
        # nobody wait yet, Faust's own look every five seconds finds the end.
        recovery.signal_recovery_end.set()
        recovery.signal_recovery_end.clear()


def settle(table: MergedTable[Any]) -> None:
    """Recovery is over: go back to the memory that is needed from day to day."""
    table.memory.narrow()
    if table.memory.is_overdrawn:
        for shelf in table.held.shelves.values():
            shelf.flush()


def merge_records(table: MergedTable[Any], partition: int, records: Sequence[Record]) -> None:
    """Merge changelog records into the shelf, in their order, and remember the last offset once the mark was met.

    Records that are not ours are passed over. A writer's first record of the run is looked at, and each that meets
    other writers'; having decoded one of a writer, we trust it for the rest of the run. Raises `UnknownVersion` for what a
    later release wrote.
    """
    shelf = table.held.shelf(partition)
    entries = [(r.key[:-WRITER_BYTES], r.key[-WRITER_BYTES:], r.value, r.offset) for r in records if r.key is not None]
    keys = list({key for key, *_ in entries})
    held = dict(zip(keys, shelf.get_many(keys), strict=True))
    changed: dict[bytes, bytes | None] = {}
    names: dict[bytes, bytes] = {}  # of a writer who is alone with a key
    foreign = [r.offset for r in records if r.key is None]
    for key, writer, payload, offset in entries:
        if key == EPOCH_KEY:
            table.held.unmarked.discard(partition)
            continue
        current = held[key]
        if payload is not None:
            name = names.get(writer)
            if name is not None and (current is None or current.startswith(name)):
                held[key] = changed[key] = name + payload  # as nearly always
                continue
            if not _is_ours(table, key, payload):
                foreign.append(offset)
                continue
            names[writer] = held_of([writer], b"")
        held[key] = changed[key] = _with_record(table, current, writer, payload)
    # Without its mark nothing of it is remembered as read: a worker that ended over this, or was killed before it could
    # tell, reads it from the beginning again when it is started anew.
    is_in_doubt = table.is_marked and partition in table.held.unmarked
    shelf.write(changed.items(), None if is_in_doubt else records[-1].offset)
    if foreign:
        table.on_foreign(len(foreign))
        places = ", ".join(f"{table.changelog_name}-{partition}@{offset}" for offset in sorted(foreign)[:MOST_TOLD])
        logger.error(
            "passed over %s records that are no entries of table %s: somebody else writes to its changelog; %s%s",
            len(foreign), table.name, places, ", ..." if len(foreign) > MOST_TOLD else "",
        )  # fmt: skip


def _is_ours(table: MergedTable[Any], key: bytes, payload: bytes) -> bool:
    if not key or key.startswith(RESERVED):
        return False
    try:
        return table.is_sound(key, table.decode(payload))
    except UnknownVersion:
        raise
    except Exception:  # noqa: BLE001 - whatever decoding somebody else's bytes raises
        return False


def _with_record(table: MergedTable[Any], held: bytes | None, writer: bytes, payload: bytes | None) -> bytes | None:
    """What is held of a key after a record of `writer`, or (None) its deletion, was read."""
    if held is None:
        return None if payload is None else held_of([writer], payload)
    others = [name for name in writers_of(held) if name != writer]
    if payload is None:
        # Others' records were merged in: they are still there, and may hold less than what they were merged to.
        return held_of(others, payload_of(held)) if others else None
    if others:
        old = payload_of(held)
        payload = old if old == payload else table.encode(table.merge_values(table.decode(old), table.decode(payload)))
    return held_of([*others, writer], payload)


def recovery_remaining(app: Any) -> int:
    """Changelog records still to be read before the tables of `app` are complete."""
    return sum(max(0, count) for count in app.tables.recovery.active_remaining().values())


def recovery_position(app: Any) -> int:
    """A number that changes with every changelog record applied."""
    return sum(offset or 0 for offset in app.tables.recovery.active_offsets.values())
