"""Measures speed alone and beside processes that spin on the same cores, in alternation.

Each round speaks the same texts with the same seeds alone and beside the neighbours, so that a round's ratio compares equal work.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.prompts import prompts
from bench.record import Record
from bench.serving import Step
from inference import SpeechEngine, SpeechRequest

MAX_NEIGHBOUR_SECONDS = 900
MAX_FRAMES = 64
"""Limit of one request: random weights seldom end by themselves, and a slow machine must finish a round."""

_SPIN = """
import os, sys, time
parent, end = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
print(flush=True)
while os.getppid() == parent and time.monotonic() < end:
    for _ in range(100_000):
        pass
"""


def measure(engine: SpeechEngine, neighbours: int, rounds: int, seconds: float, record: Record, step: Step) -> None:
    """Run as many requests in a round as take about `seconds` alone; every other round begins with the neighbours."""
    with step("warm-up", None):
        _speak(engine, 1)
        alone = _speak(engine, 2)
    count = max(1, round(seconds * 2 / alone["seconds"]))
    record.body["requests"] = count
    expected = count * alone["seconds"] / 2
    for n in range(rounds):
        for beside in (0, neighbours) if n % 2 == 0 else (neighbours, 0):
            name = f"round {n + 1} of {rounds}, {f'{beside} neighbours' if beside else 'alone'}"
            with step(name, expected), spinning(beside) as used:
                run = _speak(engine, count)
            record.runs.append({"round": n, "neighbours": beside, "neighbour_cpu_seconds": used[0], **run})
        record.write()


@contextmanager
def spinning(count: int) -> Iterator[list[float]]:
    """Run `count` processes that compute without end at our own priority while the block runs. The list's one item becomes their CPU time.

    They are killed however the block ends. If this process itself is killed, each notices within milliseconds.
    """
    used, before = [0.0], _cpu_seconds(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-I", "-S", "-c", _SPIN, str(os.getpid()), str(MAX_NEIGHBOUR_SECONDS)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            # A process group keeps Ctrl-C from them. A session would, too, but Linux may schedule CPU time by session.
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0))
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # the process spins from here on
        yield used
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()
        used[0] = _cpu_seconds(resource.RUSAGE_CHILDREN) - before


def _speak(engine: SpeechEngine, count: int) -> dict[str, Any]:
    """Speak `count` texts one after the other: seconds taken, seconds spoken, and the CPU time of this process and of all processes on the
    machine.
    """
    texts = prompts(["medium"])
    audio, first, machine, own, started = 0.0, [], _machine_cpu_seconds(), time.process_time(), time.perf_counter()
    for _ in range(count):
        prompt, asked, heard = next(texts), time.perf_counter(), 0.0
        with engine.stream(SpeechRequest(prompt.text, seed=prompt.number, max_new_tokens=MAX_FRAMES)) as stream:
            for chunk in stream:
                heard = heard or time.perf_counter() - asked
                audio += chunk.seconds
        first.append(heard)
    taken = time.perf_counter() - started
    after = _machine_cpu_seconds()
    return {
        "seconds": taken, "audio": audio, "first_audio": first, "cpu_seconds": time.process_time() - own,
        "machine_cpu_seconds": None if machine is None or after is None else after - machine,
    }  # fmt: skip


def _cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _machine_cpu_seconds() -> float | None:
    """CPU time of all processes since the machine started; None where the system does not report it."""
    try:
        user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(interrupts[:2])) / os.sysconf("SC_CLK_TCK")
