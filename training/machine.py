"""Where the stages run, and when they have to stop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Machine:
    """Networks are trained on `device`; the teacher speaks on CPUs, in `processes`."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    processes: int = 1
    until: float = math.inf
    """Of `time.monotonic()`. A stage that has come this far does one more step, or shard, at the most, and saves what it has."""

    @property
    def is_over(self) -> bool:
        """Whether the stages have to stop."""
        return time.monotonic() >= self.until

    @property
    def name(self) -> str:
        """What the seconds of `clock` are spent on, for the model card."""
        return "one CPU core" if self.device.type == "cpu" else f"one {torch.cuda.get_device_name(self.device)}"

    def clock(self) -> float:
        """Seconds as recipes count them: of this process's processor time, or, where a GPU does the work, of the clock on the wall."""
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()
