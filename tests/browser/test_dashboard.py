"""The page at /dashboard in a real browser, fed by a real worker on real servers."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from typing import Any

import pytest
from playwright.async_api import Browser, Route, expect

from tests.browser.conftest import MANY, TUTORS
from tests.browser.visits import PHONE, WIDE, Visit, visit
from tests.flow import users
from tests.flow.driver import Deployment, eventually
from tests.flow.test_lookups import ask
from tests.flow.users import STAFF, TUTOR, token
from tests.oracle import DAY_US
from tests.samples import feedback_payload, session_payload
from tutormax_streams.web.guard import COOKIE

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_ROWS = 500
PATIENCE_MS = 20_000  # of a machine that runs all tests at once
CHANGES = 20
MOST_SECONDS = 5.0  # a guard against rot; what is promised is measured by benchmarks/page.py
SPELLED = {
    "sessions_completed": ("Sessions completed", "{} sessions"),
    "avg_rating": ("Average rating", "{:.2f} stars"),
    "first_session_success_rate": ("First sessions rated 4 or 5", "{:.1f} %"),
    "reschedule_rate": ("Rescheduled by the tutor", "{:.1f} %"),
    "no_show_count": ("No-shows", "{} no-shows"),
    "engagement_score": ("Engagement", "{:.1f} %"),
    "learning_objectives_met_pct": ("Learning objectives met", "{:.1f} %"),
    "response_time_avg_minutes": ("Average response time", "{:.1f} min"),
}
MARKS = {"green": "✓ green", "red": "✗ red", None: ""}
FLAGS = {"green": "✓ green", "red": "✗ red", None: "(in between|no data)"}
OWN = "#/?search=Tutor+t"  # tutors of this module's events only
numbers = itertools.count()


async def session(ground: Deployment, tutor_id: str) -> None:
    now_us = time.time_ns() // 1000
    await ground.tell(("sessions", session_payload(f"new-{next(numbers)}", tutor_id, now_us - DAY_US, now_us)))


async def count(here: Visit, tutor_id: str) -> int:
    return int(await here.figure(tutor_id, "sessions_completed").inner_text())


async def warm(here: Visit, ground: Deployment) -> None:
    """Events until one shows: the feed begins when its first listener comes, and tells no history."""
    await here.live()
    before = await count(here, "t13")

    async def shows() -> bool:
        await session(ground, "t13")
        await asyncio.sleep(1.5)
        return await count(here, "t13") > before

    await eventually(shows)


# -- signing in -------------------------------------------------------------------------------------------------------


async def test_a_link_signs_in_and_leaves_no_token_in_the_address(browser: Browser, address: str):
    async with visit(browser, address, None) as here:
        await here.open(f"#token={token(STAFF)}")
        await expect(here.row("t5")).to_be_visible()
        assert here.page.url == f"{address}/dashboard#/"
        await expect(here.page.locator("#who")).to_have_text("Grace")
        (cookie,) = await here.page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        assert not any(token(STAFF)[:40] in url for url in here.requests), "a token in an address is in every log"


@pytest.mark.parametrize("page", ["dashboard", "operations"])
async def test_a_link_signs_in_where_the_page_is_open_already(browser: Browser, address: str, page: str):
    """Its fragment alone is new, so that the browser loads nothing."""
    async with visit(browser, address, None) as here:
        await here.page.goto(f"{address}/{page}")
        await expect(here.page.get_by_label("Access token")).to_be_visible()
        await here.page.goto(f"{address}/{page}#token={token(STAFF)}")
        await expect(here.page).to_have_url(f"{address}/{page}#/")
        await expect(here.page.locator("#who")).to_have_text("Grace")


async def test_the_form_refuses_a_wrong_token_in_words_and_takes_a_right_one(browser: Browser, address: str):
    async with visit(browser, address, None) as here:
        await here.open()
        field = here.page.get_by_label("Access token")
        await expect(field).to_be_focused()
        await field.fill("not.a.token")
        await here.page.keyboard.press("Enter")
        await expect(here.page.get_by_role("alert")).to_contain_text("This token is not accepted")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_be_focused()
        await field.fill(f"Bearer {token(STAFF)}")
        await here.page.get_by_role("button", name="Sign in").click()
        await expect(here.row("t5")).to_be_visible()
        await here.page.get_by_role("button", name="Sign out").click()
        await expect(here.page.get_by_label("Access token")).to_be_visible()
        assert await here.page.context.cookies() == []


async def test_staff_go_to_the_wall_and_back_and_tutors_see_no_way(browser: Browser, address: str):
    async with visit(browser, address) as here:
        await here.open()
        await here.live()
        await here.page.get_by_role("link", name="Operations").click()
        await expect(here.page.locator("#verdict-title")).to_have_text("All well")
        await expect(here.page.locator("#partitions li")).to_have_count(4)
        await here.page.get_by_role("link", name="Tutor performance").click()
        await here.live()
    async with visit(browser, address, TUTOR) as here:
        await here.open()
        await expect(here.page.locator("#tutor")).to_be_visible()
        await expect(here.page.locator("#operations")).to_be_hidden()


# -- the table --------------------------------------------------------------------------------------------------------


async def test_search_order_tier_and_window(browser: Browser, address: str):
    async with visit(browser, address) as here:
        await here.open()
        await here.live()
        rows = here.page.locator("#tutors tbody tr")
        await here.page.get_by_label("Search").fill("tutor T1")
        await expect(rows).to_have_count(5)  # t1, t10 to t13
        sessions = here.page.get_by_role("button", name="Sessions", exact=True)
        await sessions.click()
        await expect(rows.first).to_have_attribute("data-id", "t13")
        head = here.page.locator("th").filter(has=sessions)
        await expect(head).to_have_attribute("aria-sort", "descending")
        await sessions.click()
        await expect(rows.first).to_have_attribute("data-id", "t1")
        await here.page.get_by_label("Figures over").select_option("7day")
        await expect(here.figure("t12", "sessions_completed")).to_have_text("6")  # of 13, one each day
        await here.page.get_by_label("Search").fill("nobody at all")
        await expect(here.page.get_by_text("No tutor matches")).to_be_visible()
        await here.page.reload()
        await expect(here.page.get_by_label("Search")).to_have_value("nobody at all")


async def test_thousands_of_tutors_are_never_thousands_of_rows(browser: Browser, address: str):
    async with visit(browser, address) as here:
        await here.open()
        await here.live()
        rows, caption = here.page.locator("#tutors tr[data-id]"), here.page.locator("#tutors caption")
        most, last = 0, f"{TUTORS + MANY:,} tutors. "

        async def is_all_loaded() -> bool:
            nonlocal most
            await here.page.evaluate("scrollTo(0, document.body.scrollHeight)")
            most = max(most, await rows.count())
            return last in await caption.inner_text()

        await eventually(is_all_loaded, every=0.05)
        await expect(here.row("z999")).to_be_visible()  # by name the last
        await here.page.evaluate("scrollTo(0, 0)")
        await expect(here.row("t0")).to_be_in_viewport()
        most = max(most, await rows.count())
        assert 0 < most < MOST_ROWS, most
        assert await here.page.locator("#tutors table").get_attribute("aria-rowcount") == str(TUTORS + MANY + 1)


# -- live -------------------------------------------------------------------------------------------------------------


async def test_an_event_changes_the_figure_on_the_open_page_within_seconds(
    browser: Browser, address: str, ground: Deployment
):
    async with visit(browser, address) as here:
        await here.open(OWN)
        await warm(here, ground)
        await here.page.evaluate(
            """() => {
                window.seen = [];
                new MutationObserver((changes) => {
                    for (const { target } of changes) {
                        const cell = (target.nodeType === 1 ? target : target.parentElement)?.closest?.("td");
                        if (cell?.dataset.figure === "sessions_completed")
                            window.seen.push([cell.parentElement.dataset.id, Number(cell.textContent), Date.now(), cell.className]);
                    }
                }).observe(document.getElementById("tutors"), { childList: true, characterData: true, subtree: true });
            }"""
        )
        awaited = {f"t{n}": await count(here, f"t{n}") + 1 for n in range(10)}
        sent: dict[tuple[str, int], float] = {}
        for tutor_id in list(awaited) * (CHANGES // 10):
            sent[tutor_id, awaited[tutor_id]] = time.time()
            await session(ground, tutor_id)
            awaited[tutor_id] += 1

        shown: dict[tuple[str, int], float] = {}

        async def all_are_shown() -> bool:
            found = await here.page.evaluate("window.seen")
            assert all("lit" in name for *_, name in found), "what changed is lit up"
            shown.update({(tutor_id, sessions): at / 1000 for tutor_id, sessions, at, _ in found})
            return sent.keys() <= shown.keys()

        await eventually(all_are_shown)
        seconds = sorted(shown[key] - at for key, at in sent.items())
        p50, p95 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.95) - 1]
        print(f"event -> changed figure over {len(seconds)} events: p50 {p50:.2f} s, p95 {p95:.2f} s")
        assert p95 < MOST_SECONDS


async def test_the_chart_of_tiers_outlives_being_loaded_again(browser: Browser, address: str):
    async def late(route: Route) -> None:
        await asyncio.sleep(1.1)
        await route.continue_()

    async with visit(browser, address) as here:
        page = here.page
        await page.route("**/dashboard/analytics", late)
        await here.open("#/")
        chart = page.locator("#history")
        since = re.compile(r"^Line chart of tutors per tier since (\d\d:\d\d:\d\d): Exemplary \d")
        await expect(chart).to_have_attribute("aria-label", since, timeout=PATIENCE_MS)
        before = since.match(await chart.get_attribute("aria-label") or "")
        await page.evaluate("sessionStorage.setItem('other', 'x')")
        await asyncio.sleep(1.1)
        await page.reload()
        await expect(chart).to_have_attribute("aria-label", since, timeout=PATIENCE_MS)
        after = since.match(await chart.get_attribute("aria-label") or "")
        assert before is not None
        assert after is not None
        assert before[1] == after[1]
        await page.evaluate("sessionStorage.setItem('tutors-per-tier', '[[1],[2]]')")
        await page.reload()
        await expect(chart).to_have_attribute("aria-label", since, timeout=PATIENCE_MS)
        assert not here.errors, "what was kept may be anything"


async def test_an_alert_appears_is_told_and_leads_to_its_tutor(browser: Browser, address: str, ground: Deployment):
    async with visit(browser, address) as here:
        await here.open(OWN)
        panel = here.page.get_by_role("region", name="Alerts")
        await expect(panel).to_contain_text("No alerts since this page was opened")
        await warm(here, ground)
        now_us = time.time_ns() // 1000
        await ground.tell(*(("feedback", feedback_payload(f"low{n}", f"s9-{n}", "t9", 1, now_us)) for n in range(1, 5)))
        # Which figure it was raised with depends on how many of the four ratings its transaction saw.
        rating = re.compile(r"Rating [\d.]+ stars.*Critical")
        alert = panel.get_by_role("listitem").filter(has_text="Tutor t9").filter(has_text=rating)
        await expect(alert).to_be_visible(timeout=30_000)
        await expect(here.page.locator("[aria-live=polite]")).to_contain_text("Tutor t9", timeout=15_000)
        assert await here.violations() == []
        now_us = time.time_ns() // 1000
        high = (feedback_payload(f"low{n}", f"s9-{n}", "t9", 5, now_us) for n in range(1, 5))
        await ground.tell(*(("feedback", payload) for payload in high))
        await expect(alert.locator("s")).to_be_visible(timeout=30_000)
        await expect(panel.get_by_role("listitem").filter(has_text="Cleared")).to_have_count(1)
        await alert.click()
        await expect(here.page.get_by_role("heading", name="Tutor t9")).to_be_visible()
        assert await here.violations() == []


async def metrics(ground: Deployment) -> tuple[float, dict[str, float]]:
    """Events accepted so far, and how many rows were committed within how many seconds."""
    said = (await asyncio.to_thread(ground.workers[0].get, "/metrics") or b"").decode()
    accepted = re.findall(r'^tutormax_events_total\{fate="accepted(?:_with_warnings)?",.*\} (\S+)$', said, re.MULTILINE)
    within = re.findall(r'^tutormax_freshness_bucket\{le="(\S+)"\} (\S+)$', said, re.MULTILINE)
    assert accepted
    assert within
    return sum(map(float, accepted)), {bound: float(count) for bound, count in within}


async def test_the_tiles_of_freshness_and_throughput_show_what_the_worker_counts(
    browser: Browser, address: str, ground: Deployment
):
    """Many events of one tutor, of which few rows come."""
    before, rows_before = await metrics(ground)
    for _ in range(3):
        now_us = time.time_ns() // 1000
        names = [f"tile-{next(numbers)}" for _ in range(20)]
        await ground.tell(*(("sessions", session_payload(id_, "t11", now_us - DAY_US, now_us)) for id_ in names))
    await ground.quiet()
    after, rows_after = await metrics(ground)
    assert after - before >= 60
    assert 0 < rows_after["+Inf"] - rows_before["+Inf"] < 30, "else it is not shown that events are counted"
    async with visit(browser, address) as here:
        async with here.page.expect_response("**/operations/state") as asked:
            await here.open(OWN)
        state = await (await asked.value).json()
        minute = state["freshness"]["last_minute"]
        tiles = here.page.locator("#totals > div")
        freshness = tiles.filter(has=here.page.get_by_text("Event to row, median", exact=True)).locator("dd")
        throughput = tiles.filter(has=here.page.get_by_text("Events a second", exact=True)).locator("dd")
        await expect(freshness).to_have_text(re.compile(r"^\d+\.\d s, last minute$"))
        assert abs(float((await freshness.inner_text()).split()[0]) - minute["p50_seconds"]) <= 0.05 + 1e-9
        await expect(throughput).to_have_text(re.compile(r"^\d+\.\d last minute$"))
        told = minute["events"] / minute["period_seconds"]
        assert abs(float((await throughput.inner_text()).split()[0]) - told) <= 0.05 + 1e-9
        assert 0 < minute["period_seconds"] <= 60
        assert 60 <= minute["events"] <= after
        (own,) = state["workers"]
        counted = {str(bound or "+Inf"): count for bound, count in own["freshness"]["last_minute"]["buckets"]}
        for bound, count in rows_after.items():
            assert count - rows_before[bound] <= counted[bound] <= count, bound
        half = next(float(bound) for bound, count in counted.items() if count >= counted["+Inf"] / 2)
        assert half / 3 <= minute["p50_seconds"] <= half, "in the bucket that holds half of them"


# -- a tutor's page and who may see it --------------------------------------------------------------------------------


def in_words(value: float | None, spelled: str) -> str:
    """A figure as the page spells it."""
    text = "no data" if value is None else spelled.format(value)
    return text.removesuffix("s") if value == 1 else text


async def unlike_windows(ground: Deployment, tutor_id: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Events that make a tutor's windows differ in figures and marks: what /performance then says of each, and in all."""
    now_us = time.time_ns() // 1000
    missed, moved = now_us - 20 * DAY_US, now_us - 60 * DAY_US
    await ground.tell(
        ("sessions", session_payload("missed", tutor_id, missed, missed, no_show=True)),
        *(
            ("sessions", session_payload(f"moved-{n}", tutor_id, moved, moved, tutor_initiated_reschedule=True))
            for n in range(3)
        ),
    )
    while True:
        status, told = await asyncio.to_thread(ask, ground.workers[0], f"/tutors/{tutor_id}/performance")
        assert status == 200
        week, month, quarter = windows = [told["windows"][name] for name in ("7day", "30day", "90day")]
        all_moved = quarter["sessions_completed"] == month["sessions_completed"] + 3
        if all_moved and week["no_show_count"] < month["no_show_count"]:
            return windows, told
        await asyncio.sleep(0.2)


