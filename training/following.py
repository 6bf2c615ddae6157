"""`python -m training.following`: teaches minnow's language model to follow clips, while it stays what it is in the teacher's voice.

In --work it needs `dual_ar.pt`, which `python -m training.unpack` writes of --checkpoint, and what `python -m training.widening` makes.
In --clip-share of its steps it learns what other speakers say behind a clip of theirs, as `python -m training dual-ar` does.
In the others, which are the teacher's, it learns to predict what the checkpoint's model does: so it keeps what that has learned from its takes.
With several checkpoints it learns what they agree on. With --behind it does so behind clips, too, from the checkpoints given there;
what others say then teaches no more than the guided heads and the readouts. With --unconditional it learns what those models would say
under classifier-free guidance (arXiv:2207.12598): what the text makes likelier becomes likelier still.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from inference.hub import EMBEDDED_VOICE
from training.dual_ar import DualARTraining, Losses, Student, auxiliary_losses, load_weights, meeting, predictions
from training.export import write_language_model
from training.machine import Machine, in_processes
from training.recipe import DualARRecipe, Recipe
from training.samples import Batch, without_text
from training.shards import code_shards
from training.unpack import read_weights, student_state

SECONDS, DECAY = 3_600, 0.85
"""Of a core, and over what share of them the rate falls to nothing."""
RATE = 7e-4
COLUMNS = 2_400
SEVERAL_SHARE = 0.15
HOLD = 2.0
"""Weight of the divergence from the checkpoint's model."""
GUIDANCE = (0.3, 0.7)


@dataclass(frozen=True)
class HeldTo:
    """Folders of the checkpoints whose language models a run is held to."""

    alone: Sequence[Path]
    """Where there is no clip."""
    behind: Sequence[Path] = ()
    """Where there is one, if any."""
    unconditional: Path | None = None
    """The model that does not see the text, if there is guidance."""
    guidance: tuple[float, float] = GUIDANCE
    """How many times the distance from it is added to the others' log-probabilities, without a clip and behind one."""


class FollowingTraining(DualARTraining):
    """A run that is held to the models of checkpoints."""

    def __init__(self, recipe: Recipe, machine: Machine, held_to: HeldTo, process: int = 0) -> None:
        super().__init__(recipe, machine, process)
        models = {path: self._model(path) for path in dict.fromkeys((*held_to.alone, *held_to.behind))}
        self.alone, self.behind = ([models[path] for path in paths] for paths in (held_to.alone, held_to.behind))
        self.unconditional = self._model(held_to.unconditional) if held_to.unconditional else None
        self.guidance = held_to.guidance

    def _model(self, checkpoint: Path) -> Student:
        model, file = Student(self.r, self.tokenizer.semantic_begin, self.tokenizer.n_vocab), checkpoint / "model.safetensors"
        try:
            state = student_state(model, read_weights(file))
        except (SafetensorError, KeyError) as e:
            raise SystemExit(f"{file} is not of this recipe's model: {e}") from None
        load_weights(model, state, file)
        return model.requires_grad_(False).eval()

    def _losses(self, batch: Batch) -> Losses:
        is_behind = bool(batch.reference.any())
        held_to = self.behind if is_behind else self.alone
        if not held_to:
            return super()._losses(batch)
        now = predictions(self.student, batch, self.r)
        with torch.no_grad():
            before = [predictions(model, batch, self.r, now.chosen) for model in held_to]
            tokens, codes = agreed([b.tokens for b in before]), agreed([b.codes for b in before])
            if self.unconditional:
                blind = predictions(self.unconditional, without_text(batch), self.r, now.chosen)
                guidance = self.guidance[is_behind]
                tokens, codes = guided(tokens, blind.tokens, guidance), guided(codes, blind.codes, guidance)
        token = divergence(tokens, now.tokens)
        other_codes = divergence(codes, now.codes)[:, 1:]  # the token is the first code
        return Losses(HOLD * token.mean(), HOLD * other_codes.mean(), *auxiliary_losses(self.student, batch, now, self.r))


