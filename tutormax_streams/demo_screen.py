"""What the demo puts on the terminal: bars while it loads, a live board after that, a summary at the end.

Nothing here waits, asks or counts time by itself; `demo` tells it what it found.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, Self

from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from models.metrics import WINDOW_DAYS
from tutormax_streams.demo_figures import TIERS, Scrape, Standing, quantile

LINE_EVERY_SECONDS: Final = 5.0  # where there is no terminal to draw on
FRESHNESS_SECONDS: Final = 60.0
RATE_SECONDS: Final = 5.0
LAST_TIERS: Final = 4  # of the way down
SPARKS: Final = "▁▂▃▄▅▆▇█"
STYLES: Final = dict(zip(TIERS, ("green", "cyan", "yellow", "dark_orange", "red"), strict=True))


class Loading:
    """Progress of the history: bars on a terminal, else a line every few seconds. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = 0.0
        self._bars = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(36),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]:<20}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._published = self._bars.add_task("published", total=1.0, figures="")
        self._rows = self._bars.add_task("rows right", total=1.0, figures="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, *, share: float, published: int, rows: int, expected: int) -> None:
        """`share` of the history that is published, in so many events; and how many of the rows expected are there."""
        figures = (f"{published:,} events", f"{rows:,} of {expected:,}")
        self._bars.update(self._published, completed=share, figures=figures[0])
        self._bars.update(self._rows, completed=share * rows / max(expected, 1), figures=figures[1])
        if not self._console.is_terminal and time.monotonic() - self._said >= LINE_EVERY_SECONDS:
            self._said = time.monotonic()
            self._console.print(f"  {figures[0]} published, {figures[1]} rows in PostgreSQL")


class Change(NamedTuple):
    """A tutor's tier in one window, before and after."""

    at: str
    tutor_id: str
    name: str
    window: str
    before: str
    after: str


@dataclass(slots=True)
class Board:
    """What was seen so far, as the live screen needs it."""

    loaded: int  # events of the history
    falling: str  # id of the tutor to keep an eye on
    links: Mapping[str, str]
    scrapes: deque[Scrape] = field(default_factory=lambda: deque(maxlen=120))
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=100))
    standings: Mapping[tuple[str, str], Standing] = field(default_factory=dict)
    fall: list[str] = field(default_factory=list)  # tiers that the falling tutor went through, seven-day window
    seconds: float = 0.0
    trouble: str | None = None

    def look(
        self, scrape: Scrape | None, standings: Mapping[tuple[str, str], Standing], at: str, seconds: float
    ) -> None:
        """Take in what was found at time of day `at`, `seconds` after the start."""
        self.seconds = seconds
        self.trouble = "the worker does not answer" if scrape is None else None
        if scrape is not None:
            self.scrapes.append(scrape)
        for (tutor_id, window), now in standings.items():
            before = self.standings.get((tutor_id, window))
            if before is not None and before.tier != now.tier:
                self.changes.appendleft(Change(at, tutor_id, now.name, window, before.tier, now.tier))
        self.standings = standings
        fallen = standings.get((self.falling, "7day"))
        if fallen is not None and (not self.fall or self.fall[-1] != fallen.tier):
            self.fall.append(fallen.tier)

    def line(self) -> str:
        """All of it in a line."""
        p50, p99 = seconds_text(self.freshness(0.5)), seconds_text(self.freshness(0.99))
        fall = " → ".join(self.fall) or "-"
        return (
            f"{int(self.seconds):>4} s: {self.live_events:,} live events, {self.rate():.1f}/s, freshness p50 {p50},"
            f" p99 {p99}; falling tutor: {fall}"
        )

    @property
    def live_events(self) -> int:
        return max(0, self.scrapes[-1].events - self.loaded) if self.scrapes else 0

    def rates(self) -> list[float]:
        """Events per second between one look and the next."""
        looks = list(self.scrapes)
        return [(b.events - a.events) / max(b.at - a.at, 0.001) for a, b in pairwise(looks)]

    def rate(self) -> float:
        """Events per second over the last few seconds."""
        earlier = self._since(RATE_SECONDS)
        if earlier is None or earlier is self.scrapes[-1]:
            return 0.0
        return (self.scrapes[-1].events - earlier.events) / (self.scrapes[-1].at - earlier.at)

    def freshness(self, share: float) -> float | None:
        """A quantile over the last minute, in seconds; None before anything was written."""
        earlier = self._since(FRESHNESS_SECONDS)
        return None if earlier is None else quantile(earlier, self.scrapes[-1], "tutormax_freshness", share)

    def tiers(self, window: str) -> Counter[str]:
        return Counter(standing.tier for (_, found), standing in self.standings.items() if found == window)

    def _since(self, seconds: float) -> Scrape | None:
        return next((look for look in self.scrapes if look.at >= self.scrapes[-1].at - seconds), None)