async def test_a_tutors_page_has_three_windows_a_trend_and_reasons(browser: Browser, address: str, ground: Deployment):
    users.predict(ground.database, "t12", 45, "MEDIUM")
    windows, told = await unlike_windows(ground, "t12")
    async with visit(browser, address) as here:
        await here.open("#/tutor/t12")
        page = here.page
        figures = page.get_by_role("table", name="Figures over the last 7, 30 and 90 days")
        await expect(figures.get_by_role("columnheader")).to_have_text(["Figure", "7 days", "30 days", "90 days"])
        await expect(page.get_by_text("churn risk medium, 45 of 100 (2 Nov)")).to_be_visible()
        for name, (label, spelled) in SPELLED.items():
            flags = [next((one["flag"] for one in w["flags"] if one["figure"] == name), None) for w in windows]
            cells = [in_words(window[name], spelled) + MARKS[flag] for window, flag in zip(windows, flags, strict=True)]
            line = figures.get_by_role("row").filter(has=page.get_by_role("rowheader", name=label, exact=True))
            await expect(line.get_by_role("cell")).to_have_text(cells)
        tiers = [re.compile(f"{window['performance_tier']}$") for window in windows]
        await expect(figures.get_by_role("row", name="Tier").get_by_role("cell")).to_have_text(tiers)
        flags = [one["flag"] for one in windows[1]["flags"]]
        assert {"green", "red", None} == set(flags), "else nothing is shown"
        reasons = page.get_by_role("region", name="Why this tier")
        counted = f"{flags.count('green')} green, {flags.count('red')} red over 30 days: {told['performance_tier']} "
        await expect(reasons).to_contain_text(counted)
        items = [re.compile(f"^{SPELLED[one['figure']][0]}.*{FLAGS[one['flag']]}") for one in windows[1]["flags"]]
        await expect(reasons.get_by_role("listitem")).to_have_text(items)
        sessions = page.get_by_role("table", name="Sessions, the newest first")
        await expect(sessions.get_by_role("row")).not_to_have_count(0)
        trends = page.get_by_role("region", name="Trend of the last 30 days")
        await expect(trends.get_by_role("img")).not_to_have_count(0)
        assert await trends.locator("canvas").count() >= 6
        await page.get_by_role("link", name="All tutors").click()
        await expect(here.row("t5")).to_be_visible()


