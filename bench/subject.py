"""Our engine's decoding as a subject of `bench.compare`: the protocol of `bench/reference/subject.py`, with a number of rows."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from inference import SpeechRequest
from inference.engine.matrix import Weights
from inference.engine.runner import Runner, Sequence
from inference.model import checkpoint as checkpoints
from inference.model.config import Manner


class Subject:
    """One checkpoint, and a runner for each kind of weights that was asked for."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._checkpoint = checkpoints.load(path, torch.device("cpu"))
        self._runner: Runner | None = None
        self._kind: tuple[Weights, int] | None = None

    def frames(self, positions: int, frames: int, rows: int = 1, weights: Weights = "native") -> list[float]:
        """Seconds of each step of `rows` sequences after prompts of `positions` columns."""
        if self._kind != (weights, rows):
            self._runner, self._kind = None, (weights, rows)
            self._runner = Runner(self._checkpoint, rows, weights)
        runner = self._runner
        assert runner is not None
        config, begin = self._checkpoint.config, self._checkpoint.tokenizer.semantic_begin
        for seed in range(rows):
            prompt = torch.randint(0, 1000, (1 + config.num_codebooks, positions))
            prompt[0] = prompt[1] + begin
            runner.stage(Sequence(SpeechRequest("x").settled(Manner()), prompt, frames + 2, torch.Generator().manual_seed(seed)))
            while not runner.free and len(runner.sequences) <= seed:
                runner.prefill()
        seconds = []
        for _ in range(frames):
            started = time.perf_counter()
            runner.step()
            seconds.append(time.perf_counter() - started)
        for s in list(runner.sequences):
            runner.remove(s)
        return seconds

    def decode(self, frames: int) -> list[float]:
        """Seconds of decoding that many frames to sound."""
        codes = torch.randint(0, 1000, (1, self._checkpoint.config.num_codebooks, frames))
        started = time.perf_counter()
        self._checkpoint.codec.decode(codes)
        return [time.perf_counter() - started]


def main() -> None:
    """Answer requests until there are no more."""
    with torch.inference_mode():
        subject = Subject(Path(sys.argv[1]), int(sys.argv[2]))
        for line in sys.stdin:
            request = json.loads(line)
            answer = {"seconds": getattr(subject, request.pop("what"))(**request)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