def live_screen(board: Board) -> RenderableType:
    """The whole live screen; changes of tier take the room that is left."""
    layout = Layout()
    layout.split_column(
        Layout(_head(board), size=1),
        Layout(name="figures", size=9),
        Layout(_panel("The falling tutor", _falling(board)), size=4),
        Layout(_panel("Last changes of tier", _changes(board)), name="changes"),
        Layout(_links(board), size=len(board.links) + 3),  # one that signs in needs several lines
    )
    layout["figures"].split_row(
        Layout(_panel("Stream", _stream(board)), size=38), Layout(_panel("Tutors per tier", _tiers(board)))
    )
    return layout


def seconds_text(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f} s"


def summarise(console: Console, title: str, lines: Iterable[tuple[str, str]]) -> None:
    """Names and figures under a title, a line each."""
    console.print(Text(title, style="bold"))
    for name, value in lines:
        console.print(Text.assemble("  ", (f"{name:<14}", "dim"), value), soft_wrap=True)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=Text(title, style="bold"), title_align="left", border_style="dim", padding=(0, 1))


def _head(board: Board) -> RenderableType:
    minutes, seconds = divmod(int(board.seconds), 60)
    row = Table.grid(expand=True)
    row.add_column()
    row.add_column(justify="right")
    state = Text("Kafka → Faust → PostgreSQL") if board.trouble is None else Text(board.trouble, style="bold red")
    row.add_row(
        Text.assemble((" tutormax-streams", "bold"), "  live: ", state),
        Text(f"{minutes:02d}:{seconds:02d}  Ctrl-C ends it ", style="dim"),
    )
    return row


def _stream(board: Board) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    last = board.scrapes[-1] if board.scrapes else None
    p50, p99 = board.freshness(0.5), board.freshness(0.99)
    table.add_row("events/s", Text.assemble((f"{board.rate():.1f}", "bold"), "  ", (_sparks(board.rates()), "cyan")))
    table.add_row("freshness", Text.assemble("p50 ", (seconds_text(p50), "bold"), " p99 ", (seconds_text(p99), "bold")))
    table.add_row("events", f"{board.loaded:,} + {board.live_events:,} live")
    if last is not None:
        rows = int(last.total("tutormax_rows_total"))
        table.add_row("rows", f"{rows:,}")
        table.add_row("metrics", f"{3 * int(last.total('tutormax_flushed_tutors_total')):,} rows")
        table.add_row("dead letters", f"{last.dead_letters:,}")
    table.add_row("tutors", f"{len({tutor for tutor, _ in board.standings}):,}")
    return table


def _sparks(rates: list[float], width: int = 12) -> str:
    shown = rates[-width:]
    top = max([*shown, 1.0])
    return "".join(SPARKS[min(len(SPARKS) - 1, int(rate / top * len(SPARKS)))] for rate in shown)


def _tiers(board: Board) -> RenderableType:
    counts = {window: board.tiers(window) for window in WINDOW_DAYS}
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    for _ in counts:
        table.add_column(justify="right", no_wrap=True, min_width=4)
    table.add_column(ratio=1)
    table.add_row("", *(Text(f"{days} d", style="dim") for days in WINDOW_DAYS.values()), "")
    most = max([*counts["30day"].values(), 1])
    for tier in TIERS:
        table.add_row(
            Text(tier, style=STYLES[tier]),
            *(f"{counts[window][tier]:,}" for window in counts),
            _Bar(counts["30day"][tier] / most, STYLES[tier]),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Bar:
    """A bar over `share` of the room it is given."""

    share: float
    style: str

    def __rich_console__(self, console: Console, options: object) -> Iterable[RenderableType]:
        width = getattr(options, "max_width", 20)
        eighths = round(self.share * width * 8)
        yield Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style=self.style)


def _falling(board: Board) -> RenderableType:
    standing = board.standings.get((board.falling, "7day"))
    if standing is None:
        return Text("not there yet", style="dim")
    way = Text(" → ", style="dim").join(Text(tier, style=f"bold {STYLES[tier]}") for tier in board.fall[-LAST_TIERS:])
    figures = (
        f"engagement {_figure(standing.engagement_score)} · rating {_figure(standing.avg_rating)}"
        f" · {standing.no_show_count} no-show{'' if standing.no_show_count == 1 else 's'}"
    )
    return Group(
        Text.assemble((standing.name, "bold"), ", last 7 days: ", way, overflow="ellipsis", no_wrap=True),
        Text(f"{board.falling}: {figures}", style="dim"),
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _changes(board: Board) -> RenderableType:
    if not board.changes:
        return Align.left(Text("none yet", style="dim"))
    table = Table.grid(padding=(0, 2))
    for change in list(board.changes)[:40]:
        table.add_row(
            Text(change.at, style="dim"),
            Text(change.name, style="bold" if change.tutor_id == board.falling else ""),
            Text(f"{WINDOW_DAYS[change.window]} days", style="dim"),
            Text.assemble((change.before, STYLES[change.before]), " → ", (change.after, STYLES[change.after])),
        )
    return table


def _links(board: Board) -> RenderableType:
    # As hyperlinks, too: what the screen breaks over two lines can still be clicked.
    return Text("\n").join(
        Text.assemble(" ", (f"{name} ", "dim"), (link, f"link {link}" if link.startswith("http") else ""))
        for name, link in board.links.items()
    )
