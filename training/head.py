"""The vocoder head, trained to turn frozen codes into sound: log-mel distance at five resolutions (arXiv:1910.11480), then against an adversary."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from inference.model.codec import CausalConv, CausalTransposedConv, Codec, Head, History, LogMel, mel_filters
from training.discriminators import Adversary
from training.encoder import codec_config, load_encoder
from training.fsq import GroupedFSQ, nudge
from training.machine import Machine
from training.recipe import Recipe
from training.shards import HOPS_PER_FRAME, code_shards, coded, held_out, held_out_codes, save, speech_shards, utterances

SAMPLES = 2048
UNHEARD = 1024
"""Samples at the start of a crop that the loss ignores: inside the head their past was cut off."""
RESOLUTIONS = ((2048, 512, 160), (1024, 256, 120), (512, 128, 80), (256, 64, 40), (128, 32, 20))
"""FFT size, hop and mel bands."""
FINE = 256
"""FFT sizes up to this, 5.8 ms, are shorter than the teacher's pitch period."""
MODULATIONS = ((256, 32, 40, 64), (128, 16, 24, 128))
"""FFT size, hop and mel bands, and frames of the second transform: 46 ms."""
MODULATION_FLOOR = 0.3


class MelDistance(nn.Module):
    """Mean L1 distance of log-mels over several resolutions; resolutions finer than a glottal pulse have the weight `fine`.

    Codes do not tell when pulses occur. A distance that resolves single pulses is smallest when there are none, which sounds buzzy.
    """

    def __init__(self, fine: float = 1.0) -> None:
        super().__init__()
        self.weights = [fine if n_fft <= FINE else 1.0 for n_fft, _, _ in RESOLUTIONS]
        for i, (n_fft, _, bands) in enumerate(RESOLUTIONS):
            self.register_buffer(f"window{i}", torch.hann_window(n_fft))
            self.register_buffer(f"filters{i}", mel_filters(bands, n_fft=n_fft).T.contiguous())

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Waveforms (batch, samples) -> scalar."""
        distances = [w * (self._mel(made, i) - self._mel(true, i)).abs().mean() for i, w in enumerate(self.weights) if w]
        return torch.stack(distances).sum() / len(RESOLUTIONS)

    def _mel(self, wave: Tensor, i: int) -> Tensor:
        n_fft, hop, _ = RESOLUTIONS[i]
        padded = F.pad(wave[:, None], ((n_fft - hop) // 2,) * 2, mode="reflect")[:, 0]
        magnitude = _magnitude(padded, n_fft, hop, self.get_buffer(f"window{i}"))
        return torch.log((self.get_buffer(f"filters{i}") @ magnitude).clamp(min=1e-4))


class ModulationDistance(nn.Module):
    """L1 distance of how fast and how deep each band's level is modulated, regardless of when.

    It compares magnitudes of a second transform over time in each log-mel band: the rate and depth of pulses count, not
    their position (the scattering transform's idea, arXiv:1203.1513).
    """

    def __init__(self) -> None:
        super().__init__()
        for i, (n_fft, _, bands, frames) in enumerate(MODULATIONS):
            self.register_buffer(f"window{i}", torch.hann_window(n_fft))
            self.register_buffer(f"filters{i}", mel_filters(bands, n_fft=n_fft).T.contiguous())
            self.register_buffer(f"course{i}", torch.hann_window(frames))

    def forward(self, made: Tensor, true: Tensor) -> Tensor:
        """Waveforms (batch, samples) -> scalar."""
        distances = [(self._modulation(made, i) - self._modulation(true, i)).abs().mean() for i in range(len(MODULATIONS))]
        return torch.stack(distances).mean()

    def _modulation(self, wave: Tensor, i: int) -> Tensor:
        n_fft, hop, _, frames = MODULATIONS[i]
        level = torch.log(self.get_buffer(f"filters{i}") @ _magnitude(wave, n_fft, hop, self.get_buffer(f"window{i}")) + 1e-3)
        moved = _magnitude(level.flatten(0, 1), frames, frames // 4, self.get_buffer(f"course{i}"))
        return torch.log(moved[:, 1:] + MODULATION_FLOOR)


def _magnitude(wave: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    """(batch, samples) -> (batch, n_fft / 2 + 1, frames); differentiable at zero."""
    spectrum = torch.stft(wave, n_fft, hop, window=window, center=False, return_complex=True)
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-6)


def run_head(head: Head, features: Tensor, last: int | None = None) -> Tensor:
    """`head(features)`: features (batch, dim, hops) -> (batch, samples). `last` as for `stages`."""
    *_, x = stages(head, features, last)
    return sound(head, x)


def stages(head: Head, features: Tensor, last: int | None = None, bfloat16: int = 0) -> Iterator[Tensor]:
    """What each stage of a head makes of features (batch, dim, hops), one after the other: (batch, channels, 1, time), FP32.

    Two-dimensional convolutions in channels-last order: with few channels several times faster on CPU.
    With `last`, only that many of the last hops continue past the first convolution.
    So many of the first stages work in BF16.
    """
    x = _conv(features.unsqueeze(2).contiguous(memory_format=torch.channels_last), head.conv_pre)
    if last is not None:
        x = x[..., -last:]
    for number, (up, blocks) in enumerate(zip(head.ups, head.resblocks, strict=True)):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=number < bfloat16):
            x = _transposed(F.silu(x), up)
            branches = []
            for block in blocks.blocks:
                y = x
                for conv1, conv2 in zip(block.convs1, block.convs2, strict=True):
                    y = y + _conv(F.silu(_conv(F.silu(y), conv1)), conv2)
                branches.append(y)
        x = (sum(branches[1:], branches[0]) / len(branches)).float()
        yield x


def sound(head: Head, x: Tensor) -> Tensor:
    """What a head makes of its last stage's output, (batch, samples)."""
    return torch.tanh(_conv(F.silu(x), head.conv_post))[:, 0, 0]


def train_head(recipe: Recipe, machine: Machine) -> None:
    """Train by spectral distance until `recipe.head.seconds`, then against an adversary for `adversarial_seconds`.

    Resumes from `head.pt` if it exists, and keeps it up to date.
    """
    HeadTraining(recipe, machine).run()


class HeadTraining:
    """One run: codec, the average of its weights, optimisers, adversary and progress. Saved in `head.pt`."""

    kept: tuple[str, ...] = ("codec", "average", "optimiser", "adversary", "against")

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine, self.r, device = recipe, machine, recipe.head, machine.device
        torch.manual_seed(self.r.seed)
        self.codec, self.fsq = (module.to(device) for module in trainable_codec(recipe))
        self.average = copy.deepcopy(self.codec).requires_grad_(False)
        self.adversary = self._judges().to(device)
        self.mel_distance, self.modulation_distance = MelDistance(self.r.fine_weight).to(device), ModulationDistance().to(device)
        features = feature_parameters(self.codec)
        self.trained = [*self.codec.head.parameters(), *features]
        groups = [{"params": self.codec.head.parameters(), "share": 1.0}, {"params": features, "share": self.r.upsample_rate / self.r.rate}]
        fused = device.type == "cuda" or None  # one launch instead of ten per parameter
        self.optimiser = torch.optim.AdamW(groups, betas=(0.8, 0.98), weight_decay=1e-4, fused=fused)
        judges = self.adversary.parameters()
        self.against = torch.optim.AdamW(judges, lr=self.r.adversary_rate, betas=(0.8, 0.98), weight_decay=1e-4, fused=fused)
        self.seconds, self.steps, self.against_steps, self.fresh = 0.0, 0, 0, 0
        if self._file.exists():
            self._resume(torch.load(self._file, map_location=device, weights_only=True))
        torch.manual_seed(self.r.seed + self.steps)
        self.audio = tuple(tensor.to(device) for tensor in self._audio())

    def _judges(self) -> Adversary:
        return Adversary(self.r.adversary_width)

    def _audio(self) -> tuple[Tensor, Tensor]:
        return _training_audio(self.recipe)

    def run(self) -> None:
        """Train until this run and earlier ones reach the recipe's time, or until the machine's time is up."""
        torch.backends.cudnn.benchmark = True  # all crops are of one size
        start, due = self.machine.clock() - self.seconds, self.seconds + self.recipe.checkpoint_seconds
        while (elapsed := self.machine.clock() - start) < self.r.seconds + self.r.adversarial_seconds:
            loss = self._spectral_step(elapsed) if elapsed < self.r.seconds else self._adversarial_step()
            self.steps += 1
            if elapsed > due:
                due += self.recipe.checkpoint_seconds
                error = mel_error(self.average, quantizer_view(self.average), self.recipe)
                print(f"head {elapsed:.0f} s step {self.steps} loss {loss:.3f} mel error {error:.3f}", flush=True)
                self._save(elapsed)
            if self.machine.is_over:
                break
        self._save(self.machine.clock() - start)

    def _spectral_step(self, elapsed: float) -> Tensor:
        fall = 0.05 + 0.95 * (1 + math.cos(math.pi * elapsed / self.r.seconds)) / 2
        made, true = self._crop()
        loss = self._distance(made, true, self.r.modulation_weight)
        self._improve(loss, self.r.rate * min(1, (self.steps - self.fresh + 1) / 100) * fall)
        return loss.detach()

    def _adversarial_step(self) -> Tensor:
        made, true = self._crop()
        self.against.zero_grad(set_to_none=True)
        self.adversary.loss(true, made).backward()
        self.against.step()
        belief, likeness = self.adversary.deception(true, made)
        self.against_steps += 1
        ramp = min(1.0, self.against_steps / self.r.adversary_ramp)
        distance = self._distance(made, true, self.r.adversarial_modulation_weight)
        self._improve(self.r.distance_weight * distance + ramp * (belief + self.r.likeness_weight * likeness), self.r.adversarial_rate)
        return distance.detach()

    def _distance(self, made: Tensor, true: Tensor, modulation_weight: float) -> Tensor:
        return self.mel_distance(made, true) + modulation_weight * self.modulation_distance(made, true)

    def _improve(self, loss: Tensor, rate: float, clip: float = 5.0) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, clip)
        self.optimiser.step()
        with torch.no_grad():
            share = 1 - min(self.r.average, (self.steps - self.fresh + 1) / (self.steps - self.fresh + 10))
            for mean, weight in zip(self.average.parameters(), self.codec.parameters(), strict=True):
                mean.lerp_(weight, share)

    def _crop(self) -> tuple[Tensor, Tensor]:
        """A batch of sound decoded from codes, some with altered digits, and the true sound, (batch, samples)."""
        codes, true = self._drawn(self.audio)
        return self._made(codes), true

    def _drawn(self, audio: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Crops: codes (batch, frames, groups), some with altered digits, and the sound of their last frames, (batch, samples)."""
        (wave, codes), r = audio, self.r
        starts = torch.randint(0, len(codes) - r.context - r.crop, (r.batch,), device=codes.device)
        frames = starts[:, None] + torch.arange(r.context + r.crop, device=codes.device)
        chosen, true = codes[frames].long(), wave[frames[:, r.context :]].flatten(1).float() / 32768
        return torch.where(torch.rand(chosen.shape, device=codes.device) < r.digit_noise, nudge(chosen), chosen), true[:, UNHEARD:]

    def _made(self, codes: Tensor) -> Tensor:
        """The sound that the head makes of what `_drawn` gave."""
        return run_head(self.codec.head, features_of(self.codec, self.fsq, codes), last=self.r.crop * HOPS_PER_FRAME)[:, UNHEARD:]

    @property
    def _file(self) -> Path:
        return self.recipe.folder / "head.pt"

    def _save(self, seconds: float) -> None:
        modules = {name: getattr(self, name).state_dict() for name in self.kept}
        done = {"seconds": seconds, "steps": self.steps, "against_steps": self.against_steps, "fresh": self.fresh}
        save(self._file, modules | done | {"machine": self.machine.name})

    def _resume(self, state: dict[str, Any]) -> None:
        state.setdefault("codec", state["average"])  # a packed checkpoint has the average alone, and no optimisers
        for name in state.keys() & set(self.kept):
            getattr(self, name).load_state_dict(state[name])
        self.seconds, self.steps, self.against_steps = state["seconds"], state["steps"], state["against_steps"]
        self.fresh = state.get("fresh", 0) if "optimiser" in state else self.steps


def trainable_codec(recipe: Recipe) -> tuple[Codec, GroupedFSQ]:
    """The codec with the trained encoder, weight norm on every convolution of the head, and its quantizer's training view."""
    codec = Codec(codec_config(recipe.encoder, recipe.head))
    encoder = load_encoder(recipe)
    codec.backbone.load_state_dict(encoder.backbone.state_dict())
    codec.quantizer.load_state_dict(encoder.quantizer.state_dict())
    for module in codec.head.modules():
        if isinstance(module, CausalConv | CausalTransposedConv):
            weight_norm(module.conv)
    return codec, quantizer_view(codec)


def quantizer_view(codec: Codec) -> GroupedFSQ:
    """The training view of a finished codec's quantizer."""
    fsq = GroupedFSQ(codec.quantizer, 1.0)
    fsq.scale = None
    return fsq.to(codec.quantizer.residual_fsq.rvqs[0].project_out.weight.device)


@torch.no_grad()
def mel_error(codec: Codec, fsq: GroupedFSQ, recipe: Recipe) -> float:
    """Mean absolute log-mel error in nats on 16 unseen sentences."""
    device = fsq.levels.device
    log_mel = LogMel(160).to(device)
    errors = []
    for u, c in zip(utterances(held_out(recipe, "validation"))[:16], coded(held_out_codes(recipe, "validation")), strict=False):
        made = run_head(codec.head, features_of(codec, fsq, c.codes[None].to(device).long()))
        errors.append((log_mel(made)[0] - u.mel.to(device).float()).abs().mean())
    return float(torch.stack(errors).mean())


def features_of(codec: Codec, fsq: GroupedFSQ, codes: Tensor) -> Tensor:
    """Codes (batch, frames, groups) -> features (batch, dim, hops)."""
    x, history = fsq.features(codes).transpose(1, 2), History()
    for up, block in codec.quantizer.upsample:
        x = block(up(x, history), history)
    return x


def feature_parameters(codec: Codec) -> list[nn.Parameter]:
    """What makes a head's features of codes."""
    rvqs = codec.quantizer.residual_fsq.rvqs
    return [*codec.quantizer.upsample.parameters(), *(p for rvq in rvqs for p in rvq.project_out.parameters())]


def _training_audio(recipe: Recipe) -> tuple[Tensor, Tensor]:
    """All waveforms end to end (frames, SAMPLES) int16 and their codes (frames, groups)."""
    waves, codes = [], []
    for speech, code in list(zip(speech_shards(recipe), code_shards(recipe), strict=True))[: recipe.head.shards]:
        for u, c in zip(utterances(speech), coded(code), strict=True):
            if u.wave is not None:
                waves.append(u.wave)
                codes.append(c.codes)
    return torch.cat(waves).view(-1, SAMPLES), torch.cat(codes)


def _conv(x: Tensor, layer: CausalConv) -> Tensor:
    conv = layer.conv
    weight = conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.pad(x, (layer.reach, 0)), weight, conv.bias, dilation=(1, conv.dilation[0]))


def _transposed(x: Tensor, layer: CausalTransposedConv) -> Tensor:
    """(batch, channels, 1, time) -> (batch, channels, 1, time * stride): the tail that depends on the future is cut off."""
    conv = layer.conv
    y = F.conv_transpose2d(x, conv.weight.unsqueeze(2), conv.bias, stride=(1, layer.stride))
    return y[..., : x.shape[-1] * layer.stride].contiguous(memory_format=torch.channels_last)
