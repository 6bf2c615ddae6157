"""Our engine's decoding as a subject of `fishserve bench compare`: the protocol of `bench/reference/subject.py`, with a row for each prompt.

python -m bench.subject CHECKPOINT THREADS DEVICE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from bench.timing import now
from inference import SpeechRequest
from inference.engine.runner import Runner, Sequence
from inference.engine.weight_layouts import Weights
from inference.model import checkpoint as checkpoints
from inference.model.config import CODES_PER_GROUP, GenerationDefaults


class Subject:
    """One checkpoint, and a runner for the most recently requested kind of weights."""

    def __init__(self, path: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self._checkpoint = checkpoints.load(path, torch.device(device))
        self._runner: Runner | None = None
        self._kind: tuple[Weights, int] | None = None

    def frames(self, prompts: list[Any], frames: int, weights: Weights = "native") -> dict[str, Any]:
        """Seconds of one prompt with its first frame (on CUDA the first step makes that frame), then of each step of all prompts together.

        A prompt is (1 + codebooks, time).
        """
        if self._kind != (weights, len(prompts)):
            self._runner, self._kind = None, (weights, len(prompts))
            self._runner = Runner(self._checkpoint, len(prompts), weights)
        runner = self._runner
        assert runner is not None
        started = now(self._checkpoint.device)
        for seed, columns in enumerate(prompts):
            runner.stage(Sequence(SpeechRequest("x").resolved(GenerationDefaults()), torch.tensor(columns), frames + 2, seed))
            while len(runner.sequences) <= seed:
                runner.prefill()
        prefill = (now(self._checkpoint.device) - started) / len(prompts)
        seconds = []
        for _ in range(frames):  # a finished row keeps running: the arithmetic is the same
            started = now(self._checkpoint.device)
            runner.step()
            seconds.append(now(self._checkpoint.device) - started)
        for s in list(runner.sequences):
            runner.remove(s)
        return {"prefill": prefill, "seconds": seconds}

    def decode(self, frames: int) -> dict[str, Any]:
        """Seconds of decoding that many frames to sound."""
        codes = torch.randint(0, CODES_PER_GROUP, (1, self._checkpoint.config.num_codebooks, frames), device=self._checkpoint.device)
        started = now(self._checkpoint.device)
        self._checkpoint.codec.decode(codes)
        return {"seconds": [now(self._checkpoint.device) - started]}


def main() -> None:
    """Answer requests until the input ends."""
    checkpoint, threads, device = sys.argv[1:]
    with torch.inference_mode():
        subject = Subject(Path(checkpoint), int(threads), device)
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(getattr(subject, request.pop("what"))(**request)), flush=True)


if __name__ == "__main__":
    main()
