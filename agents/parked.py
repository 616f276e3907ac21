"""What persist and flush say of metrics that had waited for their tutor and are written now: either may be who did it."""

from __future__ import annotations

from collections.abc import Sequence

from agents.ports import Telemetry
from models.metrics import MetricsUpdated


def count_unparked(telemetry: Telemetry, unparked: Sequence[MetricsUpdated], committed_us: int) -> None:
    """Count them, and how old the news in them were when their rows were committed, the wait included."""
    telemetry.count("unparked", len(unparked), what="metrics")
    for update in unparked:
        if update.oldest_event_time_ms is not None:
            telemetry.observe("freshness", committed_us / 1e6 - update.oldest_event_time_ms / 1e3)
