"""Speech that goes wrong on purpose: an engine on a CPU that generates given frames in place of those its model draws."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from inference.engine.engine import SpeechEngine
from inference.engine.runner import Runner, Sequence


class Forced:
    """Replaces the frames of an engine's next sequences, in the order in which these begin: each segment, and each further take of it.

    `scripts` has codes (codebooks, frames) for each, after which the sequence ends; None leaves one to the model, and so do missing ones.
    The model computes each frame all the same, with the given ones before it.
    """

    def __init__(self, engine: SpeechEngine) -> None:
        runner: Runner = engine._runner
        self.scripts: list[np.ndarray | None] = []
        self._forced: dict[Sequence, np.ndarray] = {}
        self._stage, self._record = runner.stage, runner._record
        self._end, self._semantic = engine.checkpoint.tokenizer.im_end, engine.checkpoint.tokenizer.semantic_begin
        vars(runner).update(stage=self._staged, _record=self._recorded)

    def play(self, scripts: Iterable[np.ndarray | None]) -> None:
        """Force these frames upon the next sequences, and forget all others."""
        self.scripts, self._forced = list(scripts), {}

    def _staged(self, sequence: Sequence) -> None:
        script = self.scripts.pop(0) if self.scripts else None
        if script is not None:
            self._forced[sequence] = script
        self._stage(sequence)

    def _recorded(self, sequences: list[Sequence], frames: np.ndarray) -> None:
        for sequence, frame in zip(sequences, frames, strict=True):
            script = self._forced.get(sequence)
            if script is None:
                continue
            at, codebooks = len(sequence.frames), len(script)
            if at < script.shape[1]:
                frame[0], frame[1 : 1 + codebooks] = script[0, at] + self._semantic, script[:, at]
            else:
                frame[0] = self._end
        self._record(sequences, frames)
