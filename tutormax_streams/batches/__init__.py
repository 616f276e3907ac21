"""What we add to Faust: one stream event carries a batch of records, and only work that was confirmed is committed.

Faust keeps the group, the assignment, table recovery and the web; the private names of Faust that we lean on are
used in this package only and listed in `pins`.
"""

from tutormax_streams.batches.closed_connections import expect_closed_connections
from tutormax_streams.batches.connections import bound_idle_connections
from tutormax_streams.batches.consumer import BatchConsumer, BatchTransport, attach_batches, batch_consumer
from tutormax_streams.batches.crashpoints import reached
from tutormax_streams.batches.driving import crash_soon, drive
from tutormax_streams.batches.gathering import Gathering, Parts
from tutormax_streams.batches.header_names import read_any_header_name
from tutormax_streams.batches.partitioning import Partitioner
from tutormax_streams.batches.producer import Sender
from tutormax_streams.batches.records import RawBatch, RecordBatch, Revoked
from tutormax_streams.batches.recovery import ChangelogMadeAnew, recovery_position, recovery_remaining
from tutormax_streams.batches.shelves import DirectoryInUse, UnreadableShelf
from tutormax_streams.batches.table import MergedTable

__all__ = [
    "BatchConsumer",
    "BatchTransport",
    "ChangelogMadeAnew",
    "DirectoryInUse",
    "Gathering",
    "MergedTable",
    "Partitioner",
    "Parts",
    "RawBatch",
    "RecordBatch",
    "Revoked",
    "Sender",
    "UnreadableShelf",
    "attach_batches",
    "batch_consumer",
    "bound_idle_connections",
    "crash_soon",
    "drive",
    "expect_closed_connections",
    "reached",
    "read_any_header_name",
    "recovery_position",
    "recovery_remaining",
]
