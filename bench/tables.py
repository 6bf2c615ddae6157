"""Renders the figures of a record as tables, for the terminal and for reports."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bench import attack_tables, cluster_tables
from bench.load import Sample
from bench.prompts import BUCKETS
from bench.serving import Objective, audio_per_second, requests_per_second
from bench.stats import median_interval, percentiles, ratio_interval
from inference.model.config import FRAMES_PER_SECOND

SLICES = 10
"""Number of parts that a level's time is cut into, to show how its throughput varied."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a title; the first column names the row. `note` says how to read the table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """A Markdown table, aligned so that it also reads well in a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(self.columns))]
        aligned = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(r, widths, strict=True))] for r in lines]
        rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in (aligned[0], rule, *aligned[1:]))
        return f"**{self.title}**\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


def tables(body: dict[str, Any]) -> list[Table]:
    """The tables of one record."""
    makers: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
        "latency": serving, "throughput": serving, "http": serving, "compare": compared, "codec": codec, "roofline": roofline,
        "frames": frames, "host": host, "rounding": rounding, "soak": soak, "saas": saas, "busy": busy,
        "attack": lambda body: [Table(*cells) for cells in attack_tables.attack(body)],
        "voices": lambda body: [Table(*cells) for cells in cluster_tables.voices(body)],
        "fleet": lambda body: [Table(*cells) for cells in cluster_tables.fleet(body)], "kernels": kernels, "timed-device": timed_device,
    }  # fmt: skip
    return makers[body["command"]](body)


def timed_device(body: dict[str, Any]) -> list[Table]:
    """What clients had of an engine on a device that takes time, and how much of the time its streams were busy."""
    lines = [
        [f"{r['clients']} client{'s'[: r['clients'] > 1]}", str(r["requests"]), f"{r['speech']:.0f}",
         *(f"{1000 * r['first_audio'][p]:.0f}" if r["first_audio"][p] is not None else "–" for p in ("p50", "p95")),
         *(f"{r['busy'][stream]:.0%}" for stream in ("frames", "sound"))]
        for r in body["runs"]
    ]  # fmt: skip
    columns = ("", "requests", "audio s/s", "first audio p50, ms", "p95, ms", "frames busy", "sound busy")
    return [Table("A device that takes as long as an H200 did", columns, lines)]


def kernels(body: dict[str, Any]) -> list[Table]:
    """What the compiler made of each kernel on one GPU, with predictions; and its registers on all of them."""
    runs = body["runs"]
    names = list(dict.fromkeys(r["architecture"] for r in runs))
    most = "sm_90" if "sm_90" in names else names[0]
    found = []
    for rows, weights in dict.fromkeys((r["rows"], r["weights"]) for r in runs):
        mine = [r for r in runs if r["architecture"] == most and (r["rows"], r["weights"]) == (rows, weights)]
        lines = [
            [r["title"], str(r["launches"]), " x ".join(map(str, r["grid"])),
             *(str(r[key]) for key in ("warps", "registers", "spilled", "shared", "barriers", "instructions")),
             f"{r['bytes'] / 1e6:.1f}", f"{1e6 * r['seconds']:.1f}" if r["seconds"] else ""]
            for r in mine
        ]  # fmt: skip
        total = sum(r["launches"] * r["seconds"] for r in mine if r["seconds"])
        words = (
            f"{sum(r['launches'] for r in mine if r['seconds'])} kernels of ours, {1e6 * total:.0f} µs; {body['prediction']}."
            if total
            else ""
        )
        columns = ("kernel", "times", "grid", "warps", "registers", "spilled, B", "shared, B", "barriers", "instructions", "MB", "µs")
        found.append(Table(f"{most}, {_what(rows)}{', 8-bit weights' * (weights == 'int8')}", columns, lines, words))
    titles = dict.fromkeys((r["rows"], r["title"]) for r in runs)
    each = {(r["rows"], r["title"], r["architecture"]): r for r in runs}
    lines = [
        [f"{title}, {_what(rows)}",
         *(f"{one['registers']}, {one['spilled']}" if (one := each.get((rows, title, name))) else "" for name in names)]
        for rows, title in titles
    ]  # fmt: skip
    return [*found, Table("Registers of a thread, and bytes of it that are spilled", ("kernel", *names), lines)]


def _what(rows: int) -> str:
    return {0: "prompts", -1: "4 streams of 32 frames of sound"}.get(rows, f"{rows} rows")


def samples_of(run: dict[str, Any]) -> list[Sample]:
    """A run's samples as they were measured."""
    return [Sample(**s) for s in run["samples"]]


