"""What 8-bit weights change: one step of the same model on the same past, in FP32 and in 8 bits.

python -m bench.rounding CHECKPOINT [--out FILE.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from bench.engine import RESULTS, SCHEMA, machine
from inference.engine.step import Step
from inference.model import checkpoint as checkpoints
from inference.model.dual_ar import Span

POSITIONS, STEPS = 64, 32


@torch.inference_mode()
def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description="What 8-bit weights change.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "int8-rounding.json")
    a = parser.parse_args()
    loaded = checkpoints.load(a.checkpoint, torch.device("cpu"))
    lm, config = loaded.lm, loaded.config
    torch.manual_seed(0)
    columns = torch.randint(0, min(1000, config.codebook_size), (1, 1 + config.num_codebooks, POSITIONS + STEPS))
    columns[:, 0] = columns[:, 1] + loaded.tokenizer.semantic_begin
    errors, agreements = [], []
    steps = {"int8": Step(lm, 1, "int8"), "native": Step(lm, 1)}
    cache = lm.new_cache(1, POSITIONS + STEPS)
    lm.slow(columns[:, :, :POSITIONS], cache, Span.prompt(0, 0, POSITIONS, torch.device("cpu")))
    for n in range(POSITIONS, POSITIONS + STEPS):
        hidden = {kind: step.slow(columns[:, :, n], cache, [n]) for kind, step in steps.items()}  # native last: its past is kept
        errors.append(float((hidden["int8"] - hidden["native"]).norm() / hidden["native"].norm()))
        logits = {kind: lm.token_logits(h) for kind, h in hidden.items()}
        agreements.append(bool(logits["int8"].argmax() == logits["native"].argmax()))
    report = {"hidden_error": sum(errors) / len(errors), "same_likeliest_token": sum(agreements) / len(agreements)}
    print(report)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(
        json.dumps({"schema": SCHEMA, "machine": machine(), "errors": errors, "agreements": agreements, **report}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
