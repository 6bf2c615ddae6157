"""Discriminators: they train the vocoder's head further, after its training by distances, on faults that distances miss.

There are period discriminators as in HiFi-GAN (arXiv:2010.05646) and spectrum discriminators at three resolutions (as in arXiv:2210.13438),
both small, with the hinge loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
SPECTRA = ((1024, 256), (512, 128), (256, 64))
"""FFT size and hop."""
HEARD_HZ = 12_000
"""The teacher's sound has nothing above this frequency; a discriminator would learn only that."""
_SAMPLE_RATE = 44_100
_SLOPE = 0.1

Verdict = tuple[Tensor, list[Tensor]]
"""Scores, positive for sound judged real, and the features behind them."""


class PeriodDiscriminator(nn.Module):
    """Treats every `period`-th sample as one sequence."""

    def __init__(self, period: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        pairs = zip((1, *widths), widths, strict=False)
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairs)
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave: Tensor) -> Verdict:
        """wave (batch, samples)."""
        x = F.pad(wave, (0, -wave.shape[1] % self.period), mode="reflect").view(len(wave), 1, -1, self.period)
        return _listen(x, self.convs, self.score)


class SpectrumDiscriminator(nn.Module):
    """Judges compressed magnitudes of a short-time spectrum; the compression stays bounded for silence."""

    def __init__(self, n_fft: int, hop: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft))
        pairs = zip((1, *widths), widths, strict=False)
        self.convs = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (3, 5), (1, 2), (1, 2))) for a, b in pairs)
        self.score = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, wave: Tensor) -> Verdict:
        """wave (batch, samples)."""
        spectrum = torch.stft(wave, self.n_fft, self.hop, window=self.get_buffer("window"), center=False, return_complex=True)
        heard = spectrum[:, : self.n_fft * HEARD_HZ // _SAMPLE_RATE]
        magnitude = (heard.real.square() + heard.imag.square() + 1e-4).pow(0.15)
        return _listen(magnitude.transpose(1, 2)[:, None], self.convs, self.score)


class Adversary(nn.Module):
    """All discriminators together."""

    def __init__(self, width: int, periods: Sequence[int] = PERIODS, spectra: Sequence[tuple[int, int]] = SPECTRA) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.judges = nn.ModuleList(
            [PeriodDiscriminator(p, widths) for p in periods] + [SpectrumDiscriminator(*s, (width,) * 4) for s in spectra]
        )

    def loss(self, true: Tensor, made: Tensor) -> Tensor:
        """The discriminators' loss: how badly they distinguish `true` from `made`, both (batch, samples)."""
        return torch.stack([F.relu(1 - judge(true)[0]).mean() + F.relu(1 + judge(made.detach())[0]).mean() for judge in self.judges]).mean()

    def deception(self, true: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The head's losses: how little the discriminators believe it, and how far its features lie from the true ones.

        Both are sums over discriminators and layers, as in HiFi-GAN: as means, beside the distances, they moved nothing.
        """
        belief, likeness = [], []
        for judge in self.judges:
            with torch.no_grad():
                wanted = judge(true)[1]
            score, features = judge(made)
            belief.append(-score.mean())
            likeness += [(f - w).abs().mean() for f, w in zip(features, wanted, strict=True)]
        return torch.stack(belief).sum(), torch.stack(likeness).sum()


def _listen(x: Tensor, convs: nn.ModuleList, score: nn.Module) -> Verdict:
    features = []
    for conv in convs:
        x = F.leaky_relu(conv(x), _SLOPE)
        features.append(x)
    return score(x), features
