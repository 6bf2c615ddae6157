"""Lets the first two stages of a head tell where pulses are, so that it can make the pulses of voices that it has never heard.

Spectra and judges hardly teach a head another pitch: after 4,700 steps of them low voices were still noise. Readouts do, in minutes: linear
ones, of the phases of a few harmonics in each of two stages, and of how many pulses a code frame has. What the second stage makes of the
teacher's codes stays as it is, so that the stages behind it are not surprised.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.model.codec import Codec
from inference.model.config import SAMPLES_PER_FRAME
from training.fsq import GroupedFSQ, nudge
from training.head import feature_parameters, features_of, quantizer_view, stages
from training.machine import Machine
from training.pulses import FEWEST, MAX_PULSES
from training.recipe import HeadRecipe
from training.shards import HOPS_PER_FRAME

HARMONICS = ((1, 2), (1, 2, 4, 8))
"""Which of them the first and the second stage are to tell: below half of a stage's rate, 345 and 2,756 Hz."""
RATES = (32, 256)
"""Of these stages, in values a code frame."""
CROPS, CROP = 5, 12
"""Of the teacher's speech and as many of others', and code frames of each."""
MARGIN = 6
"""Hops before a crop that pass through the stages, too."""
RATE, WARM_UP, CLIP, FEATURES_SHARE, READOUTS_SHARE = 1e-3, 50, 5.0, 0.3, 2.0
NUMBER_WEIGHT, TEACHER_WEIGHT, KEEP_WEIGHT = 0.3, 0.5, 4.0
VOICED_SHARE, VOICED_POWER, VOICED_BINS, VOICED_HARMONICS = 0.6, 1e-5, 56, 8
OFF_WEIGHT, MOST_OFF = 2.0, 0.75
"""What a pulse away from the pitch costs, in nats of the readout, and how far a number may be from it: near the middle between two numbers
both are right. Where a number might be wrong by one, low voices lost their 6 and 4: each was 5 or 7.
"""


@dataclass(frozen=True)
class Pulsed:
    """Speech whose pulses are known, end to end."""

    codes: Tensor  # (frames, groups)
    wave: Tensor  # (frames, 2048) int16
    counts: Tensor  # (frames,) int64, pulses
    voiced: Tensor  # (frames,) bool

    @classmethod
    def of(cls, shards: Sequence[Path]) -> Pulsed:
        """All of some shards of `AlignedUtterance`."""
        items = [item for path in shards for item in torch.load(path, weights_only=True)]
        codes, wave, counts = (torch.cat([item[name] for item in items]) for name in ("codes", "wave", "counts"))
        wave, counts = wave.view(-1, SAMPLES_PER_FRAME), counts.long()
        return cls(codes, wave, counts, is_voiced(wave, counts))

    def drawn(self, crops: int, crop: int, r: HeadRecipe) -> tuple[Tensor, Tensor]:
        """Codes (crops, context + crop, groups), some with altered digits, and which frames they are of, (crops, crop)."""
        starts = torch.randint(1, len(self.codes) - r.context - crop, (crops,))
        frames = starts[:, None] + torch.arange(r.context + crop)
        chosen = self.codes[frames].long()
        return torch.where(torch.rand(chosen.shape) < r.digit_noise, nudge(chosen), chosen), frames[:, r.context :]


def is_voiced(wave: Tensor, counts: Tensor) -> Tensor:
    """In which frames of a wave (frames, 2048) most of the sound below 1.2 kHz are harmonics of pulses so many, (frames,) bool."""
    found, last = [], torch.cat((counts[:1], counts[:-1]))
    for sound, before, now in zip(wave.split(4096), last.split(4096), counts.split(4096), strict=True):
        spectrum = torch.fft.rfft(sound.float() / 32768)
        spectrum[:, VOICED_BINS:] = 0
        low, phase = torch.fft.irfft(spectrum), cycles_within(before[:, None], now[:, None], SAMPLES_PER_FRAME)
        turns = torch.arange(1, 1 + VOICED_HARMONICS)[:, None, None] * 2 * math.pi * phase
        harmonic = 2 * ((low * turns.cos()).mean(2).square() + (low * turns.sin()).mean(2).square()).sum(0)
        power = low.square().mean(1)
        found.append((harmonic > VOICED_SHARE * power) & (power > VOICED_POWER))
    return torch.cat(found)


def cycles_within(last: Tensor, now: Tensor, rate: int) -> Tensor:
    """`pulses.cycles` within each of some frames: pulses in the one before and in it, (batch, frames) -> (batch, frames * rate)."""
    within = (torch.arange(rate) + 0.5) / rate
    before, here = last[..., None], now[..., None]
    return (here * within + (before - here) * (within - 2 * within**2 + within**3)).flatten(1)


