"""Measures the engine in this process: time to first audio and real-time factor at several concurrencies.

    python -m bench.engine [--checkpoint DIR] [--concurrency 1 4 8] [--seconds 20] [--out FILE.json]

Prompts are distinct, warm-up is not counted, and every raw sample is kept in the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from inference import SpeechEngine, SpeechRequest

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"
SENTENCES = (
    "The harbour was quiet before sunrise, and only the gulls were awake.",
    "Please leave the parcel with the neighbour on the second floor.",
    "Nobody expected the committee to agree within an hour.",
    "A thin layer of ice had formed over the garden pond.",
    "She counted the coins twice and put them back into the jar.",
    "Turn left after the bridge, then follow the river for a mile.",
)


@dataclass(frozen=True)
class Sample:
    """One request: seconds from submission to the first chunk and to the last, and seconds of audio."""

    first_audio: float
    total: float
    audio: float


def speak(engine: SpeechEngine, number: int) -> Sample:
    """Speak a prompt nobody spoke before."""
    text = f"Number {number}. {SENTENCES[number % len(SENTENCES)]}"
    started, first, audio = time.perf_counter(), 0.0, 0.0
    for chunk in engine.stream(SpeechRequest(text, seed=number, max_new_tokens=200)):
        first = first or time.perf_counter() - started
        audio += chunk.seconds
    return Sample(first, time.perf_counter() - started, audio)


def closed_loop(engine: SpeechEngine, clients: int, seconds: float) -> tuple[list[Sample], float]:
    """`clients` that each start a request when the last one ends, for about `seconds`; samples and the time it took."""
    samples: list[Sample] = []
    numbers, lock, started = iter(range(10**9)), threading.Lock(), time.perf_counter()

    def client() -> None:
        while time.perf_counter() - started < seconds:
            with lock:
                number = next(numbers)
            samples.append(speak(engine, number))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return samples, time.perf_counter() - started


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    revision = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent).stdout.strip()
    return {
        "cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "threads": torch.get_num_threads(),
        "revision": revision, "load_average": os.getloadavg(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", default=os.environ.get("FISHSERVE_CHECKPOINT"))
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    report: dict[str, Any] = {"schema": SCHEMA, "machine": machine(), "checkpoint": a.checkpoint, "runs": []}
    with SpeechEngine.load(a.checkpoint, rows=max(a.concurrency)) as engine:
        speak(engine, 10**6)
        print("clients  requests  first audio p50 / max   audio seconds per second")
        for clients in a.concurrency:
            samples, elapsed = closed_loop(engine, clients, a.seconds)
            firsts, throughput = [s.first_audio for s in samples], sum(s.audio for s in samples) / elapsed
            report["runs"].append(
                {"clients": clients, "elapsed": elapsed, "throughput": throughput, "samples": [asdict(s) for s in samples]}
            )
            print(f"{clients:7d} {len(samples):9d} {statistics.median(firsts):11.3f} s / {max(firsts):.3f} s {throughput:18.2f}")
    out = a.out or RESULTS / f"engine-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(out)


if __name__ == "__main__":
    main()