async def test_a_tutor_sees_its_own_page_and_nothing_of_others(browser: Browser, address: str):
    async with visit(browser, address, TUTOR) as here:
        await here.open()
        await expect(here.page.get_by_role("heading", name="Tutor t3")).to_be_visible()
        await expect(here.page.locator("#overview")).to_be_hidden()
        await expect(here.page.get_by_role("link", name="All tutors")).to_have_count(0)
        await here.open("#/tutor/t4")
        await expect(here.page.get_by_text("You may not see this")).to_be_visible()
        await expect(here.page.locator("#tutor")).not_to_contain_text("Tutor t4")
        asked = {url.removeprefix(address).partition("?")[0] for url in here.requests}
        assert asked.isdisjoint({"/tutors", "/dashboard/analytics", "/events", "/operations/state"}), asked


async def test_unknown_tutors_and_a_worker_that_fails_are_said_in_words(browser: Browser, address: str):
    async with visit(browser, address) as here:
        await here.page.route("**/tutors?*", lambda route: route.fulfill(status=503, json={"error": "no database"}))
        await here.open()
        await expect(here.page.get_by_text("The server says: no database")).to_be_visible()
        await here.page.unroute("**/tutors?*")
        await here.page.get_by_role("button", name="Try now").click()
        await expect(here.row("t5")).to_be_visible()
        await here.open("#/tutor/nobody")
        # Figures, trends and sessions are asked for at once, and only the first says so in the end.
        await expect(here.page.get_by_text("Not found", exact=True).filter(visible=True)).to_have_count(1)
        here.errors = [text for text in here.errors if not any(status in text for status in ("503 (", "404 ("))]


