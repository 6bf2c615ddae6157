"""The cells of `bench.tables` for clusters: voices' prompts that were found, and what simulated clusters came to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Cells = tuple[str, list[str], list[list[str]], str]
"""A table's title, columns, rows and note."""
FACTS = ("routing", "clients", "prefill", "load", "cold", "busy", "replica_hours", "refusing")
"""What a case varies, or says of itself."""


def voices(body: dict[str, Any]) -> Iterator[Cells]:
    """How often voices' prompts were found, in all and at each replica, with each number of clients."""
    for run in body["runs"]:
        of, p50, p95 = run["replicas"], run["first_audio"]["p50"], run["first_audio"]["p95"]
        rows = [["all", f"{sum(sum(r.values()) for r in of.values()):.0f}", f"{run['hit_rate']:.1%}"]]
        rows += [[name or "server", f"{sum(r.values()):.0f}", f"{r['hit'] / max(1, sum(r.values())):.1%}"] for name, r in of.items()]
        note = f"First audio {1000 * p50:.0f} ms at the median" + (f", {1000 * p95:.0f} ms at 95%." if p95 else ".")
        yield f"Voices' prompts, clients: {run['clients']}", ["replica", "looked up", "found"], rows, note


def fleet(body: dict[str, Any]) -> Iterator[Cells]:
    """What simulated clusters came to, a table for each case."""
    columns = ["replicas", "requests", "prompts found", "first audio p50, ms", "p95, ms", "p99, ms", "refused"]
    for case in dict.fromkeys(r["case"] for r in body["runs"]):
        runs = [r for r in body["runs"] if r["case"] == case]
        facts = [fact for fact in FACTS if fact in runs[0]]
        rows = []
        for r in runs:
            first = ["" if (value := r[f"first_audio_{p}"]) is None else f"{1000 * value:.0f}" for p in ("p50", "p95", "p99")]
            cells = [str(r["replicas"]), str(r["requests"]), f"{r['hit_rate']:.1%}", *first, f"{r['refused']:.2%}"]
            rows.append(cells + [str(r[fact]) for fact in facts])
        yield f"Clusters: {case}", [*columns, *(fact.replace("_", " ") for fact in facts)], rows, ""
