"""The demo's figures and its screen, from made-up looks at a worker and at the tables."""

from __future__ import annotations

import pytest
from rich.console import Console

from tutormax_streams.demo_figures import TIERS, Scrape, Standing, quantile
from tutormax_streams.demo_screen import Board, Loading, live_screen, summarise

BOUNDS = (0.1, 0.5, 1.0, float("inf"))


def scrape(at: float, events: int, counts: tuple[int, ...] = (0, 0, 0, 0)) -> Scrape:
    """`counts`: observations of freshness up to each of `BOUNDS`."""
    samples = {("tutormax_events_total", frozenset({("topic", "sessions"), ("fate", "accepted")})): float(events)}
    for bound, count in zip(BOUNDS, counts, strict=True):
        samples["tutormax_freshness_bucket", frozenset({("le", str(bound))})] = float(count)
    return Scrape(at, samples)


def standing(tier: str, name: str = "Ada") -> Standing:
    return Standing(name, tier, 71.5, 4.25, 2)


def drawn(board: Board, width: int, height: int) -> str:
    console = Console(width=width, height=height, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_screen(board))
    return console.export_text()


def board(loaded: int = 1000) -> Board:
    return Board(loaded, falling="t1", links={"health": "http://127.0.0.1:6066/readyz"})


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.25, 0.05),  # half way through the first bucket, which holds 50 of 100
        (0.5, 0.1),
        (0.7, 0.3),  # half way through the second, which holds 40
        (0.95, 0.75),
        (1.0, 1.0),
    ],
)
def test_a_quantile_lies_on_a_straight_line_inside_its_bucket(share: float, expected: float):
    assert quantile(scrape(0, 0), scrape(1, 0, (50, 90, 100, 100)), "tutormax_freshness", share) == pytest.approx(
        expected
    )


def test_a_quantile_is_of_what_came_between_two_looks():
    earlier, later = scrape(0, 0, (100, 100, 100, 100)), scrape(1, 0, (100, 100, 110, 110))
    assert quantile(earlier, later, "tutormax_freshness", 0.5) == pytest.approx(0.75)
    assert quantile(later, later, "tutormax_freshness", 0.5) is None


def test_beyond_the_last_bound_the_bound_is_all_that_is_known():
    assert quantile(scrape(0, 0), scrape(1, 0, (0, 0, 0, 7)), "tutormax_freshness", 0.5) == 1.0


def test_the_board_tells_rates_changes_and_the_fall():
    live = board()
    live.look(
        scrape(0, 1000), {("t1", "7day"): standing("Exemplary"), ("t2", "30day"): standing("Strong")}, "12:00:00", 0
    )
    live.look(scrape(2, 1050), {("t1", "7day"): standing("Strong"), ("t2", "30day"): standing("Strong")}, "12:00:02", 2)
    live.look(
        scrape(4, 1100), {("t1", "7day"): standing("At Risk"), ("t2", "30day"): standing("Strong")}, "12:00:04", 4
    )
    assert live.live_events == 100
    assert live.rate() == pytest.approx(25)
    assert live.fall == ["Exemplary", "Strong", "At Risk"]
    assert [(c.at, c.before, c.after) for c in live.changes] == [
        ("12:00:04", "Strong", "At Risk"),
        ("12:00:02", "Exemplary", "Strong"),
    ]
    assert live.tiers("7day") == {"At Risk": 1}
    assert "100 live events, 25.0/s" in live.line()


def test_freshness_is_that_of_the_last_minute():
    live = board()
    for second in range(0, 100, 5):
        slow = 100 * (second > 0)  # as a history is, that came before the first five seconds were over
        live.look(scrape(second, 1000, (second, second, second, second + slow)), {}, "12:00:00", second)
        assert (live.freshness(0.9) or 0) < 0.1 or second <= 60
    assert live.freshness(0.5) == pytest.approx(0.05)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (110, 34), (200, 60)])
def test_the_screen_fits_and_shows_every_tier(width: int, height: int):
    live = board()
    live.look(scrape(0, 1000), {}, "12:00:00", 0)
    live.look(
        scrape(1, 1020, (10, 20, 20, 20)),
        {(f"t{n}", window): standing(TIERS[n % 5]) for n in range(30) for window in ("7day", "30day", "90day")},
        "12:00:01",
        61,
    )
    text = drawn(live, width, height)
    lines = text.rstrip("\n").splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for words in (*TIERS, "events/s", "20.0", "p50 0.10 s", "The falling tutor", "Last changes", "01:01", "readyz"):
        assert words in text


def test_an_empty_board_and_a_silent_worker_can_be_drawn():
    live = board()
    assert "none yet" in drawn(live, 80, 24)
    live.look(None, {}, "12:00:00", 1)
    assert "the worker does not answer" in drawn(live, 80, 24)
    assert live.line()


def test_without_a_terminal_loading_says_a_line_now_and_then(capsys: pytest.CaptureFixture[str]):
    with Loading(Console()) as bars:
        for _ in range(100):
            bars.show(share=0.5, published=1234, rows=1000, expected=1200)
    assert capsys.readouterr().out.splitlines() == ["  1,234 events published, 1,000 of 1,200 rows in PostgreSQL"]


def test_a_summary_is_a_line_for_each_figure(capsys: pytest.CaptureFixture[str]):
    summarise(Console(width=40), "Right.", [("events", "x" * 100), ("audit", "no differences")])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["Right.", "events", "audit"]