# -- for everyone -----------------------------------------------------------------------------------------------------


async def test_the_keyboard_is_enough(browser: Browser, address: str):
    async with visit(browser, address) as here:
        await here.open(OWN)
        await here.live()
        page = here.page

        async def tab_to(what: str) -> None:
            for _ in range(60):
                await page.keyboard.press("Tab")
                await is_seen()
                if await page.evaluate("(what) => document.activeElement?.matches(what)", what):
                    return
            raise AssertionError(f"sixty times Tab do not reach {what}")

        async def is_seen() -> None:
            """Whatever has the keyboard is on the screen, with a line around it."""
            name, width, line, top, bottom = await page.evaluate(
                """() => {
                    const who = document.activeElement, style = getComputedStyle(who), box = who.getBoundingClientRect();
                    const width = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
                    return [who.outerHTML.slice(0, 120), width, style.outlineColor, box.top, box.bottom];
                }"""
            )
            assert width >= 2, f"no line around {name}"
            assert not re.fullmatch(r"transparent|rgba\(.*, 0\)", line), f"a line that nobody sees around {name}"
            assert bottom > 0, f"{name} is above the screen"
            assert top < WIDE[1], f"{name} is below the screen"

        await tab_to(".skip")
        await tab_to(".tier-row")
        await page.keyboard.press("Space")
        await expect(page.locator(".tier-row:focus")).to_have_attribute("aria-pressed", "true")
        await page.keyboard.press("Space")
        await expect(page.locator(".tier-row:focus")).to_have_attribute("aria-pressed", "false")
        await tab_to("#search")
        await tab_to("th button")
        await page.keyboard.press("Enter")
        await expect(page.locator("th:focus-within")).to_have_attribute("aria-sort", re.compile("ending$"))
        await expect(here.row("t1")).to_be_visible()
        await tab_to('tr[data-id="t1"] a')
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Tutor t1", exact=True)).to_be_focused()
        await page.keyboard.press("Shift+Tab")
        await is_seen()
        await page.keyboard.press("Escape")
        await expect(here.row("t1").get_by_role("link")).to_be_focused()
        await is_seen()
        await page.keyboard.press("Enter")
        await expect(page.locator("#tutor")).to_be_visible()
        await page.go_back()
        await expect(here.row("t1").get_by_role("link")).to_be_focused()
        await is_seen()


@pytest.mark.parametrize(
    ("user_id", "fragment", "sign"),
    [
        pytest.param(None, "#/", "#token", id="signed-out"),
        pytest.param(STAFF, OWN, "#tutors tr[data-id=t5]", id="staff"),
        pytest.param(STAFF, "#/tutor/t12", "#tutor canvas", id="tutor-page"),
        pytest.param(TUTOR, "#/", "#tutor canvas", id="tutor"),
    ],
)
async def test_axe_finds_nothing(browser: Browser, address: str, user_id: int | None, fragment: str, sign: str):
    async with visit(browser, address, user_id) as here:
        await here.open(fragment)
        await expect(here.page.locator(sign).first).to_be_visible()
        for (width, height), theme in itertools.product((WIDE, PHONE), ("light", "dark")):
            await here.page.set_viewport_size({"width": width, "height": height})
            await here.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
            await expect(here.page.locator(":root")).to_have_attribute("data-theme", theme)
            assert await here.violations() == [], (width, theme)
            wider = await here.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, f"{wider} px beyond a screen of {width}"