def level(run: dict[str, Any]) -> str:
    """A level's name."""
    return f"{run['clients']} client{'s'[: run['clients'] > 1]}" if run["loop"] == "closed" else f"{run['rate']:.2f} requests/s"


def saas(body: dict[str, Any]) -> list[Table]:
    """How long requests took from their due time, and how many got an unexpected response."""
    rows = []
    for run in body["runs"]:
        taken = [s["ended"] - s["due"] for s in run["samples"]]
        wrong = sum(s["status"] != run["expected"] for s in run["samples"])
        rows.append(
            [
                run["name"],
                str(len(taken)),
                str(wrong),
                _number(len(taken) / run["window"]),
                *_milliseconds(taken, "p50", "p95", "p99", "max"),
            ]
        )
    columns = ("request", "n", "failed", "a second", "p50 ms", "p95 ms", "p99 ms", "max ms")
    return [Table("Taking jobs", columns, rows, "From when each was due, as Poisson's arrivals are, to the end of its answer.")]


def busy(body: dict[str, Any]) -> list[Table]:
    """Speed alone and beside the neighbours, and the ratio of the two in each round."""
    runs = body["runs"]
    pairs = [(a, b) for a in runs for b in runs if a["round"] == b["round"] and not a["neighbours"] and b["neighbours"]]
    if not pairs:
        return []
    ratios = [_speed(b) / _speed(a) for a, b in pairs]
    low, high, sure = median_interval(ratios)
    rows = [
        [
            name, str(len(those)), f"{statistics.median(map(_speed, those)):.2f}", _range([_speed(r) for r in those]),
            _number(statistics.median(r["cpu_seconds"] / r["seconds"] for r in those)),
            _number(statistics.median(r["audio"] / r["cpu_seconds"] for r in those)), _number(_median(map(_others, those))),
        ]
        for name, those in (("alone", [a for a, _ in pairs]), (f"{pairs[0][1]['neighbours']} neighbours", [b for _, b in pairs]))
    ]  # fmt: skip
    ratio = [
        str(len(ratios)), f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f} ({sure:.0%})", ", ".join(f"{r:.2f}" for r in ratios),
    ]  # fmt: skip
    machine = body["machine"]
    note = (
        f"{machine['threads']} thread{'s'[: machine['threads'] > 1]}; {machine['waiting']}. Speech s/CPU s: it falls where threads spin instead of computing. "
        "Other programs: cores used by what is neither this process nor a neighbour. Above 0.1 the figures are not of a quiet machine."
    )
    return [
        Table(
            "Busy machine",
            ["", "n", "times real time", "slowest to fastest", "own cores", "speech s/CPU s", "other programs' cores"],
            rows,
            note,
        ),
        Table("Beside neighbours over alone", ["rounds", "ratio", "interval", "each round"], [ratio]),
    ]


def _speed(run: dict[str, Any]) -> float:
    """Speed as a multiple of real time."""
    return float(run["audio"] / run["seconds"])


def _others(run: dict[str, Any]) -> float | None:
    """Cores that other programs used. A neighbour's CPU time includes its start-up; a run's does not."""
    total = run["machine_cpu_seconds"]
    return None if total is None else max(0.0, total - run["cpu_seconds"] - run["neighbour_cpu_seconds"]) / float(run["seconds"])


def serving(body: dict[str, Any]) -> list[Table]:
    """Latency and throughput by level, first audio by text length, and the load generator's own cost."""
    levels = [(level(run), run, samples_of(run)) for run in body["runs"]]
    heard = [(name, run, [s for s in samples if s.error is None]) for name, run, samples in levels]
    objective = Objective(**body["settings"]["objective"])
    latency = [
        [
            name, str(len(ok)), *_milliseconds([s.first_audio for s in ok], "p50", "p95", "p99", "max"),
            *_milliseconds([g for s in ok for g in s.gaps], "p50", "p95", "max"),
            _number(_median(s.times_real_time for s in ok)), _number(min((s.times_real_time or 0 for s in ok), default=None)),
        ]
        for name, _, ok in heard
    ]  # fmt: skip
    throughput = [
        [
            name, str(len(samples)), str(sum(s.error is not None for s in samples)), _number(audio_per_second(samples, 0, run["window"])),
            _range(slices(run)), _number(requests_per_second(samples, run["window"])), _share([s.continuous for s in samples]),
            *_milliseconds([s.waited for s in samples], "p50", "max"), _share([objective.kept(s) for s in samples]),
        ]
        for name, run, samples in levels
        if samples and run["window"]
    ]  # fmt: skip
    lengths = [
        [f"{bucket}, {name}", str(len(ok)), *_milliseconds([s.first_audio for s in ok], "p50", "p95", "max")]
        for bucket in BUCKETS
        for name, run, all_ in heard
        if run["loop"] == "closed" and (ok := [s for s in all_ if s.bucket == bucket])
    ]
    promised = f"heard within {objective.first_audio:g} s and then without a pause"
    found = [
        Table(
            "Latency",
            ["", "n", *(f"first audio {p}, ms" for p in ("p50", "p95", "p99", "max")), *(f"gap {p}, ms" for p in ("p50", "p95", "max")), "times real time p50", "slowest"],
            latency, "– where there are too few requests for a percentile: p95 needs 20, p99 100. In an open loop first audio counts from when a request was due.",
        ),
        Table(
            "Throughput",
            ["", "requests", "failed", "audio s/s", "its tenths", "requests/s", "continuous", "waited p50, ms", "waited max, ms", "as promised"],
            throughput, f"As promised: {promised}; the objective is {objective.share:.0%} of requests{_sustained(body)}. Waited: until work on it began, where the target says.",
        ),
        Table("First audio by length of text", ["", "n", "p50, ms", "p95, ms", "max, ms"], lengths),
    ]  # fmt: skip
    return [t for t in found if t.rows] + ([_own_cost(body["client"])] if "client" in body else [])


