"""`python -m training.pack`: checkpoints small enough to carry, from which `python -m training` exports or trains further.

It leaves out optimisers and stores the rest as FP16; a run that resumes from here warms up once more.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from training.shards import save

LEFT_BEHIND = ("student", "codec", "optimisers", "optimiser", "against")
"""Entries that are left out. Of the trained weights only the average is kept."""


def pack(work: Path, to: Path) -> None:
    """Write small copies of the existing checkpoints. The encoder keeps its full precision, since it makes the codes."""
    to.mkdir(parents=True, exist_ok=True)
    for name in ("encoder.pt", "head.pt", "pulsed_head.pt", "dual_ar.pt"):
        if (work / name).exists():
            state = torch.load(work / name, map_location="cpu", weights_only=True)
            small = state if name == "encoder.pt" else {key: _halved(value) for key, value in state.items() if key not in LEFT_BEHIND}
            save(to / name, small)
            print(f"{to / name}: {(to / name).stat().st_size / 1e6:.2f} MB", flush=True)


def _halved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _halved(item) for key, item in value.items()}
    return value.half() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.pack", description=__doc__)
    parser.add_argument("to", type=Path, metavar="TO", help="folder to write to; copy its files into an empty WORK to go on")
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the run (default: %(default)s)")
    options = parser.parse_args()
    pack(options.work, options.to)