class PhaseReadouts(nn.Module):
    """Of two stages' outputs, the cosines and sines of harmonics' phases; and of the first, the number of pulses in each code frame."""

    def __init__(self, channels: Sequence[int]) -> None:
        """`channels` of each of these stages."""
        super().__init__()
        self.turns = nn.ModuleList(nn.Conv1d(c, 2 * len(h), 1) for c, h in zip(channels, HARMONICS, strict=True))
        self.count = nn.Linear(channels[0], MAX_PULSES + 1)

    @classmethod
    def of(cls, head_channels: int) -> PhaseReadouts:
        """Those of a head that begins with so many channels: each stage has half of the one before."""
        return cls([head_channels >> (1 + stage) for stage in range(len(RATES))])

    def counts(self, first: Tensor) -> Tensor:
        """The first stage's output (batch, channels, 32 * frames) -> logits (batch, frames, 20)."""
        logits: Tensor = self.count(F.silu(first).unflatten(2, (-1, RATES[0])).mean(3).transpose(1, 2))
        return logits

    def errors(self, outputs: Sequence[Tensor], last: Tensor, now: Tensor, voiced: Tensor) -> Tensor:
        """Mean squared error of each harmonic's phase, where 1 is to know nothing: first the first stage's, (6,)."""
        errors = []
        for output, turn, harmonics, rate in zip(outputs, self.turns, HARMONICS, RATES, strict=True):
            angle = 2 * math.pi * torch.tensor(harmonics)[:, None] * cycles_within(last, now, rate)[:, None]
            told = turn(output).unflatten(1, (len(harmonics), 2))
            off = (told[:, :, 0] - angle.cos()).square() + (told[:, :, 1] - angle.sin()).square()
            errors.append(off.transpose(0, 1)[:, voiced.repeat_interleave(rate, 1)].mean(1))
        return torch.cat(errors)

    def loss(self, outputs: Sequence[Tensor], last: Tensor, now: Tensor, voiced: Tensor) -> tuple[Tensor, Tensor]:
        """What the phases and numbers cost, and the errors of the phases."""
        errors = self.errors(outputs, last, now, voiced)
        number = F.cross_entropy(self.counts(outputs[0])[voiced], now[voiced])
        return errors.sum() + NUMBER_WEIGHT * number, errors


def own_counts(logits: Tensor, expected: Tensor) -> Tensor:
    """The likeliest numbers of those near what the pitch says: logits (..., 20), expected (...) -> (...) int64."""
    near = torch.stack([(expected.round() + off).clamp(FEWEST, MAX_PULSES) for off in (-1, 0, 1)], -1)
    off = (near - expected[..., None]).abs()
    near = near.long()
    told = logits.log_softmax(-1).gather(-1, near) - OFF_WEIGHT * off
    return near.gather(-1, told.masked_fill(off > MOST_OFF, -math.inf).argmax(-1, keepdim=True))[..., 0]


class PhaseTraining:
    """A codec whose head's first two stages learn others' pulses, and the readouts that teach them."""

    def __init__(self, codec: Codec, r: HeadRecipe, machine: Machine) -> None:
        """`codec` as `head.trainable_codec` gives it."""
        self.codec, self.r, self.machine = codec, r, machine
        self.fsq, before = quantizer_view(codec), copy.deepcopy(codec).requires_grad_(False)
        self.before: tuple[Codec, GroupedFSQ] = (before, quantizer_view(before))
        self.readouts = PhaseReadouts.of(r.channels)

    def run(self, teacher: Pulsed, others: Pulsed, seconds: float) -> None:
        """Train for so many seconds, at a rate that falls to a twentieth."""
        head = self.codec.head
        taught = [head.conv_pre, *list(head.ups)[: len(RATES)], *list(head.resblocks)[: len(RATES)]]
        groups = [
            {"params": [p for module in taught for p in module.parameters()], "share": 1.0},
            {"params": feature_parameters(self.codec), "share": FEATURES_SHARE},
            {"params": list(self.readouts.parameters()), "share": READOUTS_SHARE},
        ]
        optimiser = torch.optim.AdamW(groups, betas=(0.8, 0.98), weight_decay=1e-4)
        parameters = [p for group in groups for p in group["params"]]
        start, step = self.machine.clock(), 0
        while (elapsed := self.machine.clock() - start) < seconds:
            fall = 0.05 + 0.95 * (1 + math.cos(math.pi * elapsed / seconds)) / 2
            for group in optimiser.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARM_UP) * fall * group["share"]
            loss, errors = self._loss(teacher, others)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            step += 1
            if step % 100 == 0:
                print(f"{elapsed:.0f} s step {step} errors of others' phases {[round(e, 2) for e in errors.tolist()]}", flush=True)

    def _loss(self, teacher: Pulsed, others: Pulsed) -> tuple[Tensor, Tensor]:
        drawn = [(speech, *speech.drawn(CROPS, CROP, self.r)) for speech in (teacher, others)]
        outputs = self._outputs(self.codec, self.fsq, torch.cat([codes for _, codes, _ in drawn]))
        with torch.no_grad():
            kept = self._outputs(*self.before, drawn[0][1])[-1]
        loss = KEEP_WEIGHT * (outputs[-1][:CROPS] - kept).square().mean() / kept.var()
        for (speech, _, frames), part, weight in zip(drawn, (slice(CROPS), slice(CROPS, None)), (TEACHER_WEIGHT, 1), strict=True):
            mine, last, now = [x[part] for x in outputs], speech.counts[frames - 1], speech.counts[frames]
            cost, errors = self.readouts.loss(mine, last, now, speech.voiced[frames])
            loss = loss + weight * cost
        return loss, errors.detach()

    def _outputs(self, codec: Codec, fsq: GroupedFSQ, codes: Tensor) -> list[Tensor]:
        found = stages(codec.head, features_of(codec, fsq, codes), last=HOPS_PER_FRAME * CROP + MARGIN)
        return [next(found)[:, :, 0, -CROP * rate :] for rate in RATES]

    @torch.no_grad()
    def counts(self, codes: Tensor, expected: np.ndarray) -> np.ndarray:
        """The pulses that the head makes of codes (frames, groups), each near to what the pitch says, (frames,)."""
        first = next(stages(self.codec.head, features_of(self.codec, self.fsq, codes[None].long())))[:, :, 0]
        return own_counts(self.readouts.counts(first)[0], torch.from_numpy(expected)).numpy()
