"""All benchmarks in their short form: `python -m benchmarks [--events 60000] [--seconds 15]`, or `make bench`.

Prints what each prints, and writes docs/benchmarks.md, of which the README quotes the table.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from benchmarks import freshness, throughput
from benchmarks.conditions import Conditions
from benchmarks.ground import Ground
from docs import generate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
RATES = [50, 200, 1000]


def page(conditions: Conditions, command: str, rows: list[tuple[str, str, str, str]], details: list[str]) -> str:
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
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000, help="for throughput; 60,000 by default")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each rate of freshness; 15 by default")
    options = parser.parse_args()
    rows: list[tuple[str, str, str, str]] = []
    details: list[str] = []
    with Ground() as ground:
        conditions = Conditions.now(ground.stack.description)
        print("\n".join(conditions.lines()), flush=True)
        for roles, floor, aim in ((("stream",), "15,000", "30,000"), (("stream", "sink"), "8,000", "15,000")):
            figures = asyncio.run(throughput.measure(ground, roles, options.events))
            print("\n".join(figures.lines()), flush=True)
            details += figures.lines()
            speed = f"{figures.events_per_cpu_second:,.0f}"
            rows.append((f"{figures.roles}: events per worker CPU second", speed, floor, aim))
        found, peak = asyncio.run(freshness.run(ground, RATES, options.seconds, 300))
        for latencies in found:
            print(latencies.line(), flush=True)
            details.append(latencies.line())
            limits = ("p50 1.5, p99 5", "p50 0.5, p99 2") if latencies.rate == 200 else ("", "")
            name = f"event to committed row at {latencies.rate:,} ev/s, seconds"
            rows.append((name, freshness.described(latencies.seconds), *limits))
        details.append(f"peak RSS of a stream + sink worker, 300 tutors, live: {peak:.0f} MiB")
        rows.append(("peak RSS of a stream + sink worker, 300 tutors, MiB", f"{peak:.0f}", "120", "90"))
    command = f'make bench ARGS="--events {options.events} --seconds {options.seconds:g}"'
    PAGE.write_text(page(conditions, command, rows, details))
    generate.main()
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