def _sustained(body: dict[str, Any]) -> str:
    opened = [run for run in body["runs"] if "met" in run]
    rate = max((run["rate"] for run in opened if run["met"]), default=None)
    if rate is not None:
        return f", met up to {rate:.2f} requests/s"
    if any(run["met"] is False for run in opened):
        return ", which no rate tried met"
    return "; no request arrived at any rate, so nothing is known of it: measure for longer" if opened else ""


def slices(run: dict[str, Any]) -> list[float]:
    """Seconds of audio for each second, in each tenth of a level's time."""
    samples, edges = samples_of(run), np.linspace(0, run["window"], SLICES + 1)
    return [audio_per_second(samples, float(a), float(b)) for a, b in pairwise(edges)]


def firsts(run: dict[str, Any]) -> list[float]:
    """Seconds to first audio of a level's requests."""
    return [s.first_audio for s in samples_of(run) if s.first_audio is not None]


def compared(body: dict[str, Any]) -> list[Table]:
    """Rates of each case and, for ours, ratios to each baseline's."""
    measured = [c for c in body["runs"] if c["rounds"]]
    rows = []
    for case in measured:
        kind, own = case["request"]["what"], rates(case)
        bases = [b for b in measured if b["who"] != "ours" and b["request"]["what"] == kind and case["who"] == "ours"]
        for base in bases or [None]:
            name = f"{case['who']}, {case['case']}"
            prefill = _number(1e3 * statistics.median(r["prefill"] for r in case["rounds"])) if kind == "frames" else ""
            if base is None:
                rows.append([name, f"{statistics.median(own):.2f}", prefill, "", "", "", ""])
                continue
            ratios = [a / b for a, b in zip(own, rates(base), strict=False)]
            low, high, sure = median_interval(ratios)
            each = ", ".join(f"{r:.2f}" for r in ratios)
            rows.append(
                [name, f"{statistics.median(own):.2f}", prefill, base["who"], f"{statistics.median(ratios):.2f}", f"{low:.2f} to {high:.2f} ({sure:.0%})", each]
            )  # fmt: skip
    note = (
        f"Real time is {FRAMES_PER_SECOND:.1f} frames/s a stream. A ratio is of two rates in the same round; the interval holds the median ratio "
        "with the probability given, which six rounds bring to 97 %."
    )
    return [Table("Beside others", ["", "frames/s", "prefill, ms", "times", "ratio", "interval", "each round"], rows, note)]


def rates(case: dict[str, Any]) -> list[float]:
    """Frames a second of each round."""
    amount = case["rows"] if case["request"]["what"] == "frames" else case["request"]["frames"]
    return [amount / statistics.median(r["seconds"]) for r in case["rounds"]]


def codec(body: dict[str, Any]) -> list[Table]:
    """Frames a second and times real time of each case."""
    rows = []
    for run in body["runs"]:
        speeds = [run["frames"] / s for s in run["seconds"]]
        middle = statistics.median(speeds)
        rows.append([run["case"], str(len(speeds)), f"{middle:.1f}", _number(middle / FRAMES_PER_SECOND), _range(speeds)])
    return [Table("Codec alone", ["", "n", "frames/s", "times real time", "slowest to fastest"], rows)]


