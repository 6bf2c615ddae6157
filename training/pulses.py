"""The teacher's speech with its pulses where a head puts them: targets that codes determine.

Codes hold the pitch, and nothing of when pulses occur, so a head cannot learn the teacher's own sound sample by sample.
The teacher is a vocoder: its pulses can be put elsewhere and its filters kept.
Here each code frame begins with a pulse and has a whole number of them, which is read from a head's own sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from hibari import dsp
from torch import Tensor

from inference.model.codec import Codec
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from training.recipe import Recipe
from training.shards import CodedUtterance, coded, utterances, write
from training.speech import TEACHER_HOP, TEACHER_RATE, Sentence, Teacher, Utterance, int16, sound_of, trimmed

VOICED_HZ = 40
"""hibari has no pulses where the pitch is lower."""
MAX_HARMONIC_HZ = 11_000
"""hibari makes no harmonic above this."""
MIN_PULSES, MAX_PULSES = 3, 19
"""Pulses in a frame: 65 to 409 Hz."""
FUNDAMENTAL = (90, 130, 280, 340)
"""Hz: where the band that shows the pulses begins, is whole, is whole no more and ends."""
PITCH_WEIGHT = 0.05
"""What one pulse away from the pitch costs, where 1 is a perfect match of a frame's fundamental."""

FEWEST = 2
"""Pulses in a frame of a voice lower than the teacher's, which no head has to find: 43 Hz."""

_WITHIN = np.arange(SAMPLES_PER_FRAME) / SAMPLES_PER_FRAME


@dataclass(frozen=True)
class AlignedUtterance:
    """Training data of a head: codes, and the sound that it should make of them."""

    codes: Tensor  # (frames, 8) int16
    wave: Tensor  # (frames * 2048,) int16
    counts: Tensor  # (frames,) int8, pulses


def cycles(counts: np.ndarray) -> np.ndarray:
    """Pulses in each frame -> the phase in cycles at each sample; a pulse is where it is whole.

    The rate goes from the last frame's to this one's, and each frame has its whole number: with u from 0 to 1 in a frame, p pulses in
    the last and c in this one, the rate is c + (p - c)(1 - 4u + 3u^2).
    """
    now = counts.astype(np.float64)[:, None]
    last = np.concatenate((now[:1], now[:-1]))
    return (np.cumsum(now)[:, None] - now + _course(last, now)).reshape(-1)


def _course(last: np.ndarray, now: np.ndarray) -> np.ndarray:
    return now * _WITHIN + (last - now) * (_WITHIN - 2 * _WITHIN**2 + _WITHIN**3)


def expected_pulses(pitch: np.ndarray) -> np.ndarray:
    """The pitch in Hz of each sample (frames * 2048,) -> how many pulses a frame would have at that pitch, (frames,), not rounded.

    Where a voice begins or ends within a frame, its pitch is that of the voiced part.
    """
    frames = pitch.reshape(-1, SAMPLES_PER_FRAME)
    voiced = frames > VOICED_HZ
    heard: np.ndarray = (frames * voiced).sum(1) / np.maximum(voiced.sum(1), 1)
    return heard * SAMPLES_PER_FRAME / SAMPLE_RATE


_ALL = np.arange(MIN_PULSES, MAX_PULSES + 1, dtype=np.float64)
_TURNS = np.exp(-2j * np.pi * _course(_ALL[:, None, None], _ALL[None, :, None])).astype(np.complex64)  # of the last frame, of this one


