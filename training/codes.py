"""Codes of everything spoken, made once by the frozen encoder."""

from __future__ import annotations

import torch

from training.encoder import MelAutoencoder, load_encoder
from training.machine import Machine
from training.recipe import Recipe
from training.shards import HOPS_PER_FRAME, CodedUtterance, code_shards, held_out, held_out_codes, speech_shards, utterances, write
from training.speech import Utterance

_TOGETHER = 16
_SILENCE = -11.5


def extract_codes(recipe: Recipe, machine: Machine) -> None:
    """Write a shard of codes for each shard of speech that has none."""
    model = load_encoder(recipe).to(machine.device)
    jobs = [(held_out(recipe, name), held_out_codes(recipe, name)) for name in ("test", "validation")]
    jobs += [(path, path.with_name(path.name.replace("speech_", "codes_"))) for path in speech_shards(recipe)]
    for source, target in jobs:
        if not target.exists():
            write(target, encode(model, utterances(source)))
            print(target.name, flush=True)
            if machine.is_over:
                break
    print(f"{len(code_shards(recipe))} shards of codes", flush=True)


@torch.no_grad()
def encode(model: MelAutoencoder, spoken: list[Utterance]) -> list[CodedUtterance]:
    """Encode utterances in batches of similar length; the encoder is causal, so padding at the end changes nothing before it.

    It uses full FP32 on GPUs too, as the engine will when it encodes clips.
    """
    device = model.mel.weight.device
    coded: list[CodedUtterance | None] = [None] * len(spoken)
    order = sorted(range(len(spoken)), key=lambda i: spoken[i].mel.shape[1])
    for start in range(0, len(order), _TOGETHER):
        group = order[start : start + _TOGETHER]
        mel = torch.full((len(group), 160, max(spoken[i].mel.shape[1] for i in group)), _SILENCE)
        for row, i in zip(mel, group, strict=True):
            row[:, : spoken[i].mel.shape[1]] = spoken[i].mel.float()
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            codes = model.fsq(model.quantizer.reduce(model.backbone(mel.to(device))).transpose(1, 2))[1]
        for row, i in zip(codes.cpu(), group, strict=True):
            coded[i] = _coded(spoken[i], row)
    return [c for c in coded if c is not None]


def _coded(u: Utterance, codes: torch.Tensor) -> CodedUtterance:
    frames = u.mel.shape[1] // HOPS_PER_FRAME
    positions = u.bytes.view(frames, HOPS_PER_FRAME).mean(1).half()
    return CodedUtterance(u.text.encode(), codes[:frames].short(), positions, u.phonemes.view(frames, HOPS_PER_FRAME))
