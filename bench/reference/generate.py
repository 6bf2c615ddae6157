"""Speaks with the reference implementation, for comparison. Runs in `.venv-reference` alone (`make reference`).

    python -m bench.reference.generate CHECKPOINT REQUEST.json OUT.npz

REQUEST.json: {"text", "references": [{"text", "codes"}], "chunk_length", "max_new_tokens", "repetition_penalty"}.
OUT.npz: greedy `codes` (codebooks, frames), and `wave` (samples,), the codes decoded as one utterance.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fish_speech_lib.fish_speech.models.text2semantic.inference import generate_long, load_model

from bench.reference import codec

GREEDY_TOP_P = 1e-6  # keeps the likeliest token alone; the reference implementation has no greedy mode


def speak(checkpoint: Path, request: dict[str, Any]) -> np.ndarray:
    """Greedy codes of a text, (codebooks, frames)."""
    model, decode_one_token = load_model(str(checkpoint), "cpu", torch.float32)
    model.setup_caches(max_batch_size=1, max_seq_len=model.config.max_seq_len, dtype=torch.float32)
    answers = generate_long(
        model=model, decode_one_token=decode_one_token, text=request["text"], max_new_tokens=request["max_new_tokens"],
        top_p=GREEDY_TOP_P, repetition_penalty=request["repetition_penalty"], temperature=0.7, iterative_prompt=True, max_length=4096,
        chunk_length=request["chunk_length"], prompt_text=[r["text"] for r in request["references"]],
        prompt_tokens=[torch.tensor(r["codes"], dtype=torch.int32) for r in request["references"]], seed=0,
    )  # fmt: skip
    return torch.cat([a.codes for a in answers if a.action == "sample"], dim=1).numpy()


def decode(checkpoint: Path, codes: np.ndarray) -> np.ndarray:
    """Samples of codes."""
    frames = torch.tensor([codes.shape[1]])
    return codec.load(checkpoint).decode(torch.from_numpy(codes)[None], frames)[0].flatten().numpy()


def main() -> None:
    """Read the request, speak, write the result."""
    checkpoint, request, out = map(Path, sys.argv[1:])
    with torch.inference_mode():
        codes = speak(checkpoint, json.loads(request.read_text()))
        np.savez(out, codes=codes, wave=decode(checkpoint, codes) if codes.max() < 1000 else np.zeros(0))


if __name__ == "__main__":
    main()
