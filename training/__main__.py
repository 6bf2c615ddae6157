"""`python -m training`: makes minnow, stage by stage. A stage whose result is there is not run again; long ones resume."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from multiprocessing import connection
from pathlib import Path

import torch

from training.recipe import Recipe

Work = Callable[[Recipe, int, int], None]
STAGES = ("speech", "encoder", "codes", "head", "dual-ar", "export", "evaluate", "card")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and run the stages it asks for."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"stages to run, by default all: {', '.join(STAGES)}")
    parser.add_argument(
        "--work", type=Path, default=Path("var/minnow"), help="folder for data, checkpoints and logs (default: %(default)s)"
    )
    parser.add_argument("--to", type=Path, help="checkpoint directory to write (default: WORK/checkpoint)")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes for the teacher's speech and the Dual-AR (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads for training, where one process does it (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="every stage, very small: shows that the recipe runs, not that it learns")
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    torch.set_num_threads(options.threads)
    recipe = Recipe.smoke(options.work) if options.smoke else Recipe(options.work)
    for stage in options.stages or STAGES:
        run_stage(stage, recipe, options.to or options.work / "checkpoint", options.processes)


def run_stage(stage: str, recipe: Recipe, checkpoint: Path, processes: int) -> None:
    """Stages import what they need when they run: a machine that only evaluates needs no teacher, and the other way round."""
    if stage == "speech":
        from training.shards import speak

        _in_processes(speak, recipe, processes)
    elif stage == "encoder":
        from training.encoder import train_encoder

        train_encoder(recipe)
    elif stage == "codes":
        from training.codes import extract_codes

        extract_codes(recipe)
    elif stage == "head":
        from training.head import train_head

        train_head(recipe)
    elif stage == "dual-ar":
        from training.dual_ar import train_dual_ar

        _in_processes(train_dual_ar, recipe, processes)
    elif stage == "export":
        from training.export import export

        export(recipe, checkpoint)
    elif stage == "evaluate":
        from training.ear import evaluate

        evaluate(recipe, checkpoint)
    else:
        from training.card import write_card

        write_card(recipe, checkpoint)


def _in_processes(work: Work, recipe: Recipe, processes: int) -> None:
    """Run `work(recipe, process, processes)` in each process, with one thread; in this one if it is alone."""
    if processes == 1:
        work(recipe, 0, 1)
        return
    (recipe.folder / "meeting").unlink(missing_ok=True)
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_alone, args=(work, recipe, part, processes)) for part in range(processes)]
    for worker in workers:
        worker.start()
    running = list(workers)
    while running:
        connection.wait([worker.sentinel for worker in running])
        if any(worker.exitcode for worker in workers):  # the others may be waiting for it
            for worker in running:
                worker.terminate()
            raise SystemExit(f"a process of {work.__name__} failed; see its traceback above")
        running = [worker for worker in running if worker.is_alive()]


def _alone(work: Work, recipe: Recipe, part: int, processes: int) -> None:
    torch.set_num_threads(1)
    work(recipe, part, processes)


if __name__ == "__main__":
    main()
