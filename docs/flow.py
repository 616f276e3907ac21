"""Draws docs/flow.svg and docs/flow-dark.svg, the picture of the flow in the README: `python docs/flow.py`.

One drawing in two palettes: a page chooses by its own theme, which an SVG inside an <img> cannot ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

HERE: Final = Path(__file__).parent
WIDTH, HEIGHT = 1086, 416

LIGHT: Final = {
    "ink": "#1f2328",
    "faint": "#59636e",
    "line": "#6e7781",
    "app": "#f6f8fa",
    "edge": "#d1d9e0",
    "agent": "#ddf4ff",
    "agent_edge": "#0969da",
    "topic": "#fff8c5",
    "topic_edge": "#9a6700",
    "store": "#dafbe1",
    "store_edge": "#1a7f37",
    "letter": "#ffebe9",
    "letter_edge": "#cf222e",
}
DARK: Final = {
    "ink": "#f0f6fc",
    "faint": "#9198a1",
    "line": "#848d97",
    "app": "#151b23",
    "edge": "#3d444d",
    "agent": "#0c2d53",
    "agent_edge": "#4493f8",
    "topic": "#3a2d06",
    "topic_edge": "#d29922",
    "store": "#0f3a1d",
    "store_edge": "#3fb950",
    "letter": "#4b1113",
    "letter_edge": "#f85149",
}
THEMES: Final = {"flow.svg": LIGHT, "flow-dark.svg": DARK}

TOP, LOW = 120, 284  # the two rows: metrics above, rows of entities below


class Drawing:
    """Collects the elements of an SVG."""

    def __init__(self, palette: Mapping[str, str]) -> None:
        self._palette = palette
        self._elements: list[str] = []

    def text(self, x: float, y: float, words: str, *, size: int = 14, ink: str = "ink", bold: bool = False) -> None:
        weight = ' font-weight="600"' if bold else ""
        fill = self._palette[ink]
        self._elements.append(f'<text x="{x}" y="{y}" font-size="{size}" fill="{fill}"{weight}>{escape(words)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, *, radius: float = 8) -> None:
        edge = self._palette["edge" if kind == "app" else f"{kind}_edge"]
        self._elements.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" '
            f'fill="{self._palette[kind]}" stroke="{edge}"/>'
        )

    def app(self, x: float, y: float, width: float, height: float, name: str, duty: str) -> None:
        """A Faust app: what stands in it runs in one consumer group."""
        self.box(x, y, width, height, "app", radius=12)
        self.text(x + width / 2, y + 22, name, bold=True)
        self.text(x + width / 2, y + 40, duty, size=13, ink="faint")

    def agent(self, x: float, y: float, name: str, duty: str) -> None:
        """A step of the flow, centred on `x`, `y`."""
        self.box(x - 52, y - 26, 104, 52, "agent")
        self.text(x, y - 3, name, size=15, bold=True)
        self.text(x, y + 15, duty, size=12, ink="faint")

    def topic(
        self,
        x: float,
        y: float,
        name: str,
        *,
        width: float = 84,
        kind: str = "topic",
        over: tuple[tuple[float, float], tuple[float, float]] | None = None,
    ) -> None:
        """A Kafka topic, on the arrow `over` if there is one."""
        if over is not None:
            self.arrow(*over)
        self.box(x - width / 2, y - 13, width, 26, kind, radius=13)
        self.text(x, y + 4.5, name)

    def store(self, x: float, y: float, width: float, lines: list[str]) -> None:
        """A table: a drum with its name and what is in it."""
        height, lid = 22 + 17 * len(lines), 7
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        fill, edge = self._palette["store"], self._palette["store_edge"]
        arc = f"A {width / 2} {lid} 0 0"
        drum = f"M {left} {top} L {left} {bottom} {arc} 0 {right} {bottom} L {right} {top} {arc} 0 {left} {top} Z"
        self._elements += [
            f'<path d="{drum}" fill="{fill}" stroke="{edge}"/>',
            f'<path d="M {left} {top} {arc} 0 {right} {top}" fill="none" stroke="{edge}"/>',
        ]
        for number, line in enumerate(lines):
            self.text(x, top + lid + 17 + 17 * number, line, size=13)

    def arrow(self, *points: tuple[float, float], both: bool = False) -> None:
        path = " L ".join(f"{x} {y}" for x, y in points)
        start = ' marker-start="url(#head)"' if both else ""
        self._elements.append(
            f'<path d="M {path}" fill="none" stroke="{self._palette["line"]}" stroke-width="1.5"{start} '
            'marker-end="url(#head)"/>'
        )

    def svg(self) -> str:
        return _SVG.format(line=self._palette["line"], elements="\n".join(self._elements))


_SVG: Final = f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"
  text-anchor="middle" font-family="-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif">
<title>Raw topics go through validate, enrich and aggregate; persist and flush write PostgreSQL.</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
  orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 Z" fill="{{line}}"/></marker></defs>
{{elements}}
</svg>
"""


