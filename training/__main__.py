"""`python -m training`: makes minnow, stage by stage. A stage whose result is there is not run again; long ones resume."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from training.machine import Machine, in_processes
from training.recipe import Recipe

STAGES = ("speech", "encoder", "codes", "head", "dual-ar", "export", "evaluate", "card")
RECIPES = {"cpu": Recipe, "gpu": Recipe.gpu, "smoke": Recipe.smoke}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run the stages it asks for."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"stages to run, by default all: {', '.join(STAGES)}")
    parser.add_argument(
        "--work", type=Path, default=Path("var/minnow"), help="folder for data, checkpoints and logs (default: %(default)s)"
    )
    parser.add_argument("--to", type=Path, help="checkpoint directory to write (default: WORK/checkpoint)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what networks are trained on (default: %(default)s)")
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="gpu if the device is, else cpu; smoke is every stage very small: shows that it runs, not that it learns",
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long with all saved; the same command then goes on")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes for the teacher's speech and, on CPUs, the Dual-AR (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads for training, where one process does it (default: %(default)s)")
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this PyTorch finds no GPU here")
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.recipe or ("gpu" if options.device == "cuda" else "cpu")](options.work)
    machine = Machine(torch.device(options.device), options.processes, time.monotonic() + 60 * options.minutes, recipe.step_seconds)
    for stage in options.stages or STAGES:
        run_stage(stage, recipe, options.to or options.work / "checkpoint", machine)
        if machine.is_over:
            print(f"{options.minutes:g} minutes are up in stage {stage}; the same command goes on from there", flush=True)
            return


def run_stage(stage: str, recipe: Recipe, checkpoint: Path, machine: Machine) -> None:
    """Run one stage. Each stage imports its packages when it runs: a machine that only evaluates needs no teacher, and vice versa."""
    if stage == "speech":
        from training.shards import speak

        in_processes(speak, recipe, machine)
    elif stage == "encoder":
        from training.encoder import train_encoder

        train_encoder(recipe, machine)
    elif stage == "codes":
        from training.codes import extract_codes

        extract_codes(recipe, machine)
    elif stage == "head":
        from training.head import train_head

        train_head(recipe, machine)
    elif stage == "dual-ar":
        from training.dual_ar import train_dual_ar

        in_processes(train_dual_ar, recipe, machine if machine.device.type == "cpu" else replace(machine, processes=1))
    elif stage == "export":
        from training.export import export

        export(recipe, checkpoint)
    elif stage == "evaluate":
        from training.evaluate import evaluate

        evaluate(recipe, checkpoint)
    else:
        from training.card import write_card

        write_card(recipe, checkpoint)


if __name__ == "__main__":
    main()
