"""All benchmarks in their short form: `python -m benchmarks [--events 100000] [--seconds 15]`, or `make bench`.

Prints what each prints, and writes docs/benchmarks.md, of which the README quotes the table. What the large deployment
of `benchmarks.scale` printed when it last ran stands on the page too.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks import freshness, lookups, memory, payload, recovery, scale, sockets, throughput
from benchmarks import page as dashboard
from benchmarks.conditions import Conditions
from benchmarks.ground import Ground
from docs import generate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
RATES = [50, 200, 1000]
TUTORS = 300
LARGE_TUTORS = 10_000
LOOKUPS_PER_SECOND, LOOKUP_SECONDS = 500, 60.0
EVENTS = "{}: events per worker CPU second"
RECOVERY = f"recovery of {recovery.LARGE_TUTORS:,} tutors x {recovery.DAYS} days, extrapolated from {{}}, seconds"
SCALE = "`python -m benchmarks.scale`"

Row: TypeAlias = tuple[str, str, str, str]  # what, measured, floor, aim


def page(conditions: Conditions, command: str, rows: list[Row], details: list[str]) -> str:
    table = ["| what | measured | floor | aim |", "| --- | --- | --- | --- |"]
    table += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `{command}`. Floors and aims are what the design promises of a machine with two cores; one",
            "machine runs everything here, so other load on it shows in every figure.",
            "",
            "<!-- summary -->",
            "",
            *table,
            "",
            f"Measured {conditions.date} on {conditions.machine}; load average at start {conditions.load_average}.",
            "",
            "<!-- end -->",
            "",
            "## Conditions and details",
            "",
            "```text",
            *conditions.lines(),
            *details,
            "```",
            "",
            *large(),
        ]
    )


def large() -> list[str]:
    """What `benchmarks.scale` printed when it last ran."""
    if not scale.PRINTED.exists():
        return []
    printed = scale.PRINTED.read_text().rstrip()
    return ["## A large deployment", "", f"By {SCALE}:", "", "```text", printed, "```", ""]


def large_rows() -> list[Row]:
    """Its rows of the table."""
    printed = scale.PRINTED.read_text() if scale.PRINTED.exists() else ""
    memory_line = re.search(r"^([\d,]+ tutors x \d+ days).*: RSS (\d+) MiB after a restart", printed, re.MULTILINE)
    recovery_line = re.search(
        r"^recovery of ([\d,]+) tutors.*extrapolated to [\d,]+ tutors: (\d+) s", printed, re.MULTILINE
    )
    rows: list[Row] = []
    if memory_line:
        rows.append(
            (f"RSS of a stream + sink worker, {memory_line[1]}, live, MiB ({SCALE})", memory_line[2], "220", "130")
        )
    if recovery_line:
        rows.append((f"{RECOVERY.format(recovery_line[1])} ({SCALE})", recovery_line[2], "120", "60"))
    return rows


@dataclass(slots=True)
class Report:
    """What goes on the page: rows of the table, and everything that was printed."""

    rows: list[Row] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def add(self, lines: list[str], *rows: Row) -> None:
        print("\n".join(lines), flush=True)
        self.details += lines
        self.rows += rows


async def stream(ground: Ground, report: Report, events: int) -> None:
    """Throughput of the stream app, and the recovery of the tables that it made."""
    with ground.deployment() as deployment:
        speed = await throughput.measure(deployment, ("stream",), events)
        report.add(
            speed.lines(), (EVENTS.format(speed.roles), f"{speed.events_per_cpu_second:,.0f}", "15,000", "30,000")
        )
        found = await recovery.measure(deployment, speed.tutors)
        row = (RECOVERY.format(found.tutors), f"{found.extrapolated_seconds:.0f}", "120", "60")
        report.add([found.line()], row)


def both_units(mib: float) -> str:
    """Floors are given in "MB", and who reads them may mean either."""
    return f"{mib:.0f} ({mib * 1.048576:.0f} MB of 10^6 bytes)"


async def product(ground: Ground, report: Report, events: int, seconds: float) -> None:
    """Throughput of stream and sink together, and the memory that the worker takes."""
    with ground.deployment() as deployment:
        speed = await throughput.measure(deployment, ("stream", "sink"), events)
        report.add(
            speed.lines(), (EVENTS.format(speed.roles), f"{speed.events_per_cpu_second:,.0f}", "8,000", "15,000")
        )
        live_mib = await memory.live_mib(deployment, speed.tutors, seconds)
        what = f"stream + sink worker, {speed.tutors} tutors x {throughput.DAYS} days"
        report.add(
            [f"{what}: RSS {live_mib:.0f} MiB live, {speed.peak_rss_mib:.0f} MiB at its peak in a backlog"],
            (f"RSS of a {what}, live, MiB", both_units(live_mib), "120", "90"),
            (f"RSS of a {what}, peak in a backlog, MiB", f"{speed.peak_rss_mib:.0f}", "", ""),
        )


async def fresh(ground: Ground, report: Report, seconds: float) -> None:
    """Seconds to the committed row, by rate."""
    found, _ = await freshness.run(ground, RATES, seconds, TUTORS)
    for latencies in found:
        limits = ("p50 1.5, p99 5", "p50 0.5, p99 2") if latencies.rate == 200 else ("", "")
        name = f"event to committed row at {latencies.rate:,} ev/s, seconds"
        report.add([latencies.line()], (name, freshness.described(latencies.seconds), *limits))


async def lookup(ground: Ground, report: Report, seconds: float) -> None:
    """Latency of lookups, local and forwarded, of the dashboard's totals and of what it shows; memory of sockets."""
    found = await lookups.run(ground, LOOKUPS_PER_SECOND, seconds, TUTORS)
    no_op = f"no-op {found.p99_ms('no-op'):.0f}"
    answered = found.statuses["local 200"] + found.statuses["forwarded 200"] + found.statuses["no-op 200"]
    what = f"lookups at {LOOKUPS_PER_SECOND}/s of a worker that took in {found.events_per_second:.0f} ev/s"
    report.add(
        found.lines(LOOKUPS_PER_SECOND, seconds),
        (f"{what}: answered by the worker asked, p99 ms", f"{found.p99_ms('local'):.0f} ({no_op})", "50", "10"),
        (f"{what}: forwarded, p99 ms", f"{found.p99_ms('forwarded'):.0f} ({no_op})", "80", "25"),
        (f"{what}: not answered with 200", f"{found.statuses.total() - answered:,}", "0", ""),
    )
    loaded = await payload.measure(ground, LARGE_TUTORS, rate=10, seconds=30)
    no_op = f"no-op {loaded.p99_ms(payload.NO_OP):.0f}"
    loads: list[Row] = [
        (f"the dashboard's {name} of {LARGE_TUTORS:,} tutors, p99 ms", f"{loaded.p99_ms(path):.0f} ({no_op})", "50", "")
        for name, path in zip(("totals", "first page of the table", "standing alerts"), payload.PAGE, strict=True)
    ]
    report.add(loaded.lines(), *loads)
    idle = await sockets.measure(ground, 1000, TUTORS)
    report.add([idle.line()], (f"{idle.sockets:,} idle sockets, MiB", f"{idle.cost_mib:.0f}", "100", ""))
    version, shown = await dashboard.run(ground, LARGE_TUTORS, rate=50, seconds=30)
    what = f"event to changed figure on an open page of {LARGE_TUTORS:,} tutors, 50 ev/s, p95 seconds"
    report.add([f"Chromium {version}:", *shown.lines()], (what, f"{shown.p95_seconds:.2f}", "2", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="for throughput; 100,000 by default")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each rate of freshness; 15 by default")
    options = parser.parse_args()
    report = Report()
    with Ground() as ground:
        conditions = Conditions.now(ground.stack.description)
        print("\n".join(conditions.lines()), flush=True)
        asyncio.run(fresh(ground, report, options.seconds))
        asyncio.run(stream(ground, report, options.events))
        asyncio.run(product(ground, report, options.events, options.seconds))
        asyncio.run(lookup(ground, report, LOOKUP_SECONDS))
    command = f'make bench ARGS="--events {options.events} --seconds {options.seconds:g}"'
    PAGE.write_text(page(conditions, command, report.rows + large_rows(), report.details))
    generate.main()
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