def picture(palette: Mapping[str, str]) -> str:
    """The SVG in one palette."""
    drawing = Drawing(palette)
    drawing.app(146, 14, 534, 332, "stream", "holds the tables; needs Kafka only")
    drawing.app(746, 14, 132, 332, "sink", "writes PostgreSQL")

    for number, name in enumerate(("tutors", "sessions", "feedback", "tutor-events")):
        drawing.topic(64, TOP - 51 + 34 * number, name, width=108)
    drawing.text(64, TOP + 88, "raw topics:", ink="faint")
    drawing.text(64, TOP + 105, "any client,", ink="faint")
    drawing.text(64, TOP + 122, "any key, any order", ink="faint")

    validate, enrich, aggregate, sink = 214, 434, 614, 812
    drawing.arrow((120, TOP), (160, TOP))
    drawing.agent(validate, TOP, "validate", "a fate for each")
    drawing.topic((validate + enrich) / 2, TOP, "validated", over=((validate + 52, TOP), (enrich - 54, TOP)))
    drawing.agent(enrich, TOP, "enrich", "winner by home")
    drawing.topic((enrich + aggregate) / 2, TOP, "facts", over=((enrich + 52, TOP), (aggregate - 54, TOP)), width=46)
    drawing.agent(aggregate, TOP, "aggregate", "windows by tutor")
    drawing.topic((aggregate + sink) / 2, TOP, "metrics", over=((aggregate + 52, TOP), (sink - 54, TOP)), width=62)
    drawing.agent(sink, TOP, "flush", "3 rows a tutor")
    drawing.arrow((sink + 52, TOP), (910, TOP))

    drawing.store(enrich + 14, 216, 84, ["entities"])
    drawing.arrow((enrich + 14, TOP + 29), (enrich + 14, 194), both=True)
    drawing.store(aggregate, 216, 108, ["tutor_windows"])
    drawing.arrow((aggregate, TOP + 29), (aggregate, 194), both=True)

    drawing.arrow((enrich - 38, TOP + 26), (enrich - 38, LOW), (sink - 54, LOW))
    drawing.topic((enrich + aggregate) / 2, LOW, "enriched")
    drawing.agent(sink, LOW, "persist", "rows of entities")
    drawing.arrow((sink + 52, LOW), (910, LOW))

    drawing.arrow((validate, TOP + 26), (validate, 374))
    drawing.topic(validate, 390, "dead-letter", width=100, kind="letter")
    drawing.arrow((sink, LOW + 26), (sink, 374))
    drawing.topic(sink, 390, "persisted")
    drawing.text(
        (validate + sink) / 2, 395, "yellow: Kafka topics; green: tables; what is refused is kept", ink="faint"
    )

    drawing.text(994, 36, "PostgreSQL", bold=True)
    drawing.text(994, 54, "the platform's own tables", ink="faint")
    drawing.store(994, TOP, 164, ["tutor_performance_", "metrics"])
    drawing.store(994, LOW, 164, ["tutors, students,", "sessions, tutor_events,", "student_feedback"])
    return drawing.svg()


def main() -> None:
    for name, palette in THEMES.items():
        (HERE / name).write_text(picture(palette), encoding="utf-8")


if __name__ == "__main__":
    main()
