"""The command `warm`: compiles the kernels for GPUs that need not be there, and keeps them for a server's start."""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from inference.errors import RequestError
from inference.extras import needs

if TYPE_CHECKING:
    from inference.engine.device import FastLayerKernels
    from inference.engine.graphs import Graphs
    from inference.engine.launching import Launch
    from inference.engine.prefill import PrefillGraphs
    from inference.engine.weight_layouts import Weights
    from inference.model.config import CodecConfig, DualARConfig

ARCHITECTURES = "sm_80,sm_86,sm_89,sm_90,sm_100,sm_120"
console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def warm(
    directory: Annotated[Path, typer.Argument(help="Triton's cache, which TRITON_CACHE_DIR then names. It cannot be moved.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Model whose kernels are wanted: they depend on its shape. Empty: FishSpeech 1.5's shape.")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=512, help="Requests generated at once.")] = 64,
    architectures: Annotated[str, typer.Option(help="GPUs to compile for, comma-separated.")] = ARCHITECTURES,
) -> None:
    """Compile the kernels of a model for GPUs, without one. It takes one or two minutes of CPU for each architecture."""
    wanted = [capability_of(name.strip()) for name in architectures.split(",")]
    os.environ["TRITON_CACHE_DIR"] = str(directory.resolve())  # before Triton is loaded
    with needs("engine", "`fishserve warm`"):
        import triton  # noqa: F401
    (config, im_end, semantic_begin), codec = model_of(checkpoint), codec_of(checkpoint)
    for capability in wanted:
        started = time.monotonic()
        fill(config, im_end, semantic_begin, slots, capability)
        fill_vocoder(codec, capability)
        console.print(f"sm_{capability[0]}{capability[1]}: compiled in {time.monotonic() - started:.0f} s")
    size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    console.print(f"{directory}: {size / 1e6:.0f} MB; set TRITON_CACHE_DIR={directory.resolve()} where the server runs")


def fill(config: DualARConfig, im_end: int, semantic_begin: int, slots: int, capability: tuple[int, int]) -> None:
    """Compile the kernels of a model's frames and prompts into Triton's cache, for an engine of so many slots and any kind of weights.

    All layers take the same kernels, so the stand-in for the model has one of each kind, without values.
    """
    from dataclasses import replace

    from inference.engine.kernel_cache import compile_at_once, without_gpu
    from inference.engine.launching import NARROW
    from inference.engine.prefill import SIZES
    from inference.engine.weight_layouts import Weights

    for weights in get_args(Weights):
        frames, prompts = stand_in(replace(config, n_layer=1, n_fast_layer=1), im_end, semantic_begin, slots, weights)
        with without_gpu(capability):
            if weights == "native":
                compile_at_once(frames.run_eagerly, frames.sizes, capability)
                compile_at_once(prompts.run_eagerly, SIZES[:1], capability)
            else:  # more rows take the kernels of native weights
                compile_at_once(frames.run_eagerly, [n for n in frames.sizes if n <= NARROW], capability)


def fill_vocoder(
    config: CodecConfig, capability: tuple[int, int], sizes: list[tuple[int, int]] | None = None, launches: list[Launch] | None = None
) -> None:
    """Compile the kernels of a codec's passes, or of passes of these streams and frames, into Triton's cache. `launches` gets each."""
    import torch

    from inference.engine.cuda_vocoder import FusedHead
    from inference.engine.kernel_cache import compile_at_once, without_gpu
    from inference.engine.vocoder import pass_sizes
    from inference.model.codec import Head

    head = FusedHead(Head(config).half().requires_grad_(False), 0)

    def run(size: tuple[int, int]) -> None:
        features = torch.zeros(size[0], math.prod(config.downsample_factors) * size[1], config.dims[-1], dtype=torch.float16)
        pasts = features.new_zeros(size[0], head.values)
        head.run(features, pasts, torch.empty_like(pasts))

    with without_gpu(capability), torch.inference_mode():
        compile_at_once(run, sizes or pass_sizes(), capability, launches)


def stand_in(
    config: DualARConfig,
    im_end: int,
    semantic_begin: int,
    slots: int,
    weights: Weights = "native",
    fast_layers: FastLayerKernels = "separate",
) -> tuple[Graphs, PrefillGraphs]:
    """The graphs of an engine of so many slots whose model has this shape and no values: their kernels can be compiled."""
    import torch

    from inference.engine.cuda_decode_step import FusedStep
    from inference.engine.cuda_prefill import FusedPrefill
    from inference.engine.decode_step import Head, Step
    from inference.engine.graphs import Graphs
    from inference.engine.prefill import PREFILL, PrefillGraphs
    from inference.engine.runner import WINDOW
    from inference.model.config import CODES_PER_GROUP
    from inference.model.dual_ar import DualAR

    model = DualAR.without_values(config, semantic_begin)
    values = {name: torch.empty(t.shape, dtype=torch.float16) for name, t in model.state_dict().items()}
    model.load_state_dict(values, assign=True)
    model.requires_grad_(False)
    step, codes = Step(model, 1, weights), min(config.codebook_size, CODES_PER_GROUP)
    ids = torch.cat((torch.tensor([im_end]), torch.arange(semantic_begin, semantic_begin + codes)))
    head = Head(ids, step.heads.rows_of(model.output_weight[ids]), codes, step.heads.rows_of(model.fast_output.weight[:codes]))
    cache = model.new_cache(slots + 1, config.max_seq_len)
    frames = Graphs(FusedStep(step, head, slots, WINDOW, fast_layers), cache, slots, config.num_codebooks, WINDOW)
    return frames, PrefillGraphs(FusedPrefill(step, PREFILL), cache, config.num_codebooks, model.embeddings.weight)


def capability_of(name: str) -> tuple[int, int]:
    """The compute capability of an architecture such as sm_90. Raises RequestError for another name."""
    found = re.fullmatch(r"sm_(\d+)(\d)", name)
    if found is None or int(found[1]) < 8:
        raise RequestError(f"architecture {name!r} is not one of sm_80 or newer, such as {ARCHITECTURES}", "architectures")
    return int(found[1]), int(found[2])


def codec_of(checkpoint: str | None) -> CodecConfig:
    """A codec's shape."""
    if checkpoint is None:
        from inference.model.random_checkpoint import SHAPES

        return SHAPES["full"][2]
    from inference.hub import locate
    from inference.model import weights
    from inference.model.config import CodecConfig
    from inference.model.layout import layout_of

    return CodecConfig.from_state_dict(weights.codec(layout_of(locate(checkpoint)).codec, None))


def model_of(checkpoint: str | None) -> tuple[DualARConfig, int, int]:
    """A model's shape, its end token and its first semantic token."""
    from inference.model.config import DualARConfig
    from inference.model.tokenizer import SPECIAL_TOKENS, Tokenizer

    if checkpoint is None:
        from inference.model.random_checkpoint import SHAPES, config_of

        ranks = SHAPES["full"][0]
        return config_of("full"), ranks + SPECIAL_TOKENS.index("im_end"), ranks + len(SPECIAL_TOKENS)
    from inference.hub import locate
    from inference.model.layout import layout_of

    files = layout_of(locate(checkpoint))
    tokenizer = Tokenizer.from_file(files.tokenizer)
    return DualARConfig.from_file(files.config), tokenizer.im_end, tokenizer.semantic_begin
