"""The cells of `bench.tables` for attacks: what the server answered, and what ordinary clients and its memory saw of a siege."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Cells = tuple[str, list[str], list[list[str]], str]
"""A table's title, columns, rows and note."""


def attack(body: dict[str, Any]) -> Iterator[Cells]:
    """What the server answered, what it took, what ordinary clients saw of a siege, and what each process held meanwhile."""
    rows = [
        [r["attack"], r["answer"], _number(r["seconds"]), _number(r["health_held_seconds"]), str(r["memory_grew_mb"])]
        for r in body["runs"]
        if "attack" in r
    ]
    if rows:
        yield "attacks", ["attack", "answer", "seconds", "/health held, s", "memory grew, MB"], rows, ""
    sieges = [r for r in body["runs"] if "attackers" in r]
    seen = [
        [f"{r['attackers']} attackers", str(sum(r["answers"].values())), " ".join(f"{k}: {v}" for k, v in sorted(r["answers"].items())),
         _number(r["first_audio_p50"]), _number(r["first_audio_p95"]), _number(r["health_p99"]), _number(r["health_longest"]),
         " ".join(str(r["memory_mb"][at]) for at in ("before", "peak", "after"))]
        for r in sieges
    ]  # fmt: skip
    if seen:
        columns = ["siege", "requests", "answers", "first audio p50, s", "p95, s", "/health p99, s", "longest, s"]
        yield "ordinary clients", [*columns, "memory before, peak, after, MB"], seen, ""
    held = [
        [
            f"{r['attackers']} attackers",
            name,
            str(of["start"]),
            *(f"{a} to {b}" for a, b in zip(of["least"], of["most"], strict=True)),
            str(of["after"]),
        ]
        for r in sieges
        for name, of in r.get("memory_by_process_mb", {}).items()
    ]
    if held:
        note = "Pages that processes share are divided among them. What only grows has a larger least in each third."
        yield "memory by process, MB", ["siege", "process", "at first", "first third", "second", "last", "at rest afterwards"], held, note


def _number(value: float) -> str:
    return f"{value:.3g}"
