"""What Ray Serve costs: `fishserve serve` and a cluster of one replica in alternation, each alone on this machine, with minnow on one thread.

`.venv/bin/python -m tests.inference.cluster.overhead` takes about four minutes, writes bench/results/cluster-overhead.json, and prints the
table of docs/cluster.md.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.load import Sample
from bench.record import facts, read, recording
from bench.serving import audio_per_second
from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS

OUT = Path(__file__).parents[3] / "bench" / "results" / "cluster-overhead.json"
LEVELS, SECONDS = (1, 4, 8), 8
ORDER = ("single", "cluster", "cluster", "single", "single", "cluster")
"""Three runs of each, so that a machine that slows down slows both."""


def measure(kind, folder):
    """A run of `fishserve bench http` for each level, on a server that was started for it."""
    out = folder / "run.json"
    start = Server if kind == "single" else Cluster
    with start(EMBEDDED_VOICE, folder, OMP_NUM_THREADS="1").wait_ready() as server:
        words = ["--what", "latency", "--buckets", "short", "--concurrency", ",".join(map(str, LEVELS)), "--seconds", str(SECONDS)]
        command = [sys.executable, "-m", "inference.cli", "bench", "http", server.url, *words, "-o", str(out)]
        subprocess.run(command, check=True, timeout=HANG_SECONDS)
    return [{"server": kind} | run for run in read(out)["runs"]]


def row(runs, clients):
    """The table's cells for a level: median first audio of all requests, seconds of audio a second of each run, and their ratios."""
    cells = {}
    for kind in ("single", "cluster"):
        mine = [run for run in runs if (run["server"], run["clients"]) == (kind, clients)]
        samples = [[Sample(**sample) for sample in run["samples"]] for run in mine]
        assert not any(sample.error for each in samples for sample in each)
        first = 1000 * statistics.median(sample.first_audio for each in samples for sample in each)
        cells[kind] = first, [audio_per_second(each, 0, run["window"]) for each, run in zip(samples, mine, strict=True)]
    ratios = sorted(b / a for a, b in zip(cells["single"][1], cells["cluster"][1], strict=True))
    single, cluster = (statistics.median(cells[kind][1]) for kind in ("single", "cluster"))
    return (
        f"| {clients} | {cells['single'][0]:.0f} ms | {cells['cluster'][0]:.0f} ms | {single:.1f} | {cluster:.1f} "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
    )


def main():
    settings = {"order": ORDER, "concurrency": LEVELS, "seconds": SECONDS, "threads": 1}
    with tempfile.TemporaryDirectory() as folder, recording(OUT, "cluster-overhead", settings, facts(None)) as record:
        for kind in ORDER:
            record.runs += measure(kind, Path(folder))
            record.write()
    for clients in LEVELS:
        print(row(record.runs, clients))


if __name__ == "__main__":
    main()
