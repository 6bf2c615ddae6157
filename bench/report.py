"""Renders one or more records as Markdown tables and a self-contained HTML page with charts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

from bench import svg
from bench.load import Sample
from bench.serving import Objective, audio_per_second
from bench.tables import Table, between, firsts, level, samples_of, tables

MAX_BARS = 60
"""Most requests in a timeline: more would be indistinguishable."""

_STYLE = """
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
p.note, figcaption, dl { color: var(--quiet); font-size: .9rem; }
figure { margin: 1.5rem 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; } dd { margin: 0; overflow-wrap: anywhere; }
"""

Named = Sequence[tuple[str, dict[str, Any]]]
"""Records with the names of their files."""


def markdown(records: Named) -> str:
    """All tables, each record under its name and the machine and model measured."""
    parts = []
    for name, body in records:
        facts = "\n".join(f"* {k}: {v}" for k, v in facts_of(body).items())
        parts += [f"## {name}\n\n{facts}\n", *(t.markdown() for t in tables(body))]
    parts += [t.markdown() for t in _differences(records)]
    return "\n".join(parts)


def html(records: Named) -> str:
    """The HTML page with tables and charts."""
    parts = []
    for name, body in records:
        facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts_of(body).items())
        parts.append(f"<h2>{escape(name)}</h2>\n<dl>{facts}</dl>")
        parts += [_table(t) for t in tables(body)]
        parts += [_figure(chart, words) for chart, words in charts(body)]
    parts += [_table(t) for t in _differences(records)]
    title = "fishserve bench"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title>\n<style>{svg.COLOUR_STYLE}{_STYLE}{svg.STYLE}</style></head>\n<body><h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def facts_of(body: dict[str, Any]) -> dict[str, str]:
    """The record's machine, model and settings, in words."""
    m, model, loads = body["machine"], body["model"], [body["machine"]["load_average"], body["load_average_at_end"]]
    device = m.get("gpu") or m.get("device", "of the server, unknown to its client")
    facts = {
        "command": f"{body['command']} {body['settings']}", "when": body["time"] + ("" if body["complete"] else ", stopped before its end"),
        "device": f"{device}, driver {m['driver']}, CUDA {m['cuda']}" if "driver" in m else f"{device}",
        "machine": f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}",
        "software": f"fishserve {m['fishserve']} at {m['revision']}, torch {m['torch']}, Python {m['python']}",
        "load average": " before, ".join(f"{load[0]:.1f}" for load in loads) + " after: one minute's, this run's own work included",
    }  # fmt: skip
    if graphs := body.get("graphs"):
        facts["kernels"] = "; ".join(f"{part}: {how}" for part, how in graphs.items())
    if model:
        noise = ", random weights" if model["random"] else ""
        facts["model"] = f"{model['name']}{noise}, " + ", ".join(f"{file} sha256 {h[:16]}" for file, h in model["sha256"].items())
    return facts


def charts(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The charts of a load record, each with its caption."""
    if "objective" not in body["settings"]:
        return []
    runs = [(run, samples) for run in body["runs"] if (samples := samples_of(run)) and run["window"]]
    closed = [(run, samples) for run, samples in runs if run["loop"] == "closed"]
    opened = [(run, samples) for run, samples in runs if run["loop"] == "open"]
    found = []
    heard = [(level(run), firsts(run)) for run, _ in runs]
    if series := [(f"{name}, {len(values)} requests", svg.distribution(values)) for name, values in heard if values]:
        words = "How soon requests are first heard. In an open loop counted from when they were due."
        found.append((svg.lines(series, "time to first audio, s", "share of requests"), words))
    if closed:
        points = [(run["clients"], audio_per_second(samples, 0, run["window"])) for run, samples in closed]
        words = "Throughput against concurrency, closed loop. One second of audio a second is real time for one listener."
        found.append((svg.lines([("measured", points)], "clients", "audio, seconds each second", dots=True), words))
    if opened:
        objective = Objective(**body["settings"]["objective"])
        points = [(run["rate"], sum(map(objective.kept, samples)) / len(samples)) for run, samples in opened]
        goal = [(0.0, objective.share), (points[-1][0], objective.share)]
        words = f"Open loop: requests heard within {objective.first_audio:g} s of being due and then without a pause."
        found.append(
            (svg.lines([("measured", points), ("objective", goal)], "requests offered, 1/s", "share of requests", dots=True), words)
        )
    if closed:
        run, samples = closed[-1]
        shown = sorted(samples, key=lambda s: s.due)[:MAX_BARS]
        words = f"Timeline of {level(run)}: each bar a request, pale until its first chunk, cut at each chunk."
        found.append((svg.timeline([_bar(s) for s in shown], "seconds since the load began"), words))
    return found


def _bar(sample: Sample) -> tuple[float, Sequence[float], float]:
    return sample.due, sample.times, sample.ended


def _differences(records: Named) -> list[Table]:
    found = [(a, b, between(one, other)) for (a, one), (b, other) in pairwise(records)]
    return [Table(f"{a} → {b}", table.columns, table.rows, table.note) for a, b, table in found if table]


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in table.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h3>{escape(table.title)}</h3>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>{note}"


def _figure(chart: str, words: str) -> str:
    return f"<figure>{chart}<figcaption>{escape(words)}</figcaption></figure>"
