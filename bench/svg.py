"""Draws charts as SVG for a page whose style sheet sets the colours (`STYLE`), light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 12, 48
COLOURS = 6

COLOUR_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5dae0; --quiet: #59636e;
  --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df; --c4: #cf222e; --c5: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #3a424c; --quiet: #9aa5b1;
  --c0: #58a6ff; --c1: #f0883e; --c2: #3fb950; --c3: #bc8cff; --c4: #ff7b72; --c5: #b1bac4; } }
"""
STYLE = """
svg { width: 100%; max-width: 720px; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .series { fill: none; stroke-width: 2; }
svg .wait { fill: var(--line); }
""" + "\n".join(f"svg .s{i} {{ stroke: var(--c{i}); }} svg .f{i} {{ fill: var(--c{i}); }}" for i in range(COLOURS))
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4", "1 3")  # so that lines are distinguishable without their colours

Series = tuple[str, Sequence[tuple[float, float]]]
"""A name and its points."""


def ticks(top: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from 0 to the first at or above `top`."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """Points of the empirical distribution: the share of the values that are at most x, as a step curve."""
    points = [(0.0, 0.0)]
    for i, x in enumerate(sorted(values)):
        points += [(x, i / len(values)), (x, (i + 1) / len(values))]
    return points


def lines(series: Sequence[Series], x_label: str, y_label: str, *, dots: bool = False, powers: bool = False) -> str:
    """Lines from zero over labelled axes, with a legend below. With `powers` the x axis has the powers of ten from 1 on."""
    names = None
    if powers:
        series = [(name, [(math.log10(x), y) for x, y in points]) for name, points in series]
    xs, ys = (ticks(max((p[axis] for _, points in series for p in points), default=1.0)) for axis in (0, 1))
    if powers:
        xs = [float(power) for power in range(math.ceil(xs[-1]) + 1)]
        names = [f"{10**x:,.0f}" for x in xs]
    parts = [_axes(xs, ys, x_label, y_label, names)]
    for i, (_, points) in enumerate(series):
        placed = [(_x(x, xs[-1]), _y(y, ys[-1])) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        n = i % COLOURS
        parts.append(f'<polyline class="series s{n}" stroke-dasharray="{DASHES[n]}" points="{path}"/>')
        if dots:
            parts += [f'<circle class="f{n}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in placed]
    return _svg(parts, HEIGHT + 18 * len(series), _legend([name for name, _ in series]))


def file(drawing: str, width: int = WIDTH, style: str = "") -> str:
    """A drawing as a file of its own, on its own paper, at most `width` pixels wide: light or dark, as its reader's system is."""
    sized = STYLE.replace(f"max-width: {WIDTH}px", f"max-width: {width}px")
    style = f"<style>{COLOUR_STYLE}{sized}{style}svg {{ background: var(--paper); }}</style>"
    return drawing.replace("<svg viewBox=", '<svg xmlns="http://www.w3.org/2000/svg" viewBox=', 1).replace(">", f">{style}", 1) + "\n"


def timeline(requests: Sequence[tuple[float, Sequence[float], float]], x_label: str) -> str:
    """A bar for each request from its due time: pale until the first chunk, then solid, with a gap at each chunk.

    `requests` are (due, times of chunks, end) in seconds.
    """
    row = 10
    xs, height = ticks(max((end for _, _, end in requests), default=1.0)), TOP + row * len(requests) + BOTTOM
    parts = [_x_axis(xs, height, x_label)]
    for i, (due, times, end) in enumerate(requests):
        y, edges = TOP + row * i, [*times, end]
        first = times[0] if times else end
        parts.append(
            f'<rect class="wait" x="{_x(due, xs[-1]):.1f}" y="{y}" width="{_x(first, xs[-1]) - _x(due, xs[-1]):.1f}" height="{row - 2}"/>'
        )
        for a, b in pairwise(edges):
            width = max(0.5, _x(b, xs[-1]) - _x(a, xs[-1]) - 0.8)
            parts.append(f'<rect class="f0" x="{_x(a, xs[-1]):.1f}" y="{y}" width="{width:.1f}" height="{row - 2}"/>')
    return _svg(parts, height, "")


def _svg(parts: Sequence[str], height: int, legend: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">\n' + "\n".join(parts) + legend + "\n</svg>"


def _x(value: float, top: float) -> float:
    return LEFT + value / top * (WIDTH - LEFT - RIGHT)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)


def _x_axis(xs: Sequence[float], height: int, label: str, names: Sequence[str] | None = None) -> str:
    parts = [f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 10}" text-anchor="middle">{escape(label)}</text>']
    for x, name in zip(xs, names or [f"{x:.6g}" for x in xs], strict=True):
        at = _x(x, xs[-1])
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{name}</text>')
    return "\n".join(parts)


def _axes(xs: Sequence[float], ys: Sequence[float], x_label: str, y_label: str, names: Sequence[str] | None) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts = [_x_axis(xs, HEIGHT, x_label, names)]
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>')
    for y in ys:
        at = _y(y, ys[-1])
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.6g}</text>')
    return "\n".join(parts)


def _legend(names: Sequence[str]) -> str:
    parts = []
    for i, name in enumerate(names):
        y, n = HEIGHT + 18 * i + 6, i % COLOURS
        parts.append(f'<line class="series s{n}" stroke-dasharray="{DASHES[n]}" x1="{LEFT}" y1="{y}" x2="{LEFT + 28}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT + 36}" y="{y + 4}">{escape(name)}</text>')
    return "\n" + "\n".join(parts)
