"""`python -m training.unconditional`: a copy of minnow's language model that does not see the text, for `training.following --unconditional`.

In --work, a folder of its own, it needs what `training.following` does, and goes on from the language model that is there. In the text to
speak it sees spaces alone, so it learns what speech sounds like after the speech so far, and behind a clip, after that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training.dual_ar import DualARTraining, Losses, losses, meeting
from training.export import write_language_model
from training.following import check_there, shortened
from training.machine import Machine, in_processes
from training.recipe import Recipe
from training.samples import Batch, without_text

SECONDS, RATE, CLIP_SHARE = 900, 6e-4, 0.35


class UnconditionalTraining(DualARTraining):
    """A run that sees no text, and has no auxiliary losses: there is nothing to look at and no word to tell."""

    def _losses(self, batch: Batch) -> Losses:
        found, nothing = losses(self.student, without_text(batch), self.r, self.tokenizer.im_end), torch.zeros(())
        return Losses(found.token, found.codes, nothing, nothing, nothing)


def train_unconditional(recipe: Recipe, machine: Machine, process: int) -> None:
    """Run one of the processes that train together, and write the language model."""
    with meeting(recipe, machine, process):
        training = UnconditionalTraining(recipe, machine, process)
        training.run()
    if not process:
        print(write_language_model(training.averaged(), recipe.folder), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write the language model."""
    parser = argparse.ArgumentParser(
        prog="python -m training.unconditional", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder with dual_ar.pt, which is trained further, and the codes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a core, all processes together (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="cores to train on (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.processes < 1:
        parser.error(f"--processes is {options.processes}; it must be at least 1")
    if not options.seconds > 0:
        parser.error(f"--seconds is {options.seconds:g}; it must be more than 0")
    recipe = Recipe(options.work)
    check_there(recipe)
    torch.set_num_threads(1)
    in_processes(train_unconditional, shortened(recipe, options.seconds, RATE, CLIP_SHARE), Machine(processes=options.processes))


if __name__ == "__main__":
    main()