def roofline(body: dict[str, Any]) -> list[Table]:
    """Each stage's time for a frame against the least the device allows."""
    rows = []
    for run in body["runs"]:
        middle = statistics.median(run["seconds"])
        turns = run["frames"] / run["streams"]
        limit, taken = (1e3 * t / turns for t in (run["limit_seconds"], middle))
        rows.append(
            [
                f"{run['stage']}, {run['streams']} stream{'s'[: run['streams'] > 1]}", f"{run['bytes'] / turns / 1e6:.2f}",
                f"{run['flops'] / turns / 1e9:.3f}", run["bound"], f"{limit:.3f}", f"{taken:.3f}", f"{limit / taken:.0%}",
            ]
        )  # fmt: skip
    note = ""
    if "flops_per_second" in body:
        best = max(body["bytes_per_second"]) / 1e9, max(body["flops_per_second"]) / 1e9
        note = f"Measured here: {best[0]:.1f} GB/s, {best[1]:.1f} GFLOP/s. A row is one frame of every stream. Over 100 %: its bytes come from a cache."
    return [Table("Roofline", ["", "MB", "GFLOP", "bound by", "limit, ms", "measured, ms", "of the limit"], rows, note)]


def frames(body: dict[str, Any]) -> list[Table]:
    """Frames a second at each number of streams against the limit and, where there are graphs, the results of their comparisons."""
    rows, proofs = [], []
    for run in body["runs"]:
        name = f"{run['case']}, {run['streams']} stream{'s'[: run['streams'] > 1]}"
        start = _number(run.get("start_seconds"))
        for label, seconds in ((name, run["seconds"]), (f"{name}, the device alone", run.get("device_seconds"))):
            if seconds:
                middle = run["frames"] / statistics.median(seconds)
                limit = f"{run['limit_seconds'] * middle / run['frames']:.0%}" if "limit_seconds" in run else "–"
                rows.append([label, str(len(seconds)), _number(middle), _number(middle / FRAMES_PER_SECOND), limit, start])
        if proof := run.get("proof"):
            proofs.append(
                [name, f"{proof['behind']:.3f}", *(f"{proof[which]:.0%}" for which in ("as_eager", "as_again", "as_alone", "draws"))]
            )
    columns = ["", "n", "frames/s", "times real time", "of the limit", "start, s"]
    found = [
        Table(
            "Frames", columns, rows, "All streams together. The limit is the roofline's, its stages added up. Starting includes capturing."
        )
    ]
    if proofs:
        columns = ["", "behind the likeliest, std", "greedy as eagerly", "sampled as again", "as alone", "draws as the sampler's"]
        note = "Shares of equal frames. After one close draw that rounding turned all of a row's frames differ, but the same again must be the same."
        found.append(Table("Graphs", columns, proofs, note))
    return found


def host(body: dict[str, Any]) -> list[Table]:
    """What the engine's own work takes at each number of rows."""
    rows = [
        [f"{run['rows']} row{'s'[: run['rows'] > 1]}", str(len(run["seconds"])), *_milliseconds(run["seconds"], "p50", "p95")]
        for run in body["runs"]
    ]
    return [Table("Host", ["", "n", "p50, ms", "p95, ms"], rows, "The engine's own work in a round, with a device that takes no time.")]


def soak(body: dict[str, Any]) -> list[Table]:
    """The outcome of the requests, and the memory."""
    rows = [
        [
            str(r["accepted"]), ", ".join(f"{n} {name}" for name, n in sorted(r["outcomes"].items())),
            ", ".join(f"{n} {name}" for name, n in sorted(r["faults"].items())), str(r["ended_not_once"]), str(sum(r["left"].values())),
            "–" if r["growth"] is None else f"{r['growth']:.3f}", "yes" if r["well"] else "NO",
        ]
        for r in body["runs"]
    ]  # fmt: skip
    columns = ["accepted", "ended", "faults made", "ended not once", "left behind", "memory, last quarter / second", "all well"]
    return [Table("Soak", columns, rows, "Left behind: slots, positions and requests the engine still held when all had ended.")]


def rounding(body: dict[str, Any]) -> list[Table]:
    """How far rounded weights lead away from FP32's."""
    lines = []
    for kind in dict.fromkeys(r["weights"] for r in body["runs"]):
        mine = [r for r in body["runs"] if r["weights"] == kind]
        hidden, logits, same = (np.array([value for r in mine for value in r[key]]) for key in ("hidden_error", "logits_error", "same"))
        greedy = statistics.mean(r["greedy"] for r in mine)
        lines.append(
            [kind, str(len(same)), f"{hidden.mean():.2%}", f"{logits.mean():.4f}", f"{same.mean() / body['draws']:.1%}",
             f"{(same == body['draws']).mean():.1%}", f"{greedy:.1%}"]
        )  # fmt: skip
    columns = ("weights", "frames", "hidden states", "logits", "choices", "frames", "greedy frames")
    note = (
        "Hidden states: the difference from FP32's as a part of these. Logits: its standard deviation as a part of theirs. Choices and frames: "
        "the share with the same likeliest ids after the same past; greedy frames: the same, after the past that each chose itself."
    )
    return [Table("Rounded weights beside FP32", columns, lines, note)]


