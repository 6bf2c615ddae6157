"""`python -m training.following`: teaches minnow's language model to follow clips, while it stays what it is in the teacher's voice.

In --work it needs `dual_ar.pt`, which `python -m training.unpack` writes of --checkpoint, and what `python -m training.widening` makes.
In rather more than half of its steps it learns what other speakers say behind a clip of theirs, as `python -m training dual-ar` does.
In the others, which are the teacher's, it learns to predict what the checkpoint's model does: so it keeps what that has learned from its takes.
With several checkpoints it learns what they agree on. With --behind it does so behind clips, too, from the checkpoints given there;
what others say then teaches no more than the guided heads and the readouts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from inference.hub import EMBEDDED_VOICE
from training.dual_ar import DualARTraining, Losses, Student, auxiliary_losses, load_weights, meeting, predictions
from training.export import write_language_model
from training.machine import Machine, in_processes
from training.recipe import Recipe
from training.samples import Batch
from training.shards import code_shards
from training.unpack import read_weights, student_state

SECONDS, DECAY = 3_600, 0.85
"""Of a core, and over what share of them the rate falls to nothing."""
RATE = 7e-4
COLUMNS = 2_400
SEVERAL_SHARE = 0.15
HOLD = 2.0
"""Weight of the divergence from the checkpoint's model."""


class FollowingTraining(DualARTraining):
    """A run that is held to the models of checkpoints wherever there is no clip, and to those of `behind`, if any, where there is one."""

    def __init__(
        self, recipe: Recipe, machine: Machine, checkpoints: Sequence[Path], behind: Sequence[Path] = (), process: int = 0
    ) -> None:
        super().__init__(recipe, machine, process)
        models = {path: self._model(path) for path in dict.fromkeys((*checkpoints, *behind))}
        self.alone, self.behind = ([models[path] for path in paths] for paths in (checkpoints, behind))

    def _model(self, checkpoint: Path) -> Student:
        model, file = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab), checkpoint / "model.safetensors"
        try:
            state = student_state(model, read_weights(file))
        except (SafetensorError, KeyError) as e:
            raise SystemExit(f"{file} is not of this recipe's model: {e}") from None
        load_weights(model, state, file)
        return model.requires_grad_(False).eval()

    def _losses(self, batch: Batch) -> Losses:
        held_to = self.behind if batch.reference.any() else self.alone
        if not held_to:
            return super()._losses(batch)
        now = predictions(self.student, batch, self.r)
        with torch.no_grad():
            before = [predictions(model, batch, self.r, now.chosen) for model in held_to]
        token = divergence(agreed([b.tokens for b in before]), now.tokens)
        codes = divergence(agreed([b.codes for b in before]), now.codes)[:, 1:]  # the token is the first code
        return Losses(HOLD * token.mean(), HOLD * codes.mean(), *auxiliary_losses(self.student, batch, now, self.r))


def train_following(recipe: Recipe, machine: Machine, process: int, checkpoints: Sequence[Path], behind: Sequence[Path]) -> None:
    """Run one of the processes that train together, and write the language model."""
    with meeting(recipe, machine, process):
        training = FollowingTraining(recipe, machine, checkpoints, behind, process)
        training.run()
    if not process:
        print(write_language_model(training.averaged(), recipe.folder), flush=True)


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
        "--behind",
        type=Path,
        nargs="+",
        default=[],
        help="the same behind clips (default: none; there it learns what the other speakers say)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=RATE,
        help="learning rate at first; less for a model that follows clips already (default: %(default)g)",
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="seconds of a core, all processes and runs together (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, default=1, help="cores to train on (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error(f"--processes is {options.processes}; it must be at least 1")
    for name in ("seconds", "rate"):
        if not (number := getattr(options, name)) > 0:
            parser.error(f"--{name} is {number:g}; it must be more than 0")
    for name in ("checkpoint", "behind"):
        if lacking := [path for path in getattr(options, name) if not (path / "model.safetensors").is_file()]:
            parser.error(f"--{name}: {lacking[0]} has no model.safetensors")
        if len(set(paths := getattr(options, name))) < len(paths):
            parser.error(f"--{name} names a checkpoint twice")
    recipe = Recipe(options.work)
    needed = {
        "dual_ar.pt": ((recipe.folder / "dual_ar.pt").exists(), "training.unpack"),
        "shards of codes": (code_shards(recipe), "training speech codes"),
        "codes of other speakers": (list(recipe.folder.glob("other_codes_*.pt")), "training.widening"),
    }
    for name, (there, maker) in needed.items():
        if not there:
            raise SystemExit(f"{options.work} has no {name}: make them with `python -m {maker}`")
    torch.set_num_threads(1)
    shorter = {"seconds": options.seconds, "decay_seconds": DECAY * options.seconds}
    dual_ar = replace(recipe.dual_ar, **shorter, rate=options.rate, columns=COLUMNS, several_share=SEVERAL_SHARE)
    held = partial(train_following, checkpoints=options.checkpoint, behind=options.behind)
    in_processes(held, replace(recipe, dual_ar=dual_ar), Machine(processes=options.processes))


if __name__ == "__main__":
    main()
