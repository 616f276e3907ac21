"""Every metric that we publish, with a sentence each; labels are few and bounded.

The Prometheus client library keeps and renders them; `Telemetry` is the small face that agents see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 900, 3600)


@dataclass(frozen=True, slots=True)
class Metric:
    """Name as code uses it, kind, sentence, labels."""

    kind: type[Counter | Gauge | Histogram]
    sentence: str
    labels: tuple[str, ...] = ()


METRICS: Final[dict[str, Metric]] = {
    "events": Metric(Counter, "Raw records by topic and what became of them.", ("topic", "fate")),
    "warnings": Metric(Counter, "Accepted events that were odd, by topic and warning.", ("topic", "warning")),
    "dead_letters": Metric(Counter, "Refused events by topic and reason.", ("topic", "reason")),
    "breaker_open": Metric(Gauge, "1 while a topic is not read because most of it was rejected.", ("topic",)),
    "superseded": Metric(Counter, "Events that a newer version of their entity had overtaken."),
    "too_old": Metric(Counter, "Events too old to change any window; they go to PostgreSQL only."),
    "gap_records": Metric(Counter, "Offsets that were not in the log any more when we came to them.", ("topic",)),
    "foreign_records": Metric(Counter, "Records in changelogs that are not ours, passed over in recovery.", ("table",)),
    "published": Metric(Counter, "Records of metrics published."),
    "unpublished": Metric(Counter, "Times that a tutor's windows could not be computed; the log says why. Report it."),
    "rows": Metric(Counter, "Rows of entities written, by kind.", ("kind",)),
    "flushed_tutors": Metric(Counter, "Tutors whose three rows of metrics were written."),
    "fenced": Metric(Counter, "Records of metrics refused because a newer one was stored."),
    "alerts": Metric(Counter, "Alerts sent, by kind; one that is told again counts again.", ("kind",)),
    "parked": Metric(Counter, "Rows parked because a parent was missing.", ("what",)),
    "unparked": Metric(Counter, "Parked rows written after all.", ("what",)),
    "sink_retries": Metric(Counter, "Writes tried again because PostgreSQL was unavailable.", ("sink",)),
    "sink_seconds": Metric(Histogram, "Duration of a write to PostgreSQL, waits included.", ("sink",)),
    "freshness": Metric(Histogram, "Seconds from a raw record's Kafka time to the committed row of metrics."),
    "persist_freshness": Metric(
        Histogram, "Seconds from the Kafka time of a transaction's oldest raw record to the commit of its rows."
    ),
    "lookups": Metric(Counter, "Lookups of one tutor answered, by where the figures came from.", ("source",)),
    "lag_records": Metric(Gauge, "Records in the log that are not committed as done, by topic.", ("topic",)),
    "lag_seconds": Metric(
        Gauge,
        "Age of the oldest record not committed as done, by topic; until it is delivered, how long it has been known of.",
        ("topic",),
    ),
    "oldest_uncommitted_seconds": Metric(Gauge, "The greatest `tutormax_lag_seconds` of all topics."),
    "owned_partitions": Metric(Gauge, "Partitions this worker reads, by topic.", ("topic",)),
    "recovery_remaining": Metric(Gauge, "Changelog records still to be read before tables are complete."),
    "clock_skew_seconds": Metric(Gauge, "Worker's clock minus the broker's, from append times of own records."),
    "database_clock_skew_seconds": Metric(Gauge, "Worker's clock minus PostgreSQL's, as the sink last asked."),
}


class Telemetry:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[str, Any] = {}
        for name, metric in METRICS.items():
            extra: dict[str, Any] = {"buckets": SECONDS} if metric.kind is Histogram else {}
            self._metrics[name] = metric.kind(
                f"tutormax_{name}", metric.sentence, metric.labels, registry=self.registry, **extra
            )

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        metric = self._metrics[name]
        (metric.labels(**labels) if labels else metric).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        metric = self._metrics[name]
        (metric.labels(**labels) if labels else metric).observe(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        metric = self._metrics[name]
        (metric.labels(**labels) if labels else metric).set(value)

    def value(self, name: str, **labels: str) -> float:
        """Current value of a counter or gauge, for health checks and screens."""
        sample = f"tutormax_{name}{'_total' if METRICS[name].kind is Counter else ''}"
        return self.registry.get_sample_value(sample, labels) or 0.0

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)
