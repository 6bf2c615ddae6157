"""Compares each stage of a frame with the device's limits: least bytes and operations, measured bandwidth and arithmetic.

A stage cannot take less time than max(bytes / bandwidth, operations / rate) (Williams et al. 2009, "Roofline"), unless its bytes come
from a cache; a small model can therefore be faster than this limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from bench.record import Record
from bench.serving import Step as Shown
from bench.timing import timed
from inference.engine.decode_step import Step
from inference.engine.vocoder import LARGEST_CHUNK
from inference.engine.weight_layouts import Half, Weights
from inference.model.checkpoint import Checkpoint, in_decoder, precision
from inference.model.codec import decode_streams
from inference.model.config import CODES_PER_GROUP, SAMPLES_PER_FRAME, DualARConfig
from inference.model.dual_ar import Block

POSITIONS = 256
"""Positions in the cache when a frame is measured: a sentence with some seconds of speech."""
CLIP_FRAMES = 64
COPIED = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes copied to measure bandwidth: far more than any cache holds."""
MULTIPLIED = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices multiplied to measure arithmetic."""


@dataclass(frozen=True)
class Work:
    """Fewest bytes moved to and from memory, and floating point operations (a multiply-add is two)."""

    bytes: float
    flops: float

    def seconds(self, bandwidth: float, rate: float) -> float:
        """The least time that this work can take."""
        return max(self.bytes / bandwidth, self.flops / rate)


def stack(layers: int, dim: int, heads: int, kv_heads: int, hidden: int) -> int:
    """Number of weights in the matrices of `layers` transformer layers: queries, keys and values; output; gate, up and down."""
    return layers * (dim * dim // heads * (heads + 2 * kv_heads) + dim * dim + 3 * dim * hidden)


def frame(c: DualARConfig, rows: int, positions: int, size: int, weight_size: int | None = None) -> dict[str, Work]:
    """The least work for one frame of `rows` streams, each with `positions` positions in its cache.

    `size` is the bytes of an activation or cache value, `weight_size` of a weight in the layers if that differs. Weights are read once for
    all rows. The fast layers are read once for each codebook, except that the first two share a pass. Heads are FP32
    and have rows only for speakable ids.
    """
    weight_size = weight_size or size
    codes = min(c.codebook_size, CODES_PER_GROUP)
    slow = stack(c.n_layer, c.dim, c.n_head, c.n_local_heads, c.intermediate_size)
    kv = 2 * c.n_layer * c.n_local_heads * c.head_dim * size
    fast = stack(c.n_fast_layer, c.fast_dim, c.fast_n_head, c.fast_n_local_heads, c.fast_intermediate_size)
    passes = c.num_codebooks - 1
    seen = sum(range(1, c.num_codebooks + 1))  # positions that the attention of all codebook positions reads
    slow_attention = 4 * c.n_layer * c.dim * (positions + 1)
    fast_attention = 4 * c.n_fast_layer * c.fast_dim * seen
    head, code_head = (1 + codes) * c.dim, codes * c.fast_dim
    return {
        "slow layers": Work(slow * weight_size + rows * kv * (positions + 1), rows * (2 * slow + slow_attention)),
        "semantic head": Work(4 * head, 2 * rows * head),
        "fast layers": Work(
            passes * (fast * weight_size + 4 * code_head), rows * (c.num_codebooks * 2 * fast + fast_attention + passes * 2 * code_head)
        ),
    }


def bandwidth(device: torch.device) -> list[float]:
    """Samples of bytes a second, from the faster of copies, which count each byte as read and as written, and sums, which only read."""
    block = torch.ones(COPIED[device.type] // 8, dtype=torch.float64, device=device)
    other = torch.empty_like(block)
    copies = [2 * block.nbytes / s for s in timed(lambda: other.copy_(block), device)]
    sums = [block.nbytes / s for s in timed(block.sum, device)]
    return max(copies, sums, key=max)


def arithmetic(device: torch.device, weights: Weights) -> list[float]:
    """Samples of operations a second, from a large matrix product of such weights: a GPU multiplies 8-bit ones as FP16."""
    n, dtype = MULTIPLIED[device.type], torch.int8 if weights == "int8" and device.type == "cpu" else precision(device)
    a, b = (torch.randn(n, n).to(device, dtype) for _ in range(2))
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm
    return [2 * n**3 / s for s in timed(lambda: multiply(a, b), device)]


@torch.inference_mode()
def measure(checkpoint: Checkpoint, weights: Weights, rows: list[int], record: Record, step: Shown) -> None:
    """Measure the device, then each stage at each number of streams. Every run holds its limit in seconds and its samples in seconds."""
    device, dtype = checkpoint.device, precision(checkpoint.device)
    with step("bandwidth", None):
        bytes_per_second = bandwidth(device)
    with step("arithmetic", None):
        flops_per_second = arithmetic(device, weights)
    record.body |= {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}

    def add(stage: str, n: int, frames: int, work: Work, run: Callable[[], object]) -> None:
        with step(f"{stage}, {n} stream{'s'[: n > 1]}", None):
            seconds = timed(run, device)
        limit = work.seconds(max(bytes_per_second), max(flops_per_second))
        bound = "bytes" if limit == work.bytes / max(bytes_per_second) else "operations"
        run_ = {"stage": stage, "streams": n, "frames": frames, "bytes": work.bytes, "flops": work.flops}
        record.runs.append(run_ | {"bound": bound, "limit_seconds": limit, "seconds": seconds})
        record.write()

    for n in rows:
        needed = frame(checkpoint.config, n, POSITIONS, dtype.itemsize, weight_size_of(checkpoint, weights))
        for stage, run in _stages(checkpoint, weights, n).items():
            add(stage, n, n, needed[stage], run)
        decode = partial(decode_streams, [checkpoint.codec.stream() for _ in range(n)], _codes(checkpoint, n, LARGEST_CHUNK))
        add("codec decode", n, n * LARGEST_CHUNK, codec_work(checkpoint, decode, n * LARGEST_CHUNK, decoder=True), decode)
    wave = torch.zeros(1, CLIP_FRAMES * SAMPLES_PER_FRAME, device=device)
    encode = partial(checkpoint.codec.encode, wave)
    add("codec encode", 1, CLIP_FRAMES, codec_work(checkpoint, encode, CLIP_FRAMES, decoder=False), encode)


def codec_work(checkpoint: Checkpoint, run: Callable[[], object], frames: int, *, decoder: bool) -> Work:
    """The least work of a codec pass over `frames`: its weights once, samples in or out once, and the operations that torch counts."""
    named = [*checkpoint.codec.named_parameters()]
    parameters = sum(p.nbytes for name, p in named if in_decoder(name) == decoder)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_convolution: _convolution}) as counter:
        run()
    return Work(parameters + 4 * SAMPLES_PER_FRAME * frames, counter.get_total_flops())


def _convolution(x: list[int], w: list[int], *_: object, out_shape: list[int]) -> int:
    """Operations of oneDNN's convolution, which torch's counter does not know."""
    return conv_flop_count(x, w, out_shape)


def weight_size_of(checkpoint: Checkpoint, weights: Weights) -> int | None:
    """Bytes of a weight in the layers if they differ from a value's; on a CPU, large BF16 weights are kept as FP16."""
    first = next(block for block in checkpoint.lm.layers if isinstance(block, Block)).feed_forward
    return 1 if weights == "int8" and checkpoint.device.type == "cpu" else 2 if Half.works(first.w1, first.w3) else None


