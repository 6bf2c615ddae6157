"""`python -m training.following`: teaches minnow's language model to follow clips, while it stays what it is in the teacher's voice.

In --work it needs `dual_ar.pt`, which `python -m training.unpack` writes of --checkpoint, and what `python -m training.widening` makes.
In rather more than half of its steps it learns what other speakers say behind a clip of theirs, as `python -m training dual-ar` does.
In the others, which are the teacher's, it learns to predict what the checkpoint's model does: so it keeps what that has learned from its takes.
With several checkpoints it learns what they agree on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from inference.hub import EMBEDDED_VOICE
from training.dual_ar import DualARTraining, Losses, Student, auxiliary_losses, load_weights, predictions
from training.export import write_language_model
from training.machine import Machine
from training.recipe import Recipe
from training.samples import Batch
from training.shards import code_shards, other_speakers
from training.unpack import read_weights, student_state

SECONDS, DECAY = 3_600, 0.85
"""Of a core, and over what share of them the rate falls to nothing."""
RATE = 7e-4
COLUMNS = 2_400
SEVERAL_SHARE = 0.15
HOLD = 2.0
"""Weight of the divergence from the checkpoint's model."""


class FollowingTraining(DualARTraining):
    """A run that is held to the models of checkpoints wherever there is no clip."""

    def __init__(self, recipe: Recipe, machine: Machine, checkpoints: Sequence[Path]) -> None:
        super().__init__(recipe, machine)
        self.before = [self._model(checkpoint) for checkpoint in checkpoints]

    def _model(self, checkpoint: Path) -> Student:
        model, file = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab), checkpoint / "model.safetensors"
        try:
            state = student_state(model, read_weights(file))
        except (SafetensorError, KeyError) as e:
            raise SystemExit(f"{file} is not of this recipe's model: {e}") from None
        load_weights(model, state, file)
        return model.requires_grad_(False).eval()

    def _losses(self, batch: Batch) -> Losses:
        if batch.reference.any():
            return super()._losses(batch)
        now = predictions(self.student, batch, self.r)
        with torch.no_grad():
            before = [predictions(model, batch, self.r, now.chosen) for model in self.before]
        token = divergence(agreed([b.tokens for b in before]), now.tokens)
        codes = divergence(agreed([b.codes for b in before]), now.codes)[:, 1:]  # the token is the first code
        return Losses(HOLD * token.mean(), HOLD * codes.mean(), *auxiliary_losses(self.student, batch, now, self.r))


def agreed(logits: Sequence[Tensor]) -> Tensor:
    """Logits (..., choices) of the normalised geometric mean of several distributions, of whose logits each is."""
    return torch.stack([found.float().log_softmax(-1) for found in logits]).mean(0)


def divergence(wanted: Tensor, found: Tensor) -> Tensor:
    """How far the distributions of some logits (..., choices) are from those of others, Kullback-Leibler, (...) in nats."""
    right = wanted.float().log_softmax(-1)
    return (right.exp() * (right - found.float().log_softmax(-1))).sum(-1)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write the language model."""
    parser = argparse.ArgumentParser(
        prog="python -m training.following", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the recipe's run (default: %(default)s)")
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[EMBEDDED_VOICE], help="whose language models it is held to (default: minnow)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=RATE,
        help="learning rate at first; less for a model that follows clips already (default: %(default)g)",
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds of a core, all runs together (default: %(default)s)")
    options = parser.parse_args(arguments)
    for name in ("seconds", "rate"):
        if not (number := getattr(options, name)) > 0:
            parser.error(f"--{name} is {number:g}; it must be more than 0")
    if lacking := [path for path in options.checkpoint if not (path / "model.safetensors").is_file()]:
        parser.error(f"--checkpoint: {lacking[0]} has no model.safetensors")
    recipe = Recipe(options.work)
    needed = {
        "dual_ar.pt": ((recipe.folder / "dual_ar.pt").exists(), "training.unpack"),
        "shards of codes": (code_shards(recipe), "training speech codes"),
        "codes of other speakers": (other_speakers(recipe), "training.widening"),
    }
    for name, (there, maker) in needed.items():
        if not there:
            raise SystemExit(f"{options.work} has no {name}: make them with `python -m {maker}`")
    torch.set_num_threads(1)
    shorter = {"seconds": options.seconds, "decay_seconds": DECAY * options.seconds}
    dual_ar = replace(recipe.dual_ar, **shorter, rate=options.rate, columns=COLUMNS, several_share=SEVERAL_SHARE)
    training = FollowingTraining(replace(recipe, dual_ar=dual_ar), Machine(), options.checkpoint)
    training.run()
    print(write_language_model(training.averaged(), recipe.folder), flush=True)


if __name__ == "__main__":
    main()