def cost(body: dict[str, Any], price: float, busy: Sequence[float]) -> Table:
    """The price of an hour of speech when the machine costs `price` an hour, at each concurrency and share of busy time."""
    rows = []
    objective = Objective(**body["settings"]["objective"])
    for run in body["runs"]:
        samples = samples_of(run)
        speed = audio_per_second(samples, 0, run["window"]) if run["window"] else 0.0
        if speed:
            promise = "yes" if objective.met(samples) else "no"
            rows.append([level(run), _number(speed), promise, *(f"{price_of_speech(price, speed, share):.4g}" for share in busy)])
    note = "In the unit of the price, for an hour of speech. A machine that is paid for and idle makes what it does speak dearer."
    return Table(
        f"An hour of speech at {price:g} an hour", ["", "audio s/s", "objective met", *(f"busy {s:.0%}" for s in busy)], rows, note
    )


def price_of_speech(price: float, speed: float, busy: float = 1.0) -> float:
    """Price of an hour of speech. The machine costs `price` an hour and makes `speed` hours of speech in an hour of work; `busy` is the
    share of the time that it works.
    """
    return price / (speed * busy)


def between(a: dict[str, Any], b: dict[str, Any]) -> Table | None:
    """How two records of the same command differ, with bootstrap intervals; None when they have nothing comparable."""
    rows = []
    for name, before, after, of in _pairs(a, b):
        found = ratio_interval(before, after, of)
        if found is not None:
            ratio, low, high = found
            rows.append(
                [name, str(len(before)), str(len(after)), f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", "no" if low <= 1 <= high else "yes"]
            )
    note = (
        "Second over first. The interval covers how samples scatter within the runs, not what changes a machine from one run to the next."
    )
    return Table("Between the two runs", ["", "n", "n", "ratio", "95 % interval", "differ"], rows, note) if rows else None


def _pairs(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, list[float], list[float], Any]]:
    if a["command"] != b["command"]:
        return
    key = {"codec": "case", "frames": "case", "roofline": "stage"}.get(a["command"])
    if a["command"] == "busy":
        for name in ("alone", "beside neighbours"):
            before, after = ([_speed(r) for r in body["runs"] if bool(r["neighbours"]) == (name != "alone")] for body in (a, b))
            yield f"{name}: times real time", before, after, np.median
    elif key:
        others = {(r[key], r.get("streams")): r for r in b["runs"]}
        for run in a["runs"]:
            if other := others.get((run[key], run.get("streams"))):
                yield (
                    f"{run[key]}{', ' + str(run['streams']) if 'streams' in run else ''}: seconds",
                    run["seconds"],
                    other["seconds"],
                    np.median,
                )
    elif "objective" in a["settings"]:
        levels = {level(r): r for r in b["runs"]}
        for run in a["runs"]:
            if other := levels.get(level(run)):
                yield f"{level(run)}: first audio p50", firsts(run), firsts(other), np.median
                if run["window"] and other["window"]:
                    yield f"{level(run)}: audio s/s", slices(run), slices(other), np.mean


def _own_cost(client: dict[str, Any]) -> Table:
    waits = [1e3 * t for t in client["first_audio"]]
    cells = [f"{client['clients']} clients", str(len(waits)), f"{statistics.median(waits):.2f}", f"{max(waits):.2f}"]
    cells.append(f"{client['requests_per_second']:.0f}")
    note = "On something that answers at once. Figures above that come near these are the load generator's, not the target's."
    return Table("The load generator alone", ["", "requests", "first audio p50, ms", "max, ms", "requests/s"], [cells], note)


def _milliseconds(values: Sequence[float | None], *which: str) -> list[str]:
    found = percentiles([1e3 * v for v in values if v is not None])
    return [_number(found[p]) for p in which]


def _median(values: Iterator[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def _number(value: float | None) -> str:
    """A number with three significant digits, and without an exponent where readers expect none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _range(values: Sequence[float]) -> str:
    return f"{_number(min(values))} to {_number(max(values))}"


def _share(truths: Sequence[bool]) -> str:
    return f"{sum(truths) / len(truths):.0%}" if truths else "–"
