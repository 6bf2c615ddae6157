"""`python -m training.unpack`: turns an exported checkpoint into the files that `python -m training` continues from.

Export leaves out the optimisers and the readouts that only training needs. They start afresh, and the run warms up again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from inference.hub import EMBEDDED_VOICE
from inference.model.layout import CODEC_NAME
from inference.model.weights import unfold_weight_norm
from training.dual_ar import Student
from training.encoder import MelAutoencoder, codec_config
from training.recipe import Recipe
from training.samples import byte_tokenizer
from training.shards import save

_DIGITS = ".parametrizations.weight.0.rows"


def unpack(checkpoint: Path, recipe: Recipe) -> None:
    """Write `encoder.pt`, `head.pt` and `dual_ar.pt` of an exported checkpoint into the recipe's folder."""
    recipe.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.dual_ar.seed)
    tokenizer = byte_tokenizer(recipe.folder / "tokenizer.tiktoken")
    student = Student(recipe.dual_ar, tokenizer.semantic_begin, tokenizer.n_vocab)
    begun = {"seconds": 0.0, "step": 0, "heard": 0.0}
    average = student_state(student, read_weights(checkpoint / "model.safetensors"))
    save(recipe.folder / "dual_ar.pt", begun | {"average": average})
    codec = read_weights(checkpoint / f"{CODEC_NAME}.safetensors")
    encoder = MelAutoencoder(codec_config(recipe.encoder, recipe.head), recipe.encoder.pre_bound_scale)
    encoder.load_state_dict({n: t for n, t in codec.items() if not n.startswith("head.")}, strict=False)
    save(recipe.folder / "encoder.pt", {"model": encoder.state_dict(), "steps": 0})
    save(recipe.folder / "head.pt", {"average": unfold_weight_norm(codec), "seconds": 0.0, "steps": 0, "against_steps": 0})


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a safetensors file in FP32."""
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def student_state(student: Student, plain: dict[str, Tensor]) -> dict[str, Tensor]:
    """The student's state with these weights of an exported model: all of a table in its own rows, and nothing in those of digits."""
    state = student.state_dict()
    for name in state:
        if name.startswith("model."):
            official = name.removeprefix("model.").replace(".parametrizations.weight.original", ".weight")
            state[name] = torch.zeros_like(state[name]) if name.endswith(_DIGITS) else plain[official]
    return state


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m training.unpack", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=EMBEDDED_VOICE, help="exported checkpoint (default: the minnow of this package)")
    parser.add_argument("--work", type=Path, default=Path("var/minnow"), help="folder of the run (default: %(default)s)")
    options = parser.parse_args()
    unpack(options.checkpoint, Recipe(options.work))
