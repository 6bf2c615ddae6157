"""The reference implementation as a subject of `fishserve bench compare`; runs in `.venv-reference` alone.

    python -m bench.reference.subject CHECKPOINT THREADS DEVICE eager|compiled

Reads one JSON request a line, answers with one. {"what": "frames", "prompts": [columns], "frames": 16}, where columns are
(1 + codebooks, time), -> {"prefill": seconds, "seconds": [a frame, ...]}; {"what": "decode", "frames": 64} -> {"seconds": [a whole decode]}.
"""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import fish_speech_lib.fish_speech.models.text2semantic.inference as reference
import torch
from fish_speech_lib.fish_speech.models.text2semantic.sampling import SamplingRng

from bench.reference import codec

CACHE = 4096  # its command line's; it reads all of it at every frame


class Subject:
    """Model and codec, loaded from one checkpoint directory."""

    def __init__(self, checkpoint: Path, threads: int, device: str, compiled: bool) -> None:
        torch.set_num_threads(threads)
        self.device = device
        precision = torch.float32 if device == "cpu" else torch.float16
        self.model, self.decode_one = reference.load_model(str(checkpoint), device, precision, compile=compiled)
        with torch.device(device):
            self.model.setup_caches(max_batch_size=1, max_seq_len=min(CACHE, self.model.config.max_seq_len), dtype=precision)
        self.codec = codec.load(checkpoint, device)
        self.begin = self.model.tokenizer.semantic_begin_id
        self.controls = {
            "temperature": torch.tensor(0.7, device=device), "top_p": torch.tensor(0.7, device=device),
            "repetition_penalty": torch.tensor(1.2, device=device), "rng": SamplingRng(device, 0), "semantic_ids": [],
        }  # fmt: skip

    def frames(self, prompts: list[Any], frames: int) -> dict[str, Any]:
        """Seconds of the prompt with the first frame, then of each frame. One prompt: the reference implementation has no batches."""
        codebooks = self.model.config.num_codebooks
        prompt = torch.tensor(prompts[0], dtype=torch.int, device=self.device)
        positions = torch.arange(prompt.shape[1], device=self.device)
        started = self._now()
        column = reference.decode_one_token_ar(self.model, prompt[None], positions, previous_tokens=None, **self.controls)
        prefill = self._now() - started
        window, seconds = torch.zeros(1 + codebooks, 16, dtype=torch.int, device=self.device), []
        for i in range(frames):
            started = self._now()
            x = column.view(1, 1 + codebooks, 1).clone()
            x[0, 0, 0] = self.begin + x[0, 1, 0] % 1000  # random weights may say anything; keep to what is spoken
            x[0, 1:].clamp_(max=min(999, self.model.config.codebook_size - 1))
            at = torch.tensor([prompt.shape[1] + i], device=self.device, dtype=torch.int)
            column = self.decode_one(self.model, x, at, previous_tokens=window, **self.controls).clone()
            seconds.append(self._now() - started)
            window = torch.cat((window[:, 1:], column.view(1 + codebooks, 1).clamp(0, self.model.config.codebook_size - 1)), dim=1)
        return {"prefill": prefill, "seconds": seconds}

    def decode(self, frames: int) -> dict[str, Any]:
        """Seconds of decoding that many frames to sound."""
        codes = torch.randint(0, 1000, (1, self.model.config.num_codebooks, frames), device=self.device)
        started = self._now()
        self.codec.decode(codes, torch.tensor([frames], device=self.device))
        return {"seconds": [self._now() - started]}

    def _now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def main() -> None:
    """Answer requests until there are no more."""
    checkpoint, threads, device, how = sys.argv[1:]
    with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
        subject = Subject(Path(checkpoint), int(threads), device, how == "compiled")
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(getattr(subject, request.pop("what"))(**request)), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
