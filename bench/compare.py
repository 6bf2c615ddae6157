"""Our decoding beside the reference implementation's: same weights, same machine, same run, taking turns.

    make reference
    fishserve random-checkpoint var/full --shape full
    python -m bench.compare var/full [--rounds 3] [--threads 2] [--out FILE.json]

Both are loaded once and measured alternately, so that whatever else the machine does falls on both. Every frame's time is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.engine import RESULTS, SCHEMA, machine

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / ".venv-reference" / "bin" / "python"
FRAMES, POSITIONS = 16, 200
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("reference", "1 stream", {"what": "frames"}),
    ("ours", "1 stream, FP32", {"what": "frames", "rows": 1}),
    ("ours", "1 stream, int8", {"what": "frames", "rows": 1, "weights": "int8"}),
    ("ours", "8 streams, FP32", {"what": "frames", "rows": 8}),
    ("ours", "8 streams, int8", {"what": "frames", "rows": 8, "weights": "int8"}),
    ("reference", "codec decode", {"what": "decode", "frames": 64}),
    ("ours", "codec decode", {"what": "decode", "frames": 64}),
]


class Subject:
    """A process that measures what it is asked to."""

    def __init__(self, python: Path, script: list[str], checkpoint: Path, threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "LOGURU_LEVEL": "WARNING", "TQDM_DISABLE": "1"}
        self._process = subprocess.Popen(
            [python, *script, checkpoint, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    def measure(self, request: dict[str, Any]) -> list[float]:
        """Seconds of each frame, or of the decode."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        seconds: list[float] = json.loads(self._process.stdout.readline())["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def bandwidth() -> float:
    """Bytes a second that this machine reads at best: the sum of 2 GB, the best of five."""
    import torch

    block = torch.ones(250_000_000, dtype=torch.float64)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - started)
    return block.nbytes / best


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description="Our decoding beside the reference implementation's.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--python", type=Path, default=REFERENCE, help="the reference's interpreter")
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    report: dict[str, Any] = {"schema": SCHEMA, "machine": machine() | {"threads": a.threads}, "bytes_per_second": bandwidth(), "cases": []}
    subjects = {
        "reference": Subject(a.python, ["bench/reference/subject.py"], a.checkpoint.resolve(), a.threads),
        "ours": Subject(Path(sys.executable), ["-m", "bench.subject"], a.checkpoint.resolve(), a.threads),
    }
    samples: dict[tuple[str, str], list[list[float]]] = {(who, name): [] for who, name, _ in CASES}
    for _ in range(a.rounds):
        for who, name, request in CASES:
            fields = {"positions": POSITIONS, "frames": FRAMES} if request["what"] == "frames" else {}
            samples[who, name].append(subjects[who].measure(request | fields))
    for subject in subjects.values():
        subject.close()
    base: dict[str, float] = {}
    print(f"{'':34} rate      times the reference (each round)")
    for who, name, request in CASES:
        amount = request.get("rows", 1) if request["what"] == "frames" else request["frames"]
        rates = [amount / statistics.median(s[1:] if len(s) > 1 else s) for s in samples[who, name]]
        kind = request["what"]
        if who == "reference":
            base[kind] = statistics.median(rates)
            reference_rates = rates
        ratios = [r / b for r, b in zip(rates, reference_rates, strict=True)]
        report["cases"].append(
            {"who": who, "case": name, "request": request, "frames_per_second": rates, "ratios": ratios, "seconds": samples[who, name]}
        )
        print(
            f"{who + ', ' + name:34} {statistics.median(rates):6.2f}/s  {statistics.median(ratios):5.2f}   ({', '.join(f'{r:.2f}' for r in ratios)})"
        )
    out = a.out or RESULTS / "cpu-compare.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(out)


if __name__ == "__main__":
    main()