def count(wave: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """The pulses in each frame of a wave (frames * 2048,), whose pitch in Hz is known to within a pulse or so -> (frames,).

    Where a voice begins or ends within a frame, its pitch is that of the voiced part, and the number what the whole frame would have.
    Each pair of neighbouring frames is compared with what its fundamental would be (`cycles`), and the best sequence is taken (Viterbi).
    """
    frames = len(wave) // SAMPLES_PER_FRAME
    is_voiced = (pitch > VOICED_HZ).reshape(frames, SAMPLES_PER_FRAME)
    voiced = _fundamental(wave).reshape(frames, SAMPLES_PER_FRAME) * is_voiced
    expected = expected_pulses(pitch)
    near = np.clip(np.round(expected).astype(int)[:, None] + np.arange(-1, 2), MIN_PULSES, MAX_PULSES)
    size = np.sqrt(np.square(voiced).sum(1) * SAMPLES_PER_FRAME / 2) + 1e-3
    best, before = np.zeros((frames, 3)), np.zeros((frames, 3), int)
    for k in range(1, frames):
        match = np.abs(_TURNS[near[k - 1] - MIN_PULSES][:, near[k] - MIN_PULSES] @ voiced[k].astype(np.float32)) / size[k]
        reached = best[k - 1][:, None] + match - PITCH_WEIGHT * np.abs(near[k] - expected[k])
        best[k], before[k] = reached.max(0), reached.argmax(0)
    path = [int(best[-1].argmax())]
    for k in range(frames - 1, 0, -1):
        path.append(int(before[k][path[-1]]))
    return near[np.arange(frames), path[::-1]]


def _fundamental(wave: np.ndarray) -> np.ndarray:
    padded = len(wave) + SAMPLES_PER_FRAME
    share = np.interp(np.fft.rfftfreq(padded, 1 / SAMPLE_RATE), FUNDAMENTAL, (0, 1, 1, 0))
    return np.fft.irfft(np.fft.rfft(wave, padded) * share, padded)[: len(wave)]


def pitch_of(sentences: list[Sentence], start: int, samples: int) -> np.ndarray:
    """Hz at each sample at 44.1 kHz of the trimmed sound."""
    pitch = np.concatenate([_between(s.spectra[-1]) for s in sentences])
    at = ((start + np.arange(samples)) * TEACHER_RATE / SAMPLE_RATE).astype(int)
    return pitch[np.minimum(at, len(pitch) - 1)]


def _between(pitch: np.ndarray) -> np.ndarray:
    """The pitch of each step -> of each sample at 24 kHz, as hibari interpolates it."""
    middles = (np.arange(len(pitch)) + 0.5) * TEACHER_HOP - 0.5
    return np.interp(np.arange(len(pitch) * TEACHER_HOP), middles, pitch)


def moved(sentences: list[Sentence], phase: np.ndarray, start: int, seed: int) -> np.ndarray:
    """The sentences with a pulse wherever `phase` is whole: samples at 44.1 kHz, as many as phases.

    `phase` is in cycles at each sample of the trimmed sound, which begins at sample `start`. The noise is that of `Teacher.speak`.
    """
    rng, waves, begun = np.random.default_rng(seed), [], 0
    for sentence in sentences:
        *_, pitch = sentence.spectra
        length = len(pitch) * TEACHER_HOP
        at = (begun + np.arange(length)) * SAMPLE_RATE / TEACHER_RATE - start
        waves.append(_filtered(sentence.spectra, _pulses(np.interp(at, np.arange(len(phase)), phase), _between(pitch)), rng))
        begun += length
    wave = soxr.resample(np.concatenate(waves), TEACHER_RATE, SAMPLE_RATE, quality="HQ")[start : start + len(phase)]
    return np.pad(wave, (0, len(phase) - len(wave)))


def _pulses(phase: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """All harmonics up to MAX_HARMONIC_HZ, of amplitude 1: the sum of cos(h t), h from 1 to H, is sin((H + 1/2) t) / (2 sin(t/2)) - 1/2."""
    t = 2 * np.pi * (phase % 1)
    harmonics = np.floor(MAX_HARMONIC_HZ / np.maximum(pitch, VOICED_HZ)) + 0.5
    below = 2 * np.sin(t / 2)
    flat = np.abs(below) <= 2e-3
    pulses = np.where(flat, harmonics, np.sin(harmonics * t) / np.where(flat, 1, below)) - 0.5
    return np.where(pitch > VOICED_HZ, pulses, 0).astype(np.float32)


def _filtered(spectra: list[np.ndarray], pulses: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """hibari's synthesis of other pulses: harmonics, noise, and what has a phase of its own."""
    harmonic, turn, noise, free, phase, pitch = spectra
    drawn = rng.standard_normal((len(harmonic), 2 * len(pitch)), dtype=np.float32).view(np.complex64)
    spectrum = dsp.stft(pulses, len(pitch)) * dsp.ex(harmonic) * np.exp(1j * np.pi * np.tanh(turn))
    return dsp.ola((spectrum + drawn * dsp.ex(noise) + dsp.ex(free) * np.exp(1j * phase)).astype(np.complex64))


@torch.no_grad()
def align(codec: Codec, teacher: Teacher, spoken: Utterance, code: CodedUtterance, seed: int) -> AlignedUtterance | None:
    """One utterance as the teacher says it with the pulses of this codec's head. None where the teacher now says something else."""
    sentences = teacher.sentences(spoken.text)
    found = trimmed(sound_of(sentences, seed)) if sentences else None
    samples = len(code.codes) * SAMPLES_PER_FRAME
    if found is None or len(found[0]) != samples:
        return None
    start = found[1]
    made = codec.decode(code.codes.long().T[None])[0].numpy()
    counts = count(made, pitch_of(sentences, start, samples))
    wave = moved(sentences, cycles(counts), start, seed)
    return AlignedUtterance(code.codes, torch.from_numpy(int16(wave)), torch.from_numpy(counts.astype(np.int8)))


def align_shard(recipe: Recipe, codec: Codec, teacher: Teacher, speech: Path, codes: Path, target: Path) -> None:
    """Write a shard of `AlignedUtterance`; six minutes of a core for 1,000 utterances, most of it the head."""
    pairs = zip(utterances(speech), coded(codes), strict=True)
    found = [align(codec, teacher, u, c, recipe.speech.seed) for u, c in pairs]
    write(target, [one for one in found if one is not None])
