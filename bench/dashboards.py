"""Draws a Grafana dashboard as SVG from its file and a Prometheus' answers, where there is no Grafana: `python -m bench.dashboards FILE`.

It knows what the dashboards of docker/grafana use: rows, time series, one number, legends, some units. It is no Grafana.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import svg
from inference.errors import RequestError

if TYPE_CHECKING:
    import httpx

COLUMN, ROW, MARGIN = 50, 30, 8
"""A dashboard has 24 columns; pixels of each, of a row of its grid, and between panels."""
WIDTH, HEAD = 24 * COLUMN, 46
POINTS = 300
"""A panel asks for no more points of a series than this."""
LEFT, RIGHT, TITLE, AXIS, LEGEND = 62, 12, 26, 26, 15
"""Pixels of a panel around its plot: left for the values, right, above for the title, below for the clock, and for each line of the legend."""
CHARACTER = 6.9
"""About the width of a character, in pixels."""
LEGEND_LINES = 4
"""A legend has no more lines; Grafana's scrolls."""
CLOCK_STEPS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "short": ((1, ""), (1e3, " K"), (1e6, " Mil")),
    "s": ((1e-6, " µs"), (1e-3, " ms"), (1, " s"), (60, " min"), (3600, " hours"), (86_400, " days")),
    "percentunit": ((0.01, "%"),),
    "reqps": ((1, " req/s"), (1e3, "K req/s")),
    "ops": ((1, " ops/s"), (1e3, "K ops/s")),
    "bytes": ((1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB")),
}
"""Grafana's names of units: how much one is, and its sign, from the smallest on."""
STYLE = """
svg .frame { fill: none; stroke: var(--line); }
svg .title { font-weight: 600; }
svg .number { font-size: 40px; }
svg .quiet { fill: var(--quiet); }
"""

Panel = dict[str, Any]
Answers = Mapping[int, Sequence["Line"]]
"""The lines of each panel, by the panel's id."""


@dataclass(frozen=True)
class Line:
    """A series as its legend names it: values by time, in seconds since 1970; without a value where there is none."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Span:
    """What a dashboard shows: seconds since 1970, and how often Prometheus scrapes, in seconds."""

    start: float
    end: float
    scrape: float

    @property
    def step(self) -> float:
        """Seconds from point to point: Grafana's `$__interval`."""
        return max(self.scrape, math.ceil((self.end - self.start) / POINTS))

    def fill(self, expression: str) -> str:
        """A query with Grafana's variables filled in. Raises RequestError when there is one that this module does not know."""
        filled = expression.replace("$__rate_interval", f"{max(self.step + self.scrape, 4 * self.scrape):g}s")
        if "$" in filled:
            raise RequestError(f"the query {expression!r} has a variable; only $__rate_interval can be filled in here", "expr")
        return filled


def legend(template: str, labels: Mapping[str, str]) -> str:
    """The name of a series. As in Grafana, a label that it lacks is called by the label's own name."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1]) or found[1], template)


def query(client: httpx.Client, target: Mapping[str, Any], span: Span) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    """The series of a panel's target that have a number: their labels and points. Raises RequestError with Prometheus' words when it refuses."""
    asked: dict[str, str | float] = {"query": span.fill(target["expr"]), "start": span.start, "end": span.end, "step": span.step}
    answer = client.get("/api/v1/query_range", params=asked).json()
    if answer["status"] != "success":
        raise RequestError(f"Prometheus refuses the query {asked['query']!r}: {answer['error']}", "expr")
    found = []
    for series in answer["data"]["result"]:
        points = [(float(at), float(value)) for at, value in series["values"] if math.isfinite(float(value))]
        if points:
            found.append((series["metric"], points))
    return found


def ask(client: httpx.Client, dashboard: Mapping[str, Any], span: Span) -> dict[int, list[Line]]:
    """What each panel shows. Raises RequestError."""
    return {
        panel["id"]: [
            Line(legend(target["legendFormat"], labels), points)
            for target in panel.get("targets", ())
            for labels, points in query(client, target, span)
        ]
        for panel in dashboard["panels"]
    }


def empty(dashboard: Mapping[str, Any], answers: Answers) -> list[str]:
    """The titles of the panels that have nothing to show."""
    return [panel["title"] for panel in dashboard["panels"] if panel["type"] != "row" and not answers[panel["id"]]]


def drawing(dashboard: Mapping[str, Any], answers: Answers, span: Span, words: str) -> str:
    """A file of SVG. `words` say below the title of which run it is. Raises RequestError at a type of panel or a unit that is not known."""
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEAD + bottom * ROW + MARGIN}" role="img">',
        f'<text x="{MARGIN}" y="20" class="title">{escape(dashboard["title"])}</text>',
        f'<text x="{MARGIN}" y="38" class="quiet">{escape(words)}</text>',
    ]
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y, width, height = at["x"] * COLUMN, HEAD + at["y"] * ROW, at["w"] * COLUMN, at["h"] * ROW
        if panel["type"] == "row":
            parts.append(f'<text x="{MARGIN}" y="{y + 20}" class="title">{escape(panel["title"])}</text>')
            continue
        parts.append(f'<g transform="translate({x + MARGIN // 2} {y + MARGIN // 2})">')
        parts += _panel(panel, answers[panel["id"]], span, width - MARGIN, height - MARGIN)
        parts.append("</g>")
    return svg.file("\n".join([*parts, "</svg>"]), WIDTH, STYLE)


def _panel(panel: Panel, lines: Sequence[Line], span: Span, width: int, height: int) -> list[str]:
    parts = [
        f'<rect class="frame" width="{width}" height="{height}" rx="3"/>',
        f'<text x="10" y="18" class="title">{escape(panel["title"])}</text>',
    ]
    if panel["type"] not in ("timeseries", "stat"):
        raise RequestError(f"the panel {panel['title']!r} has the type {panel['type']!r}, which cannot be drawn here", "type")
    if not lines:
        return [*parts, f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle" class="quiet">No data</text>']
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "stat":
        value = lines[0].points[-1][1]
        one, sign = _scale(defaults["unit"], value)
        return [*parts, f'<text x="{width / 2}" y="{height / 2 + 14}" text-anchor="middle" class="number">{value / one:.3g}{sign}</text>']
    names, lines_of_legend = _legend([line.name for line in lines], width, height)
    return [*parts, *_plot(lines, defaults["unit"], span, width, height - LEGEND * lines_of_legend - 6), *names]


def _plot(lines: Sequence[Line], unit: str, span: Span, width: int, bottom: int) -> list[str]:
    """Lines over their axes; the clock is below them."""
    top = max(value for line in lines for _, value in line.points)
    one, sign = _scale(unit, top)
    one, sign = _scale(unit, svg.ticks(top / one, 4)[-1] * one)  # 0.98 s has an axis up to 1 s, not to 1000 ms
    values = svg.ticks(top / one, 4)
    base = bottom - AXIS

    def x(at: float) -> float:
        return LEFT + (at - span.start) / (span.end - span.start) * (width - LEFT - RIGHT)

    def y(value: float) -> float:
        return base - max(0.0, value) / one / values[-1] * (base - TITLE - 4)

    parts = list[str]()
    for value in values:
        height = y(value * one)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{height:.1f}" x2="{width - RIGHT}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{f"{value:.6g}{sign}" if value else "0"}</text>')
    for at, name in clock(span.start, span.end):
        parts.append(f'<line class="grid" x1="{x(at):.1f}" y1="{TITLE + 4}" x2="{x(at):.1f}" y2="{base}"/>')
        parts.append(f'<text x="{x(at):.1f}" y="{base + 18}" text-anchor="middle">{name}</text>')
    for i, line in enumerate(lines):
        for run in unbroken(line.points, span.step):
            placed = _without_flats([(round(x(at), 1), round(y(value), 1)) for at, value in run])
            if len(placed) == 1:
                parts.append(f'<circle class="f{i % svg.COLOURS}" cx="{placed[0][0]}" cy="{placed[0][1]}" r="2"/>')
            else:
                path = " ".join(f"{a:g},{b:g}" for a, b in placed)
                parts.append(f'<polyline class="series s{i % svg.COLOURS}"{_dash(i)} points="{path}"/>')
    return parts


def _dash(i: int) -> str:
    """So that lines are distinguishable without their colours, and more lines than there are colours."""
    dashes = svg.DASHES[(i + i // svg.COLOURS) % len(svg.DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _legend(names: Sequence[str], width: int, height: int) -> tuple[list[str], int]:
    """Names below a plot, as many beside each other as fit, and the number of lines they take."""
    parts, x, line = list[tuple[int, float, int]](), 10.0, 1
    for i, name in enumerate(names):
        wide = 30 + CHARACTER * len(name) + 14
        if x + wide > width and x > 10:
            x, line = 10.0, line + 1
        parts.append((i, x, line))
        x += wide
    drawn, left = list[str](), sum(on >= LEGEND_LINES for _, _, on in parts)
    if line > LEGEND_LINES:
        parts, line = [part for part in parts if part[2] < LEGEND_LINES], LEGEND_LINES
        drawn.append(f'<text x="10" y="{height - 10}" class="quiet">and {left} more</text>')
    for i, x, on in parts:
        y = height - 10 - LEGEND * (line - on)
        drawn.append(f'<line class="series s{i % svg.COLOURS}"{_dash(i)} x1="{x:g}" y1="{y - 4}" x2="{x + 24:g}" y2="{y - 4}"/>')
        drawn.append(f'<text x="{x + 30:g}" y="{y}">{escape(names[i])}</text>')
    return drawn, line


def _scale(unit: str, top: float) -> tuple[float, str]:
    """The unit in which the largest value is at least one."""
    if unit not in UNITS:
        raise RequestError(f"the unit {unit!r} cannot be drawn here; there are {', '.join(UNITS)}", "unit")
    zero = next((scale for scale in UNITS[unit] if scale[0] == 1), UNITS[unit][0])
    return max((scale for scale in UNITS[unit] if scale[0] <= top), default=UNITS[unit][0]) if top > 0 else zero


def clock(start: float, end: float) -> list[tuple[float, str]]:
    """Round times of day from start to end, and how a clock writes them, in UTC."""
    step = next((s for s in CLOCK_STEPS if (end - start) / s <= 6), CLOCK_STEPS[-1])
    form = "%H:%M" if step % 60 == 0 else "%H:%M:%S"
    first = math.ceil(start / step)
    return [(step * i, datetime.fromtimestamp(step * i, UTC).strftime(form)) for i in range(first, math.floor(end / step) + 1)]


def unbroken(points: Sequence[tuple[float, float]], step: float) -> list[list[tuple[float, float]]]:
    """The runs of points without a missing one between them."""
    runs = list[list[tuple[float, float]]]()
    for point in points:
        if runs and point[0] - runs[-1][-1][0] < 1.5 * step:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _without_flats(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points in the middle of a flat stretch."""
    inner = [b for a, b, c in zip(points, points[1:], points[2:], strict=False) if not a[1] == b[1] == c[1]]
    return [points[0], *inner, points[-1]] if len(points) > 1 else list(points)


def main(
    dashboard: Annotated[Path, typer.Argument(help="The dashboard's file, as docker/grafana/fishserve-server.json.")],
    prometheus: Annotated[str, typer.Option(help="Where Prometheus answers.")] = "http://127.0.0.1:9090",
    minutes: Annotated[float, typer.Option(min=0.1, help="The last so many minutes are shown.")] = 60,
    scrape: Annotated[float, typer.Option(min=0.1, help="Prometheus' scrape_interval, in seconds.")] = 15,
    out: Annotated[Path, typer.Option("-o", "--out", help="SVG file to write.")] = Path("dashboard.svg"),
) -> None:
    """Draw a Grafana dashboard of docker/grafana from what a Prometheus knows."""
    import httpx

    told, now = json.loads(dashboard.read_text(encoding="utf-8")), time.time()
    span = Span(now - 60 * minutes, now, scrape)
    with httpx.Client(base_url=prometheus, timeout=60, trust_env=False) as client:
        answers = ask(client, told, span)
    out.write_text(drawing(told, answers, span, words(dashboard.name, span)), encoding="utf-8")
    typer.echo(f"{out}; without data: {', '.join(empty(told, answers)) or 'none'}")


def words(file: str, span: Span) -> str:
    """From which file a picture is drawn, and from when it is."""
    day = datetime.fromtimestamp(span.start, UTC).strftime("%Y-%m-%d")
    return f"Drawn from {file} by bench/dashboards.py, not by Grafana. {day}, UTC, scraped every {span.scrape:g} s."


if __name__ == "__main__":
    typer.run(main)
