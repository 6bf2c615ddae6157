"""Measures what the engine's own Python costs a round, with a stand-in for the device that takes no time.

On a GPU this work is between two frames: whatever it takes beyond the device's time, everybody waits for.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from bench.record import Record
from bench.serving import Step as Shown
from inference import SpeechEngine, SpeechRequest
from inference.engine.graphs import Graphs
from inference.engine.runner import WINDOW
from inference.engine.vocoder import LARGEST_CHUNK, STARTED_FRAMES, Passes, PendingSound
from inference.model.checkpoint import Checkpoint
from inference.model.codec import Codec, CodecStream
from inference.model.config import SAMPLES_PER_FRAME
from inference.model.dual_ar import KVCache

ROUNDS, WARMING = 150, 10
TEXT = "This is one sentence, and it is spoken for as long as it is measured."


class _Round(SpeechEngine):
    """An engine without a thread, whose device takes no time: frames and samples are there at once, and always the same."""

    def __init__(self, checkpoint: Checkpoint, rows: int) -> None:
        super().__init__(checkpoint, rows)
        runner = self._runner
        step = Frames(checkpoint)
        runner._graphs = Graphs(step, runner._cache, rows, step.codebooks, WINDOW)
        self._vocoder._passes, self._vocoder._alone = Samples(checkpoint.codec, rows), False
        self._vocoder.frames_a_round, self._vocoder.frames_beside = STARTED_FRAMES, None

    def _loop(self) -> None:
        pass


class Frames:
    """In the place of `inference.engine.cuda_decode_step.FusedStep`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.codebooks = checkpoint.config.num_codebooks
        self._token = checkpoint.tokenizer.semantic_begin + 7

    def frame(self, numbers: Tensor, sampling: Tensor, active: Tensor, cache: KVCache, frames: Tensor) -> None:  # noqa: ARG002
        """The same healthy frame for each row, unless it is there already."""
        if not frames[-1, -1]:
            frames[:] = 7
            frames[:, 0], frames[:, -1] = self._token, 1


class Samples(Passes):
    """Silence at once."""

    def __init__(self, codec: Codec, rows: int) -> None:
        super().__init__(codec)
        self._ready = torch.zeros(rows, LARGEST_CHUNK * SAMPLES_PER_FRAME)

    def launch(self, streams: list[CodecStream], codes: Tensor) -> PendingSound:
        return PendingSound(self._ready[: len(streams), : codes.shape[2] * SAMPLES_PER_FRAME], None)


@torch.inference_mode()
def measure(checkpoint: Checkpoint, rows: list[int], record: Record, step: Shown) -> None:
    """Seconds of each round with so many rows, each with a chunk of sound now and then; nothing is prefilled meanwhile."""
    for n in rows:
        with step(f"{n} row{'s'[: n > 1]}", None):
            engine = _Round(checkpoint, n)
            room = checkpoint.config.max_seq_len // 2
            for seed in range(n):
                engine.submit(SpeechRequest(TEXT, seed=seed, max_new_tokens=room, repetition_penalty=1.2), lambda _: None)
            while len(engine._runner.sequences) < n:
                engine._iterate()
            seconds = []
            for _ in range(WARMING + ROUNDS):
                started = time.perf_counter()
                engine._iterate()
                seconds.append(time.perf_counter() - started)
            assert len(engine._runner.sequences) == n
            record.runs.append({"case": "host", "rows": n, "seconds": seconds[WARMING:]})
            record.write()
            engine.close()
            del engine