def train_following(recipe: Recipe, machine: Machine, process: int, held_to: HeldTo) -> None:
    """Run one of the processes that train together, and write the language model."""
    with meeting(recipe, machine, process):
        training = FollowingTraining(recipe, machine, held_to, process)
        training.run()
    if not process:
        print(write_language_model(training.averaged(), recipe.folder), flush=True)


def agreed(logits: Sequence[Tensor]) -> Tensor:
    """Logits (..., choices) of the normalised geometric mean of several distributions, of whose logits each is."""
    return torch.stack([found.float().log_softmax(-1) for found in logits]).mean(0)


def guided(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Logits (..., choices) under classifier-free guidance, arXiv:2207.12598, equation 6: (1 + w) log p(x | text) - w log p(x)."""
    right = conditional.float().log_softmax(-1)
    return right + guidance * (right - unconditional.float().log_softmax(-1))


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
        "--unconditional",
        type=Path,
        help="folder in which `python -m training.unconditional` made a model that does not see the text (default: no guidance)",
    )
    parser.add_argument(
        "--guidance",
        type=float,
        nargs=2,
        metavar=("ALONE", "BEHIND"),
        default=GUIDANCE,
        help="with --unconditional: how much, without a clip and behind one (default: {:g} {:g})".format(*GUIDANCE),
    )
    parser.add_argument(
        "--clip-share",
        type=float,
        default=DualARRecipe.clip_share,
        help="share of the steps that are behind clips (default: %(default)g)",
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
    if not all(0 <= number < math.inf for number in options.guidance):
        parser.error(f"--guidance is {options.guidance[0]:g} {options.guidance[1]:g}; both must be at least 0")
    if not 0 <= options.clip_share <= 1:
        parser.error(f"--clip-share is {options.clip_share:g}; it must be from 0 to 1")
    unconditional = [options.unconditional] if options.unconditional else []
    for name, paths in (("checkpoint", options.checkpoint), ("behind", options.behind), ("unconditional", unconditional)):
        if lacking := [path for path in paths if not (path / "model.safetensors").is_file()]:
            parser.error(f"--{name}: {lacking[0]} has no model.safetensors")
        if len(set(paths)) < len(paths):
            parser.error(f"--{name} names a checkpoint twice")
    recipe = Recipe(options.work)
    check_there(recipe)
    torch.set_num_threads(1)
    held_to = HeldTo(options.checkpoint, options.behind, options.unconditional, tuple(options.guidance))
    shorter = shortened(recipe, options.seconds, options.rate, options.clip_share)
    in_processes(partial(train_following, held_to=held_to), shorter, Machine(processes=options.processes))


def check_there(recipe: Recipe) -> None:
    """SystemExit where something that a run needs is missing."""
    needed = {
        "dual_ar.pt": ((recipe.folder / "dual_ar.pt").exists(), "training.unpack"),
        "shards of codes": (code_shards(recipe), "training speech codes"),
        "codes of other speakers": (list(recipe.folder.glob("other_codes_*.pt")), "training.widening"),
    }
    for name, (there, maker) in needed.items():
        if not there:
            raise SystemExit(f"{recipe.folder} has no {name}: make them with `python -m {maker}`")


def shortened(recipe: Recipe, seconds: float, rate: float, clip_share: float) -> Recipe:
    """The recipe of a run that goes on from a language model, for so many seconds of a core."""
    shorter = {"seconds": seconds, "decay_seconds": DECAY * seconds}
    dual_ar = replace(recipe.dual_ar, **shorter, rate=rate, clip_share=clip_share, columns=COLUMNS, several_share=SEVERAL_SHARE)
    return replace(recipe, dual_ar=dual_ar)


if __name__ == "__main__":
    main()
