"""The encoder and the quantizer, trained before there is a vocoder: a throw-away mel decoder is enough, and 20 times cheaper.

Group 0, which the slow transformer predicts, must also identify the phoneme; nested dropout of groups makes it carry most
of the sound as well. The log shows the log-mel error on unseen sentences and the accuracy of phonemes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.model.codec import Backbone, ConvNeXtBlock, History, Quantizer
from inference.model.config import CodecConfig
from training.fsq import GroupedFSQ
from training.machine import Machine
from training.recipe import EncoderRecipe, HeadRecipe, Recipe
from training.shards import HOPS_PER_FRAME, held_out, save, speech_shards, utterances
from training.speech import PHONEMES, Utterance

LAYER_SCALE = 0.1
"""With the library's 1e-6 every digit would stay at its middle level throughout a short run."""
MELS, GROUPS = 160, 8


def codec_config(encoder: EncoderRecipe, head: HeadRecipe) -> CodecConfig:
    """FishSpeech 1.5's codec with other widths and depths."""
    return CodecConfig(
        n_mels=MELS,
        depths=encoder.depths,
        dims=encoder.dims,
        kernel_size=7,
        groups=GROUPS,
        downsample_factors=(2, 2),
        head_channels=head.channels,
        conv_pre_kernel=13,
        conv_post_kernel=13,
        upsample_kernels=(16, 16, 4, 4, 4),
        resblock_kernels=(3, 7, 11),
        units_per_resblock=3,
    )


class MelAutoencoder(nn.Module):
    """Backbone and quantizer, with the two outputs that train them."""

    def __init__(self, config: CodecConfig, scale: float) -> None:
        super().__init__()
        width = config.dims[-1]
        self.backbone, self.quantizer = Backbone(config), Quantizer(config)
        self.fsq = GroupedFSQ(self.quantizer, scale)
        self.mel = nn.Conv1d(width, config.n_mels, 1)
        self.group = width // config.groups
        self.phoneme = nn.Sequential(nn.Conv1d(self.group, 128, 3, padding=1), nn.GELU(), nn.Conv1d(128, PHONEMES, 1))

    def forward(self, mel: Tensor, group_dropout: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, mels, hops) -> the reconstruction in the same shape, phoneme logits (batch, PHONEMES, frames), codes (batch, frames,
        groups).
        """
        features, codes = self.fsq(self.quantizer.reduce(self.backbone(mel)).transpose(1, 2), group_dropout)
        features = features.transpose(1, 2)
        return self.mel(self.upsample(features)), self.phoneme(features[:, : self.group]), codes

    def upsample(self, features: Tensor) -> Tensor:
        """(batch, dim, frames) -> (batch, dim, hops)."""
        history = History()
        for up, block in self.quantizer.upsample:
            features = block(up(features, history), history)
        return features

    def initialise(self, mean: Tensor, deviation: Tensor) -> None:
        """Fan-in weights; the stem standardises each mel band, the mel decoder starts at the mean."""
        for module in (*self.backbone.modules(), *self.quantizer.modules()):
            if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
                fan_in = module.weight.shape[0] if isinstance(module, nn.ConvTranspose1d) else module.weight[0].numel()
                nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
                nn.init.zeros_(module.bias)
            if isinstance(module, ConvNeXtBlock):
                nn.init.constant_(module.gamma, LAYER_SCALE)
        for rvq in self.quantizer.residual_fsq.rvqs:
            nn.init.orthogonal_(rvq.project_in.weight)
        with torch.no_grad():
            stem = self.backbone.downsample_layers[0][0].conv
            stem.weight.copy_(torch.randn_like(stem.weight) * stem.weight[0].numel() ** -0.5 / deviation[None, :, None])
            stem.bias.copy_(-(stem.weight * mean[None, :, None]).sum((1, 2)))
            self.mel.bias.copy_(mean)


@dataclass(frozen=True)
class EncoderScores:
    """On unseen sentences: mean absolute log-mel error in nats, share of phonemes identified, codes in use (perplexity) per group."""

    mel_error: float
    phonemes: float
    perplexity: tuple[int, ...]


def train_encoder(recipe: Recipe, machine: Machine) -> None:
    """Train for `recipe.encoder.seconds` and write `encoder.pt`, unless it exists."""
    if not (recipe.folder / "encoder.pt").exists():
        EncoderTraining(recipe, machine).run()


class EncoderTraining:
    """One run: model, optimiser and progress. Saved in `encoder_training.pt` until it is done."""

    def __init__(self, recipe: Recipe, machine: Machine) -> None:
        self.recipe, self.machine, self.r = recipe, machine, recipe.encoder
        torch.manual_seed(self.r.seed)
        spoken = [u for path in speech_shards(recipe)[: self.r.shards] for u in utterances(path)]
        mel, phonemes = torch.cat([u.mel for u in spoken], 1), torch.cat([u.phonemes for u in spoken])
        model = MelAutoencoder(codec_config(self.r, recipe.head), self.r.pre_bound_scale)
        sample = mel[:, :200_000].float()
        model.initialise(sample.mean(1), sample.std(1).clamp(min=0.3))
        self.model, self.mel, self.phonemes = model.to(machine.device), mel.to(machine.device), phonemes.to(machine.device)
        fused = machine.device.type == "cuda" or None  # one launch instead of ten per parameter
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=self.r.rate, betas=(0.8, 0.98), weight_decay=1e-4, fused=fused)
        self.seconds, self.steps = 0.0, 0
        if self._file.exists():
            self._resume(torch.load(self._file, map_location=machine.device, weights_only=True))

    def run(self) -> None:
        """Train until the recipe's time is up, then write `encoder.pt`; or until the machine's time is up, to resume later."""
        held = utterances(held_out(self.recipe, "validation"))[:40]
        start, due = self.machine.clock() - self.seconds, self.seconds + self.recipe.checkpoint_seconds
        while (elapsed := self.machine.clock() - start) < self.r.seconds:
            loss = self._step(elapsed)
            if elapsed > due:
                due += self.recipe.checkpoint_seconds
                print(f"encoder {elapsed:.0f} s step {self.steps} loss {loss.item():.3f} {score(self.model, held)}", flush=True)
            if self.machine.is_over:
                self._save(elapsed)
                return
        self.model.eval()
        self.model.fsq.fold()
        scores = score(self.model, held)
        print(f"encoder done after {self.steps} steps: {scores}", flush=True)
        save(self.recipe.folder / "encoder.pt", {"model": self.model.state_dict(), "steps": self.steps, "scores": vars(scores)})
        self._file.unlink(missing_ok=True)

    @property
    def _file(self) -> Path:
        return self.recipe.folder / "encoder_training.pt"

    def _step(self, elapsed: float) -> Tensor:
        fall = 0.03 + 0.97 * (1 + math.cos(math.pi * elapsed / self.r.seconds)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self.r.rate * min(1, (self.steps + 1) / 50) * fall
        loss = encoder_loss(self.model, *crops(self.mel, self.phonemes, self.r), self.r)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        return loss

    def _save(self, seconds: float) -> None:
        modules = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        save(self._file, modules | {"seconds": seconds, "steps": self.steps})

    def _resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.seconds, self.steps = state["seconds"], state["steps"]
        torch.manual_seed(self.r.seed + self.steps)


def encoder_loss(model: MelAutoencoder, mel: Tensor, phonemes: Tensor, r: EncoderRecipe) -> Tensor:
    """Mel error (L1 and RMS) plus group 0's phoneme loss. The first hops of a crop lack their past."""
    heard, logits, _ = model(mel, r.group_dropout)
    error = (heard - mel)[..., 8:]
    told = -(phoneme_share(phonemes).transpose(1, 2) * logits.log_softmax(1)).sum(1)[:, 2:]
    return error.abs().mean() + 0.2 * error.square().mean().sqrt() + r.phoneme_weight * told.mean()


