"""Latency of the dashboard's totals: `python -m benchmarks.payload [--tutors 10000] [--rate 10] [--seconds 30]`.

One worker that has nothing else to do is asked `/dashboard/analytics` at a steady rate, over a database with the rows of
so many tutors; beside it, as often, the no-op `/livez`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass

import aiohttp
import orjson
import psycopg

from benchmarks.conditions import Conditions
from benchmarks.freshness import quantile
from benchmarks.ground import Ground
from benchmarks.lookups import signed_in
from benchmarks.memory import ready
from tutormax_streams import topics

TOTALS, NO_OP = "/dashboard/analytics", "/livez"
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


@dataclass(frozen=True, slots=True)
class Totals:
    """Seconds of each answer by path, sorted; `size` of the payload in bytes."""

    tutors: int
    rate: int
    size: int
    seconds: dict[str, list[float]]

    def p99_ms(self, path: str = TOTALS) -> float:
        return quantile(self.seconds[path], 0.99) * 1000

    def lines(self) -> list[str]:
        lines = [f"totals of {self.tutors:,} tutors, {self.size:,} bytes, at {self.rate} requests/s:"]
        for path, ordered in self.seconds.items():
            shares = ", ".join(f"p{share * 100:g} {quantile(ordered, share) * 1000:.1f}" for share in (0.5, 0.95, 0.99))
            lines.append(f"  {path}: {shares}, max {ordered[-1] * 1000:.1f} ms over {len(ordered):,} requests")
        return lines


async def measure(ground: Ground, tutors: int, rate: int, seconds: float) -> Totals:
    """On a deployment of its own."""
    async with signed_in(ground) as (deployment, token):
        await topics.ensure(deployment.settings)
        with deployment.worker("stream", "sink") as worker:
            await ready(worker)
            # Only now: a worker refuses to start over rows that never went through it.
            async with await psycopg.AsyncConnection.connect(deployment.conninfo, autocommit=True) as connection:
                await connection.execute(TUTORS, [tutors])
                await connection.execute(ROWS, [tutors])
                await connection.execute("ANALYZE")
            found: dict[str, list[float]] = {TOTALS: [], NO_OP: []}
            size = 0
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
                        if path == TOTALS and (counted := orjson.loads(body)["active_tutors"]) != tutors:
                            raise RuntimeError(f"the totals are of {counted} tutors, not of {tutors}")
                        size = max(size, len(body))
            return Totals(tutors, rate, size, {path: sorted(times) for path, times in found.items()})


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
