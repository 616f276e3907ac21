"""Latency of what the dashboard loads: `python -m benchmarks.payload [--tutors 10000] [--rate 10] [--seconds 30]`.

One worker that has nothing else to do is asked at a steady rate for the totals, the first page of the table and the alerts
that stand, one after the other, over a database with the rows of so many tutors, of whom two in five have an alert; beside
them, as often, the no-op `/livez`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import orjson
import psycopg

from benchmarks.conditions import Conditions
from benchmarks.freshness import quantile
from benchmarks.ground import Ground
from benchmarks.lookups import signed_in
from benchmarks.memory import ready
from models.alerts import WINDOW, AlertRaised, Announced
from models.metrics import utc_text
from tutormax_streams import topics

TOTALS, LIST, ALERTS = "/dashboard/analytics", "/tutors?sort=tutor_name&window=30day&limit=100", "/dashboard/alerts"
PAGE = (TOTALS, LIST, ALERTS)
NO_OP = "/livez"
TUTORS = """
INSERT INTO tutors (tutor_id, name, email, onboarding_date, status, subjects, created_at, updated_at)
SELECT 't' || n, 'Tutor ' || n, 't' || n || '@example.org', now(), 'ACTIVE', '{}', now(), now()
FROM generate_series(1, %s) AS n
"""
ROWS = """
INSERT INTO tutor_performance_metrics (metric_id, tutor_id, calculation_date, "window", sessions_completed, avg_rating,
    no_show_count, engagement_score, performance_tier, created_at, updated_at)
SELECT 'tms_m' || n || "window", 't' || n, now(), "window", n %% 40, 3 + n %% 3, n %% 4, 50 + n %% 50,
    (ARRAY['EXEMPLARY', 'STRONG', 'DEVELOPING', 'NEEDS_ATTENTION', 'AT_RISK'])[1 + n %% 5], now(), now()
FROM generate_series(1, %s) AS n, unnest(ARRAY['SEVEN_DAY', 'THIRTY_DAY', 'NINETY_DAY']) AS "window"
"""
ANNOUNCED = "INSERT INTO tutormax_streams.announced (tutor_id, payload) VALUES (%s, %s)"


def announced(number: int) -> tuple[str, bytes]:
    """What is stored of an alert that stands."""
    raised = AlertRaised(
        id=f"t{number}/alert.raised/1", sequence=1, tutor_id=f"t{number}", tutor_name=None, as_of=utc_text(number),
        window=WINDOW, figure="avg_rating_stars", severity="warning", old_severity=None, value=3.0, threshold=3.5,
    )  # fmt: skip
    said = Announced(tier="At Risk", levels={"avg_rating_stars": "warning"}, sequence=1, standing=(raised,))
    return raised.tutor_id, msgspec.json.encode(said)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Seconds of each answer by path, sorted, and the bytes of the largest."""

    tutors: int
    rate: int
    sizes: dict[str, int]
    seconds: dict[str, list[float]]

    def p99_ms(self, path: str) -> float:
        return quantile(self.seconds[path], 0.99) * 1000

    def lines(self) -> list[str]:
        lines = [f"what the dashboard loads of {self.tutors:,} tutors, {self.rate} times a second:"]
        for path, ordered in self.seconds.items():
            shares = ", ".join(f"p{share * 100:g} {quantile(ordered, share) * 1000:.1f}" for share in (0.5, 0.95, 0.99))
            counted = f"{len(ordered):,} requests, {self.sizes[path]:,} bytes"
            lines.append(f"  {path}: {shares}, max {ordered[-1] * 1000:.1f} ms over {counted}")
        return lines


async def measure(ground: Ground, tutors: int, rate: int, seconds: float) -> Loaded:
    """On a deployment of its own."""
    async with signed_in(ground) as (deployment, token):
        await topics.ensure(deployment.settings)
        with deployment.worker("stream", "sink") as worker:
            await ready(worker)
            # Only now: a worker refuses to start over rows that never went through it.
            async with await psycopg.AsyncConnection.connect(deployment.conninfo, autocommit=True) as connection:
                await connection.execute(TUTORS, [tutors])
                await connection.execute(ROWS, [tutors])
                await connection.cursor().executemany(
                    ANNOUNCED, [announced(n) for n in range(1, tutors + 1) if n % 5 < 2]
                )
                await connection.execute("ANALYZE")
            found: dict[str, list[float]] = {path: [] for path in (*PAGE, NO_OP)}
            sizes = dict.fromkeys(found, 0)
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
                began = time.perf_counter()
                for number in range(int(rate * seconds)):
                    await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
                    for path, times in found.items():
                        asked = time.perf_counter()
                        async with client.get(f"{worker.url}{path}") as response:
                            response.raise_for_status()
                            body = await response.read()
                        times.append(time.perf_counter() - asked)
                        sizes[path] = max(sizes[path], len(body))
                        if path != NO_OP:
                            _check(path, orjson.loads(body), tutors)
            return Loaded(tutors, rate, sizes, {path: sorted(times) for path, times in found.items()})


def _check(path: str, body: dict[str, Any], tutors: int) -> None:
    """RuntimeError where less was loaded than there is."""
    if path == TOTALS:
        counted, expected = body["active_tutors"], tutors
    elif path == LIST:
        counted, expected = len(body["tutors"]), min(tutors, 100)
    else:
        counted, expected = body["total"], sum(n % 5 < 2 for n in range(1, tutors + 1))
    if counted != expected:
        raise RuntimeError(f"{path} is of {counted}, not of {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tutors", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=10, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        found = asyncio.run(measure(ground, options.tutors, options.rate, options.seconds))
    print("\n".join(found.lines()))


if __name__ == "__main__":
    main()