def phoneme_share(phonemes: Tensor) -> Tensor:
    """Ids at every hop (batch, hops) -> share of each phoneme in a code frame (batch, frames, PHONEMES)."""
    return F.one_hot(phonemes.long(), PHONEMES).float().unflatten(1, (-1, HOPS_PER_FRAME)).mean(2)


@torch.no_grad()
def score(model: MelAutoencoder, held: list[Utterance]) -> EncoderScores:
    """Score the coding of unseen sentences."""
    training = model.training
    model.eval()
    device = model.mel.weight.device
    errors, right, codes = [], [], []
    for u in held:
        mel, phonemes = u.mel.to(device).float(), u.phonemes.to(device)
        heard, logits, code = model(mel[None])
        errors.append((heard - mel).abs().mean())
        right.append((phoneme_share(phonemes[None]).gather(2, logits.argmax(1)[..., None]) > 0).float().mean())
        codes.append(code[0])
    model.train(training)
    use = [torch.bincount(c, minlength=1000).float() for c in torch.cat(codes).T]
    entropies = [-(p * p.clamp(min=1e-9).log()).sum() for p in (u / u.sum() for u in use)]
    return EncoderScores(
        float(torch.stack(errors).mean()), float(torch.stack(right).mean()), tuple(round(float(e.exp())) for e in entropies)
    )


def load_encoder(recipe: Recipe) -> MelAutoencoder:
    """The frozen encoder, ready to make codes."""
    model = MelAutoencoder(codec_config(recipe.encoder, recipe.head), recipe.encoder.pre_bound_scale)
    model.load_state_dict(torch.load(recipe.folder / "encoder.pt", map_location="cpu", weights_only=True)["model"])
    model.fsq.scale = None
    return model.eval().requires_grad_(False)


def crops(mel: Tensor, phonemes: Tensor, r: EncoderRecipe) -> tuple[Tensor, Tensor]:
    """Random crops that start on a code frame: (batch, mels, crop) float32 and (batch, crop)."""
    starts = torch.randint(0, (mel.shape[1] - r.crop) // HOPS_PER_FRAME, (r.batch,), device=mel.device) * HOPS_PER_FRAME
    hops = starts[:, None] + torch.arange(r.crop, device=mel.device)
    return mel[:, hops].transpose(0, 1).float().contiguous(), phonemes[hops]
