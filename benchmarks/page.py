"""The page at /dashboard under load: `python -m benchmarks.page [--tutors 10000] [--rate 50] [--seconds 60]`.

A real worker holds all the tutors; sessions arrive at a steady rate, half of them of tutors that the open page shows. The
page is open in a real Chromium and scrolled through all of them first. Two things are measured in it:

- event -> changed figure: from just before the session is handed to the producer until the cell has another text;
- whether the page ever hangs: tasks of its main thread beyond 50 ms (Long Tasks API), as the share of seconds without one,
  and the time between frames.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from playwright.async_api import Page, expect

from benchmarks.conditions import Conditions
from benchmarks.freshness import quantile, session_payload, tutor_id, tutor_payload
from benchmarks.ground import Deployment, Ground
from benchmarks.lookups import signed_in
from benchmarks.memory import ready
from tests.browser.chromium import launched
from tutormax_streams import kafka, topics
from tutormax_streams.topics import Topics

LONG_MS = 50
SEEN = 50  # tutors of the page's first rows, which half of all sessions are of
LOAD_SECONDS = 300.0
WAIT_MS = 60_000
SETTLE_SECONDS = 10.0

WATCH = """() => {
    const found = (window.found = { changes: [], tasks: [], frames: [], began: performance.now() });
    new PerformanceObserver((list) => {
        for (const { startTime, duration } of list.getEntries()) found.tasks.push([startTime, duration]);
    }).observe({ type: "longtask" });
    new MutationObserver((changes) => {
        const at = Date.now();
        for (const { target } of changes) {
            const cell = (target.nodeType === 1 ? target : target.parentElement)?.closest?.("td");
            if (cell?.dataset.figure === "sessions_completed")
                found.changes.push([cell.parentElement.dataset.id, Number(cell.textContent), at]);
        }
    }).observe(document.getElementById("tutors"), { childList: true, characterData: true, subtree: true });
    let last = performance.now();
    const frame = (now) => {
        found.frames.push(now - last);
        last = now;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
}"""


@dataclass(frozen=True, slots=True)
class Found:
    """What the page did. Latencies in seconds, the rest in milliseconds."""

    latencies: list[float]
    unseen: int  # changes of shown tutors that never came, or that a later one overtook
    tasks: list[tuple[float, float]]  # beyond 50 ms: when, how long
    frames: list[float]
    seconds: float
    loaded: int  # tutors in the page
    rows: int  # in the document, at most

    @property
    def p95_seconds(self) -> float:
        return quantile(sorted(self.latencies), 0.95)

    def lines(self) -> list[str]:
        hung = Counter(int(at // 1000) for at, _ in self.tasks)
        worst = max((length for _, length in self.tasks), default=0.0)
        quiet = 1 - len(hung) / self.seconds
        ordered, frames = sorted(self.latencies), sorted(self.frames)
        parts = ", ".join(f"p{share * 100:g} {quantile(ordered, share):.2f}" for share in (0.5, 0.95, 0.99))
        paint = ", ".join(f"p{share * 100:g} {quantile(frames, share):.0f}" for share in (0.5, 0.95, 0.99))
        return [
            f"  event to changed figure: {parts}, max {ordered[-1]:.2f} s over {len(ordered):,} events (floor: p95 2 s)",
            f"  not seen, or overtaken by the next event of the same tutor: {self.unseen}",
            f"  tasks over {LONG_MS} ms: {len(self.tasks)}, the longest {worst:.0f} ms",
            f"  seconds without such a task: {quiet:.1%} (floor: 95 %)",
            f"  between frames: {paint}, max {frames[-1]:.0f} ms over {len(frames):,} frames",
            f"  {self.loaded:,} tutors loaded, at most {self.rows} rows in the document (floor: 500)",
        ]


async def _history(deployment: Deployment, tutors: int) -> None:
    names = Topics.of(deployment.settings)
    async with kafka.producer(deployment.settings) as producer:
        for number in range(tutors):
            await producer.send(names.raw("tutors"), tutor_payload(number, datetime.now(UTC)))
            await producer.send(names.raw("sessions"), session_payload(number, 0, datetime.now(UTC)))
        await producer.flush()


async def _committed(conninfo: str, tutors: int) -> None:
    """Wait until every tutor has a row with its session. TimeoutError after `LOAD_SECONDS`."""
    async with (
        asyncio.timeout(LOAD_SECONDS),
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection,
    ):
        while True:
            found = await connection.execute(
                """SELECT count(*) FROM tutor_performance_metrics
                WHERE "window" = 'THIRTY_DAY' AND sessions_completed = 1"""
            )
            if await found.fetchone() == (tutors,):
                return
            await asyncio.sleep(1.0)


async def _scrolled_through(page: Page, tutors: int) -> tuple[int, int]:
    """Down to the last tutor and back up: tutors loaded, and the most rows that were in the document."""
    caption, most = page.locator("#tutors caption"), 0
    async with asyncio.timeout(LOAD_SECONDS):
        while f"{tutors:,} tutors. " not in await caption.inner_text():
            await page.evaluate("scrollTo(0, document.body.scrollHeight)")
            most = max(most, await page.locator("#tutors tr[data-id]").count())
    await page.evaluate("scrollTo(0, 0)")
    return tutors, most


async def _first_rows(page: Page) -> list[str]:
    ids: list[str] = await page.locator("#tutors tr[data-id]").evaluate_all(
        "(rows) => rows.map((row) => row.dataset.id)"
    )
    return ids


async def _measured(deployment: Deployment, page: Page, tutors: int, rate: int, seconds: float) -> Found:
    loaded, rows = await _scrolled_through(page, tutors)
    await expect(page.locator("#tutors tr[data-id]").first).to_be_in_viewport(timeout=WAIT_MS)
    shown = (await _first_rows(page))[:SEEN]
    number_of = {tutor_id(number): number for number in range(tutors)}
    names = Topics.of(deployment.settings)
    sessions = Counter(dict.fromkeys(number_of, 1))
    sent: dict[tuple[str, int], float] = {}
    async with kafka.producer(deployment.settings) as producer:

        async def tell(count: int, measured: bool) -> None:
            began = time.monotonic()
            for event in range(count):
                # Steps that are coprime to both, so that a tutor returns as late as it can.
                who = shown[event // 2 * 7 % len(shown)] if event % 2 else tutor_id(event * 7919 % tutors)
                sessions[who] += 1
                if measured and event % 2:
                    sent[who, sessions[who]] = time.time()
                value = session_payload(number_of[who], sessions[who], datetime.now(UTC))
                await producer.send(names.raw("sessions"), value)
                await asyncio.sleep(max(0.0, began + (event + 1) / rate - time.monotonic()))

        await tell(int(rate * SETTLE_SECONDS), measured=False)  # the feed begins when its first listener comes
        await page.evaluate(WATCH)
        await tell(int(rate * seconds), measured=True)
        found: dict[str, Any] = await page.evaluate("() => ({ ...found, ended: performance.now() })")
        await asyncio.sleep(SETTLE_SECONDS)
        changes: list[tuple[str, int, float]] = await page.evaluate("found.changes")
    at = {(who, count): when / 1000 for who, count, when in changes}
    return Found(
        latencies=[at[key] - when for key, when in sent.items() if key in at],
        unseen=sum(key not in at for key in sent),
        tasks=[(start, length) for start, length in found["tasks"] if start >= found["began"]],
        frames=found["frames"],
        seconds=(found["ended"] - found["began"]) / 1000,
        loaded=loaded,
        rows=max(rows, await page.locator("#tutors tr[data-id]").count()),
    )


async def run(ground: Ground, tutors: int, rate: int, seconds: float) -> tuple[str, Found]:
    """The browser's name and what was found, on a fresh deployment with one worker and one user."""
    async with signed_in(ground) as (deployment, token):
        await topics.ensure(deployment.settings)
        await _history(deployment, tutors)
        with deployment.worker("stream", "sink") as worker:
            await ready(worker)
            await _committed(deployment.conninfo, tutors)
            async with launched() as browser:
                page = await browser.new_page(viewport={"width": 1440, "height": 900})
                await page.goto(f"{worker.url}/dashboard#token={token}")
                await expect(page.locator("#tutors tr[data-id]").first).to_be_visible(timeout=WAIT_MS)
                return browser.version, await _measured(deployment, page, tutors, rate, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tutors", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=50, help="sessions per second, each of which changes a tutor")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with Ground() as ground:
        print("\n".join(Conditions.now(ground.stack.description).lines()), flush=True)
        version, found = asyncio.run(run(ground, options.tutors, options.rate, options.seconds))
    print(f"Chromium {version}, 1440 x 900, without a graphics card, on the same processors as all of the above")
    print(f"dashboard of {options.tutors:,} tutors at {options.rate} changes/s for {options.seconds:g} s:")
    print("\n".join(found.lines()))


if __name__ == "__main__":
    main()
