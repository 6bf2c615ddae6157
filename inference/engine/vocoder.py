"""Decides when a request's frames become sound, and decodes those that are due together in one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch

from inference.model.codec import Codec, CodecStream, decode_streams

FIRST_CHUNK = 4
"""Frames in the first chunk of a request: 186 ms of sound, heard as soon as they exist."""
LARGEST_CHUNK = 32
"""Each later chunk is twice the one before, up to this: larger ones cost less a frame."""


class VocoderStream:
    """Frames of one segment waiting to be decoded. `codes` are (codebooks,) int64 tensors."""

    def __init__(self, codec: Codec, chunk: int = FIRST_CHUNK) -> None:
        self.stream: CodecStream = codec.stream()
        self.waiting: list[torch.Tensor] = []
        self.chunk = chunk

    def due(self, ended: bool) -> bool:
        return bool(self.waiting) and (ended or len(self.waiting) >= self.chunk)


def decode_due(codec: Codec, due: Iterable[VocoderStream]) -> dict[VocoderStream, np.ndarray]:
    """Decode all waiting frames of each stream; samples (n,) float32. Streams with equally many share a pass."""
    device = codec.spec_transform.window.device
    batches: defaultdict[int, list[VocoderStream]] = defaultdict(list)
    for stream in due:
        batches[len(stream.waiting)].append(stream)
    sound: dict[VocoderStream, np.ndarray] = {}
    for streams in batches.values():
        codes = torch.stack([torch.stack(s.waiting, dim=1) for s in streams]).to(device)
        waves = decode_streams([s.stream for s in streams], codes).cpu().numpy()
        for stream, wave in zip(streams, waves, strict=True):
            stream.waiting.clear()
            stream.chunk = min(2 * stream.chunk, LARGEST_CHUNK)
            sound[stream] = wave
    return sound
