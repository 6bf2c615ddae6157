"""Clips as people record them: at another pace, in a room, through a microphone, beside noise. All of it is done to the log-mel.

The teacher and its disguises are a vocoder's, without any of that. A model whose clips were all like them was hardly understood behind
real ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.model.codec import HOP
from inference.model.config import SAMPLE_RATE
from training.shards import HOPS_PER_FRAME
from training.speech import Utterance, unaligned

FLOOR = 1e-5
"""The smallest magnitude of the codec's log-mel."""
WAVES = 6
"""Cosines over the bins that a microphone's curve is the sum of."""


@dataclass(frozen=True)
class Recording:
    """How a clip was recorded."""

    pace: float
    """Times as fast as it was said."""
    echo: float
    """Energy of all of the room's echo, as a share of the direct sound's."""
    decay: float
    """Seconds in which the echo falls by 60 dB."""
    curve: Tensor
    """What the microphone adds to each bin, (bins,) nats."""
    noise: Tensor
    """Of each bin, as a share of the loudest tenth of the speech, (bins,) nats."""

    @classmethod
    def drawn(cls, generator: torch.Generator, bins: int) -> Recording:
        """One of endlessly many."""

        def uniform(low: float, high: float) -> float:
            return low + (high - low) * float(torch.rand((), generator=generator))

        def smooth(size: float) -> Tensor:
            place = torch.linspace(0, math.pi, bins)
            waves = torch.cos(torch.arange(WAVES)[:, None] * place + 2 * math.pi * torch.rand(WAVES, 1, generator=generator))
            return size * torch.randn(WAVES, generator=generator) @ waves / math.sqrt(WAVES / 2)

        curve = smooth(uniform(0, 0.7))
        if uniform(0, 1) < 0.3:  # a telephone's, or a codec's
            edge = int(uniform(0.55, 0.9) * bins)
            curve[edge:] -= torch.arange(bins - edge) * uniform(0.05, 0.4)
        noise = uniform(-6, -2.5) + smooth(0.5) - uniform(0, 2) * torch.linspace(0, 1, bins)
        return cls(math.exp(uniform(-0.2, 0.2)), math.exp(uniform(-7, -1)), uniform(0.1, 0.7), curve, noise)

    def of(self, mel: Tensor, generator: torch.Generator) -> Tensor:
        """Log-mel (bins, hops) -> the same as recorded, (bins, hops / pace rounded to whole frames of codes)."""
        hops = HOPS_PER_FRAME * max(1, round(mel.shape[1] / self.pace / HOPS_PER_FRAME))
        energy = F.interpolate(mel.float()[None], hops, mode="linear", align_corners=False)[0].exp().square()
        left = 10 ** (-6 * HOP / SAMPLE_RATE / self.decay)
        room, heard = torch.zeros(len(energy)), []
        for sound in energy.T:
            heard.append(sound + room)
            room = left * (room + self.echo * (1 - left) * sound)
        spoken = torch.stack(heard, 1) * (2 * self.curve).exp()[:, None]
        loudest = spoken.mean(0).topk(max(1, hops // 10)).values.mean()
        noise = loudest * (2 * self.noise).exp()[:, None] * (0.5 * torch.randn(spoken.shape, generator=generator)).exp()
        return (spoken + noise).sqrt().clamp(min=FLOOR).log().to(mel.dtype)


def recorded(said: Utterance, speaker: int, seed: int) -> Utterance:
    """What somebody said, as they record all that they say."""
    recording = Recording.drawn(torch.Generator().manual_seed(speaker), len(said.mel))
    return unaligned(said.text, recording.of(said.mel, torch.Generator().manual_seed(seed)))