def _codes(checkpoint: Checkpoint, rows: int, frames: int) -> torch.Tensor:
    return torch.randint(0, CODES_PER_GROUP, (rows, checkpoint.config.num_codebooks, frames), device=checkpoint.device)


def _stages(checkpoint: Checkpoint, weights: Weights, rows: int) -> dict[str, Callable[[], object]]:
    """The stages of a frame as the engine runs them, on caches filled with noise."""
    lm, c, device = checkpoint.lm, checkpoint.config, checkpoint.device
    step = Step(lm, rows, weights)
    cache = lm.new_cache(rows, POSITIONS + 1)
    cache.both.normal_()
    columns = torch.zeros(rows, 1 + c.num_codebooks, dtype=torch.int64, device=device)
    columns[:, 1:] = _codes(checkpoint, rows, 1)[:, :, 0] % c.codebook_size
    columns[:, 0] = columns[:, 1] + checkpoint.tokenizer.semantic_begin
    hidden = torch.randn(rows, c.dim, device=device, dtype=precision(device))
    fast_hidden, code = step.projected(hidden), columns[:, 1]
    codes = min(c.codebook_size, CODES_PER_GROUP)
    token_head = step.heads.rows_of(lm.output_weight[checkpoint.tokenizer.semantic_begin :][: 1 + codes])
    code_head = step.heads.rows_of(lm.fast_output.weight[:codes])

    def fast() -> None:
        for i in range(1, c.num_codebooks):
            x = step.fast_pair(fast_hidden, code) if i == 1 else step.fast(code, i)
            step.code_logits(x, code_head)

    return {
        "slow layers": lambda: step.slow(columns, cache, [POSITIONS] * rows),
        "semantic head": lambda: step.token_logits(hidden, token_head),
        "fast layers": fast,
    }
