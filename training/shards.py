"""Files between the stages: shards of utterances with their log-mels, and of the codes made from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.machine import Machine
from training.recipe import Recipe
from training.speech import Teacher, Utterance, spoken
from training.text import Corpus, corpus

HOPS_PER_FRAME = 4
SPEAKERS_PER_STRANGER = 8
"""Who say something behind a stranger's clip: those whose pitch is nearest."""


@dataclass(frozen=True)
class CodedUtterance:
    """Training data of the language model: a text and, frame by frame, its codes and their position in the text."""

    text: bytes
    codes: Tensor  # (frames, 8) int16
    bytes: Tensor  # (frames,) float16, mean position in `text`
    phonemes: Tensor  # (frames, 4) uint8, one a hop


@dataclass(frozen=True)
class OtherSpeaker:
    """Training data of the language model: what somebody else says, and what the clips before it are cut from, theirs or a stranger's."""

    readout: Tensor
    """What tells them from the teacher, `disguise.Speaker.readout`."""
    says: list[CodedUtterance]
    clips: list[list[tuple[bytes, Tensor]]]
    """One or more recordings: the texts and the codes, (frames, 8) int16, of utterances."""


def write(path: Path, items: list[Any]) -> None:
    """Write a list of dataclasses as plain dictionaries; a reader never sees half a file."""
    save(path, [vars(item) for item in items])


def save(path: Path, content: object) -> None:
    """`torch.save`, to a file beside the target that then takes its name."""
    scratch = path.with_suffix(".part")
    torch.save(content, scratch)
    scratch.replace(path)


def utterances(path: Path) -> list[Utterance]:
    """Read a shard of speech."""
    return [Utterance(**item) for item in torch.load(path, weights_only=True)]


def coded(path: Path) -> list[CodedUtterance]:
    """Read a shard of codes."""
    return [CodedUtterance(**item) for item in torch.load(path, weights_only=True)]


def read_corpus(recipe: Recipe) -> Corpus:
    """The corpus; its held-out part is also written to a file for inspection."""
    drawn = corpus(recipe.text)
    held = {"test": [asdict(t) for t in drawn.test], "validation": drawn.validation}
    (recipe.folder / "held_out.json").write_text(json.dumps(held, indent=1), encoding="utf-8")
    return drawn


def speak(recipe: Recipe, machine: Machine, process: int) -> None:
    """Write this process's share of the missing held-out and training shards."""
    recipe.folder.mkdir(parents=True, exist_ok=True)
    drawn, teacher = read_corpus(recipe), Teacher(recipe.folder)
    jobs = list(_jobs(recipe, drawn))
    for path, texts, keep_wave in jobs[process :: machine.processes]:
        if not path.exists():
            write(path, list(spoken(teacher, texts, seed=recipe.speech.seed, keep_wave=keep_wave)))
            print(path.name, flush=True)
            if machine.is_over:
                return


def speech_shards(recipe: Recipe) -> list[Path]:
    """The existing shards of training speech, in the order they were drawn."""
    return sorted(recipe.folder.glob("speech_*.pt"))


def code_shards(recipe: Recipe) -> list[Path]:
    """The existing shards of codes, in the same order."""
    return sorted(recipe.folder.glob("codes_*.pt"))


def other_speakers(recipe: Recipe) -> list[OtherSpeaker]:
    """The other speakers whose codes are there, and those of them who are like somebody that is only heard in clips (strangers.py)."""
    found: dict[int, OtherSpeaker] = {}
    for path in sorted(recipe.folder.glob("other_codes_*.pt")):
        for item in torch.load(path, weights_only=True):
            if "recorded" not in item:
                raise SystemExit(f"{path} has no recorded clips: make it again with `python -m training.widening --seconds 0`")
            number, readout, recorded = (item.pop(name) for name in ("speaker", "readout", "recorded"))
            somebody = found.setdefault(number, OtherSpeaker(readout, [], [[], []]))
            said = CodedUtterance(**item)
            somebody.says.append(said)
            for clip, codes in zip(somebody.clips, (said.codes, recorded), strict=True):
                clip.append((said.text, codes))
    known = [somebody for somebody in found.values() if len({said.text for said in somebody.says}) > 1]
    strangers = [one for path in sorted(recipe.folder.glob("strangers_*.pt")) for one in torch.load(path, weights_only=True)]
    alike = [
        OtherSpeaker(somebody.readout, somebody.says, [stranger["clip"]])
        for stranger in strangers
        for somebody in sorted(known, key=lambda somebody: abs(float(somebody.readout[0]) - stranger["pitch"]))[:SPEAKERS_PER_STRANGER]
    ]
    return known + alike


def held_out(recipe: Recipe, name: str) -> Path:
    """`test` or `validation` as spoken by the teacher."""
    return recipe.folder / f"held_{name}.pt"


def held_out_codes(recipe: Recipe, name: str) -> Path:
    """Codes of `held_out`."""
    return recipe.folder / f"held_{name}_codes.pt"


def _jobs(recipe: Recipe, drawn: Corpus) -> Iterator[tuple[Path, tuple[str, ...], bool]]:
    yield held_out(recipe, "test"), tuple(t.text for t in drawn.test), True
    yield held_out(recipe, "validation"), drawn.validation, True
    size = recipe.speech.per_shard
    for number, start in enumerate(range(0, recipe.speech.utterances, size)):
        texts = drawn.train[start : min(start + size, recipe.speech.utterances)]
        yield recipe.folder / f"speech_{number:04d}.pt", texts, number < recipe.speech.shards_with_audio
