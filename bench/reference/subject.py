"""The reference implementation as a subject of `bench.compare`; runs in `.venv-reference` alone.

Reads one JSON request a line, answers with one. {"what": "frames", "positions": 200, "frames": 16} -> {"seconds": [a frame, ...]};
{"what": "decode", "frames": 64} -> {"seconds": [a whole decode]}.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import fish_speech_lib.fish_speech.models.text2semantic.inference as reference
import torch
from fish_speech_lib import FIREFLY_GAN_VQ_CONFIG
from fish_speech_lib.fish_speech.models.text2semantic.sampling import SamplingRng
from hydra.utils import instantiate

CACHE = 4096  # its command line's; it reads all of it at every frame


class Subject:
    """Model and codec of the released shape, loaded from one checkpoint directory."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model, _ = reference.load_model(str(checkpoint), "cpu", torch.float32)
        self.model.setup_caches(max_batch_size=1, max_seq_len=CACHE, dtype=torch.float32)
        self.codec = instantiate(FIREFLY_GAN_VQ_CONFIG).eval()
        self.codec.load_state_dict(torch.load(next(checkpoint.glob("firefly-gan-vq-fsq-*.pth")), weights_only=True))
        self.begin = self.model.tokenizer.semantic_begin_id
        self.controls = {
            "temperature": torch.tensor(0.7), "top_p": torch.tensor(0.7), "repetition_penalty": torch.tensor(1.2),
            "rng": SamplingRng("cpu", 0), "semantic_ids": [],
        }  # fmt: skip

    def frames(self, positions: int, frames: int) -> list[float]:
        """Seconds of each frame decoded after a prompt of `positions` columns."""
        codebooks = self.model.config.num_codebooks
        prompt = torch.randint(0, 1000, (1 + codebooks, positions), dtype=torch.int)
        prompt[0] = prompt[1] + self.begin
        column = reference.decode_one_token_ar(self.model, prompt[None], torch.arange(positions), previous_tokens=None, **self.controls)
        window, seconds = torch.zeros(1 + codebooks, 16, dtype=torch.int), []
        for i in range(frames):
            started = time.perf_counter()
            x = column.view(1, 1 + codebooks, 1).clone()
            x[0, 0, 0] = self.begin + int(x[0, 1, 0]) % 1000  # random weights may say anything; keep to what is spoken
            x[0, 1:].clamp_(max=999)
            column = reference.decode_one_token_ar(self.model, x, torch.tensor([positions + i]), previous_tokens=window, **self.controls)
            seconds.append(time.perf_counter() - started)
            window = torch.cat((window[:, 1:], column.view(1 + codebooks, 1).clamp(0, 1023)), dim=1)
        return seconds

    def decode(self, frames: int) -> list[float]:
        """Seconds of decoding that many frames to sound."""
        codes = torch.randint(0, 1000, (1, 8, frames))
        started = time.perf_counter()
        self.codec.decode(codes, torch.tensor([frames]))
        return [time.perf_counter() - started]


def main() -> None:
    """Answer requests until there are no more."""
    with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
        subject = Subject(Path(sys.argv[1]), int(sys.argv[2]))
        for line in sys.stdin:
            request = json.loads(line)
            answer = {"seconds": getattr(subject, request.pop("what"))(**request)}
            print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
