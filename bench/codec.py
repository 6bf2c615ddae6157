"""The codec alone: how fast it encodes a clip, and decodes codes whole, in streams, and for several streams at once."""

from __future__ import annotations

from functools import partial

import torch

from bench.record import Record
from bench.serving import Step
from bench.timing import timed
from inference.engine.vocoder import FIRST_CHUNK, LARGEST_CHUNK
from inference.model.checkpoint import Checkpoint
from inference.model.codec import decode_streams
from inference.model.config import CODES_PER_GROUP, FRAMES_PER_SECOND, SAMPLES_PER_FRAME

CLIP = round(10 * FRAMES_PER_SECOND)
"""Frames of a ten-second clip, the usual length of a reference."""
DECODES = [(1, CLIP, "whole")] + [(n, frames, "stream") for n in (1, 8) for frames in (FIRST_CHUNK, LARGEST_CHUNK)]
"""Streams, frames of each, and how: the first and the largest chunk are those the engine decodes at a time."""


@torch.inference_mode()
def measure(checkpoint: Checkpoint, record: Record, step: Step) -> None:
    """Time each case. A run's `frames` is the number that one sample produced or consumed, over all streams."""
    codec, device = checkpoint.codec, checkpoint.device
    wave = torch.rand(1, CLIP * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(0)).sub_(0.5).to(device)
    with step("encode", None):
        record.runs.append({"case": "encode, 1 clip", "frames": CLIP, "seconds": timed(lambda: codec.encode(wave), device)})
    record.write()
    for streams, frames, how in DECODES:
        codes = torch.randint(0, CODES_PER_GROUP, (streams, codec.config.groups, frames), device=device)
        if how == "whole":
            name, work = f"decode, {frames} frames", partial(codec.decode, codes)
        else:
            name = f"decode, {streams} stream{'s'[: streams > 1]}, chunks of {frames}"
            work = partial(decode_streams, [codec.stream() for _ in range(streams)], codes)
        with step(name, None):
            record.runs.append({"case": name, "frames": streams * frames, "seconds": timed(work, device)})
        record.write()
