"""The pictures of docs/scale.md, from the records of `fishserve bench fleet`: `python -m bench.fleet_charts`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import svg
from bench.record import read

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench/results/scale.json"
FOLDER = ROOT / "docs/img"

Rows = list[dict[str, Any]]


def pictures(rows: Rows) -> dict[str, str]:
    """SVG files by name."""
    of = {case: [r for r in rows if r["case"] == case] for case in ("size", "prompt", "burst", "day")}
    return {
        "scale-routing.svg": svg.lines(
            _series(of["size"], "routing", lambda r: (r["replicas"], 100 * r["hit_rate"])), "replicas", "prompts found, %", dots=True, powers=True
        ),
        "scale-prompts.svg": svg.lines(
            _series(of["prompt"], "routing", lambda r: (1000 * r["prefill"], 1000 * r["first_audio_p95"])),
            "time to compute a voice's prompt, ms", "first audio, p95, ms", dots=True,
        ),
        "scale-bursts.svg": svg.lines(
            _series(of["burst"], "load", lambda r: (r["cold"], 100 * r["refused"]), "{:.0%} busy before"),
            "cold start of a replica, s", "refused in five minutes, %", dots=True,
        ),
        "scale-day.svg": svg.lines(
            _series(_hours(of["day"]), "busy", lambda r: (r["hour"], r["size"]), "scaled to {} requests a replica", "as many as at noon"),
            "hour of the day", "replicas, mean of the hour",
        ),
    }  # fmt: skip


def _series(
    rows: Rows, by: str, point: Callable[[dict[str, Any]], tuple[float, float]], words: str = "{}", without: str = ""
) -> list[tuple[str, list[tuple[float, float]]]]:
    """A line for each value of a column; `words` name it, `without` where there is none."""
    values = list(dict.fromkeys(row[by] for row in rows))
    return [
        (without if value is None else words.format(value).replace("_", " "), [point(row) for row in rows if row[by] == value])
        for value in values
    ]


def _hours(days: Rows) -> Rows:
    """A row for each hour of a day, with the mean number of replicas."""
    found = []
    for day in days:
        for hour in range(24):
            counts = day["sizes"][len(day["sizes"]) * hour // 24 : len(day["sizes"]) * (hour + 1) // 24]
            found.append({"busy": day["busy"], "hour": hour + 0.5, "size": sum(counts) / len(counts)})
    return found


if __name__ == "__main__":
    for name, drawing in pictures(read(RECORD)["runs"]).items():
        (FOLDER / name).write_text(svg.file(drawing), encoding="utf-8")
