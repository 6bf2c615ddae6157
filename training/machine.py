"""Where the stages run, in how many processes, and when they stop."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection

import torch

from inference.processes import end_with_parent
from training.recipe import Recipe

Work = Callable[[Recipe, "Machine", int], None]


@dataclass(frozen=True)
class Machine:
    """The machine to run on: networks train on `device`, and the teacher speaks on CPUs, in `processes` processes."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: int = 1
    until: float = math.inf
    """A value of `time.monotonic()`. A stage that reaches it does at most one more step or shard, and saves its work."""
    step_seconds: float | None = None
    """Seconds that each step counts as, for a run that must take the same number of steps on any machine. None: its actual time."""
    _readings: list[int] = field(default_factory=lambda: [0])

    @property
    def is_over(self) -> bool:
        """Whether the stages have to stop."""
        return time.monotonic() >= self.until

    @property
    def name(self) -> str:
        """The hardware that the seconds of `clock` are measured on, for the model card."""
        return "one CPU core" if self.device.type == "cpu" else f"one {torch.cuda.get_device_name(self.device)}"

    def clock(self) -> float:
        """Seconds as recipes count them: this process's CPU time, or wall-clock time where a GPU does the work."""
        if self.step_seconds is not None:  # stages read it once a step
            self._readings[0] += 1
            return self._readings[0] * self.step_seconds
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()


def in_processes(work: Work, recipe: Recipe, machine: Machine) -> None:
    """Run `work(recipe, machine, process)` in each process, with one thread; in this process if there is only one.

    They end with this one; on Linux even when it is killed.
    """
    if machine.processes == 1:
        work(recipe, machine, 0)
        return
    (recipe.folder / "meeting").unlink(missing_ok=True)
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_alone, args=(os.getpid(), work, recipe, machine, process)) for process in range(machine.processes)]
    for worker in workers:
        worker.start()
    running = list(workers)
    while running:
        connection.wait([worker.sentinel for worker in running])
        if any(worker.exitcode for worker in workers):  # the other processes may be waiting for it
            for worker in running:
                worker.terminate()
            raise SystemExit(f"a process of {getattr(work, 'func', work).__name__} failed; what it said is above")
        running = [worker for worker in running if worker.is_alive()]


def _alone(parent: int, work: Work, recipe: Recipe, machine: Machine, process: int) -> None:
    end_with_parent(parent)
    torch.set_num_threads(1)
    work(recipe, machine, process)
