"""Other speakers, made of the teacher: its pitch moved, its formants shifted, its voice brighter, livelier or breathier.

hibari is a vocoder: pitch and filters can be changed apart from each other, before it makes sound of them (speech.py).
A disguised sentence keeps its words and its timing, so that the teacher's phonemes and positions in the text are those of the disguise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.machine import Machine
from training.pulses import FEWEST, MAX_PULSES, VOICED_HZ, AlignedUtterance, cycles, expected_pulses, moved, pitch_of
from training.recipe import Recipe
from training.shards import read_corpus, save
from training.speech import Sentence, Teacher, Utterance, int16, sound_of, trimmed

EACH = 8
"""Utterances of a speaker, one after the other."""
PER_SHARD = 500
"""Speakers."""
LOUDNESS, LOUDEST = (0.02, 0.15), 0.98
"""Root mean squares of speakers' utterances, and the largest sample: microphones differ more than voices do."""
LOWEST = VOICED_HZ + 5
"""Hz: a lively low voice would fall below what hibari makes pulses for."""
PITCH_SCALE = 0.35
"""Nats of pitch that a speaker's readout has as 1."""
_STEP = 7
"""Of the texts: neighbours in the corpus are alike."""

Counts = Callable[[Tensor, np.ndarray], np.ndarray]
"""Codes (frames, groups), and how many pulses each frame would have at its pitch -> how many it has, (frames,)."""


@dataclass(frozen=True)
class Speaker:
    """How a speaker differs from the teacher, whose values are 1, 1, 0, 0 and 0, and how loud they are."""

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
    loudness: float
    """Root mean square of an utterance; the model need not tell it."""

    @property
    def readout(self) -> Tensor:
        """What the language model learns to tell, (5,): 0 for the teacher, and about 1 away from it for others."""
        own = (math.log(self.pitch) / PITCH_SCALE, (self.formants - 1) / 0.1, self.tilt / 0.7, self.liveliness / 0.25, self.breath / 0.4)
        return torch.tensor(own)


def speaker(number: int) -> Speaker:
    """One of endlessly many, always the same: as many lower as higher voices."""
    drawn = random.Random(number)
    low = drawn.random() < 0.5
    pitch, formants = ((0.42, 0.72), (0.78, 0.94)) if low else ((0.75, 1.3), (0.92, 1.15))
    return Speaker(
        drawn.uniform(*pitch),
        drawn.uniform(*formants),
        drawn.uniform(-1.5, 1),
        drawn.uniform(-0.5, 0.4),
        drawn.uniform(-0.5, 0.8),
        math.exp(drawn.uniform(*map(math.log, LOUDNESS))),
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
        self._teacher = Teacher(folder)

    def speak(self, text: str, as_speaker: Speaker, *, seed: int) -> Utterance | None:
        """As `Teacher.speak`, without the wave."""
        sentences = self._sentences(text, as_speaker)
        return self._teacher.utterance(text, sentences, _sound(sentences, as_speaker, seed)[0], keep_wave=False) if sentences else None

    def aligned(self, text: str, as_speaker: Speaker, *, seed: int, codes: Tensor, counts: Counts) -> AlignedUtterance:
        """What `speak` said, with a whole number of pulses in each of its code frames: what a head should make of the codes.

        `codes` (frames, groups) are those of `speak`'s sound, and `counts` tells the numbers.
        """
        sentences = self._sentences(text, as_speaker)
        sound, gain = _sound(sentences, as_speaker, seed)
        found = trimmed(sound)
        assert found is not None  # speak has said it
        samples, start = len(found[0]), found[1]
        now = counts(codes, expected_pulses(pitch_of(sentences, start, samples)))
        wave = int16(moved(sentences, cycles(now), start, seed) * gain)
        return AlignedUtterance(codes, torch.from_numpy(wave), torch.from_numpy(now.astype(np.int8)))

    def _sentences(self, text: str, as_speaker: Speaker) -> list[Sentence]:
        return [disguised(sentence, as_speaker) for sentence in self._teacher.sentences(text)]


def _sound(sentences: list[Sentence], as_speaker: Speaker, seed: int) -> tuple[np.ndarray, float]:
    """Samples at 24 kHz as loud as their speaker, and what made them so."""
    sound = sound_of(sentences, seed)
    gain = as_speaker.loudness / max(float(sound.std()), 1e-4)
    gain *= min(1, LOUDEST / max(gain * float(np.abs(sound).max()), 1e-4))
    return sound * gain, gain


def by_pitch(_codes: Tensor, expected: np.ndarray) -> np.ndarray:
    """The whole numbers of pulses nearest to the pitch."""
    return np.clip(np.round(expected).astype(int), FEWEST, MAX_PULSES)


def other_speech(recipe: Recipe) -> list[Path]:
    """The shards of other speakers' speech, in order."""
    return sorted(recipe.folder.glob("other_speech_*.pt"))


def codes_beside(shard: Path) -> Path:
    """Where the codes of a shard of other speakers' speech are."""
    return shard.with_name(shard.name.replace("speech", "codes"))


def aligned_beside(shard: Path) -> Path:
    """Where the sound of a shard of other speakers' speech is, with pulses where codes say."""
    return shard.with_name(shard.name.replace("speech", "aligned"))


def speak_disguised(recipe: Recipe, machine: Machine, process: int, shards: int) -> None:
    """Write this process's share of so many shards of PER_SHARD speakers."""
    texts, teacher = read_corpus(recipe).train, Disguised(recipe.folder)
    for shard in range(shards)[process :: machine.processes]:
        path = recipe.folder / f"other_speech_{shard:04d}.pt"
        if path.exists():
            continue
        said = []
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            for k in range(EACH * number, EACH * (number + 1)):
                utterance = teacher.speak(texts[_STEP * k % len(texts)], speaker(number), seed=k)
                if utterance is not None:
                    said.append({"speaker": number, "seed": k} | vars(utterance))
        save(path, said)
        print(path.name, flush=True)


def align_others(recipe: Recipe, shards: int, counts: Counts) -> list[Path]:
    """Write the aligned sound of the first shards of other speakers' speech, whose codes are there; five minutes of a core each."""
    teacher, written = Disguised(recipe.folder), []
    for shard in other_speech(recipe)[:shards]:
        pairs = zip(torch.load(shard, weights_only=True), torch.load(codes_beside(shard), weights_only=True), strict=True)
        aligned = [
            teacher.aligned(said["text"], speaker(said["speaker"]), seed=said["seed"], codes=coded["codes"], counts=counts)
            for said, coded in pairs
        ]
        written.append(aligned_beside(shard))
        save(written[-1], [vars(one) for one in aligned])
    return written
