"""Other speakers, made of the teacher: its pitch moved, its formants shifted, its voice brighter, livelier or breathier.

hibari is a vocoder: pitch and filters can be changed apart from each other, before it makes sound of them (speech.py).
A disguised sentence keeps its words and its timing, so that the teacher's phonemes and positions in the text are those of the disguise.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference.model.codec import LogMel
from training.machine import Machine
from training.pulses import VOICED_HZ
from training.recipe import Recipe
from training.shards import read_corpus, save
from training.speech import Sentence, Teacher, Utterance, sound_of

EACH = 3
"""Utterances of a speaker, one after the other."""
PER_SHARD = 500
"""Speakers."""
LOUDNESS, LOUDEST = 0.05, 0.98
"""Root mean square of an utterance, and its largest sample."""
LOWEST = VOICED_HZ + 5
"""Hz: a lively low voice would fall below what hibari makes pulses for."""
_STEP = 7
"""Of the texts: neighbours in the corpus are alike."""


@dataclass(frozen=True)
class Speaker:
    """How a speaker differs from the teacher, whose values are 1, 1, 0, 0 and 0."""

    pitch: float
    """Times the teacher's mean pitch."""
    formants: float
    """Times the teacher's frequencies of all filters."""
    tilt: float
    """Nats that 12 kHz gains over 0 Hz."""
    liveliness: float
    """How much wider intervals are, as a share of the teacher's."""
    breath: float
    """Nats of noise more."""

    @property
    def readout(self) -> Tensor:
        """What the language model learns to tell, (5,): 0 for the teacher, and about 1 away from it for others."""
        own = (math.log(self.pitch) / 0.35, (self.formants - 1) / 0.1, self.tilt / 0.7, self.liveliness / 0.25, self.breath / 0.4)
        return torch.tensor(own)


def speaker(number: int) -> Speaker:
    """One of endlessly many, always the same: as many lower as higher voices."""
    drawn = random.Random(number)
    low = drawn.random() < 0.5
    pitch, formants = ((0.42, 0.72), (0.78, 0.94)) if low else ((0.75, 1.3), (0.92, 1.15))
    return Speaker(
        drawn.uniform(*pitch), drawn.uniform(*formants), drawn.uniform(-1.5, 1), drawn.uniform(-0.5, 0.4), drawn.uniform(-0.5, 0.8)
    )


def disguised(sentence: Sentence, as_speaker: Speaker) -> Sentence:
    """The sentence said by somebody else."""
    harmonic, turn, noise, free, phase, pitch = sentence.spectra
    voiced = pitch > VOICED_HZ
    mean = np.exp(np.log(pitch[voiced]).mean()) if voiced.any() else 1.0
    interval = np.maximum(pitch, 1) / mean
    moved = np.maximum(as_speaker.pitch * mean * interval ** (1 + as_speaker.liveliness), LOWEST)
    brighter = np.linspace(0, as_speaker.tilt, len(harmonic), dtype=np.float32)[:, None]
    harmonic, turn, noise, free = (_shifted(x, as_speaker.formants) for x in (harmonic, turn, noise, free))
    more = 0.5 * math.log(as_speaker.pitch)  # a lower voice has more harmonics
    spectra = [
        harmonic + brighter + more,
        turn,
        noise + brighter + as_speaker.breath,
        free + brighter,
        phase,
        np.where(voiced, moved, pitch),
    ]
    return replace(sentence, spectra=[x.astype(np.float32) for x in spectra])


def _shifted(spectrum: np.ndarray, factor: float) -> np.ndarray:
    """(bins, steps) with what stood at a frequency at `factor` times it."""
    at = np.minimum(np.arange(len(spectrum)) / factor, len(spectrum) - 1)
    below = at.astype(int)
    above, share = np.minimum(below + 1, len(spectrum) - 1), (at - below)[:, None].astype(np.float32)
    shifted: np.ndarray = spectrum[below] * (1 - share) + spectrum[above] * share
    return shifted


class Disguised:
    """The teacher as anybody."""

    def __init__(self, folder: Path) -> None:
        self._teacher, self._mel = Teacher(folder), LogMel(160)

    def speak(self, text: str, as_speaker: Speaker, *, seed: int, keep_wave: bool) -> Utterance | None:
        """As `Teacher.speak`, at LOUDNESS: a clip's level is no mark of its speaker."""
        sentences = [disguised(s, as_speaker) for s in self._teacher.sentences(text)]
        if not sentences:
            return None
        sound = sound_of(sentences, seed)
        sound *= LOUDNESS / max(sound.std(), 1e-4)
        return self._teacher.utterance(text, sentences, sound * min(1, LOUDEST / np.abs(sound).max()), keep_wave)


def other_speech(recipe: Recipe) -> list[Path]:
    """The shards of other speakers' speech, in order."""
    return sorted(recipe.folder.glob("other_speech_*.pt"))


def codes_beside(shard: Path) -> Path:
    """Where the codes of a shard of other speakers' speech are."""
    return shard.with_name(shard.name.replace("speech", "codes"))


def speak_disguised(recipe: Recipe, machine: Machine, process: int, shards: int, waves: int) -> None:
    """Write this process's share of so many shards of PER_SHARD speakers, of which the first `waves` keep their sound."""
    texts, teacher = read_corpus(recipe).train, Disguised(recipe.folder)
    for shard in range(shards)[process :: machine.processes]:
        path = recipe.folder / f"other_speech_{shard:04d}.pt"
        if path.exists():
            continue
        said = []
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            for k in range(EACH * number, EACH * (number + 1)):
                utterance = teacher.speak(texts[_STEP * k % len(texts)], speaker(number), seed=k, keep_wave=shard < waves)
                if utterance is not None:
                    said.append({"speaker": number} | vars(utterance))
        save(path, said)
        print(path.name, flush=True)
