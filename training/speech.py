"""The teacher speaks: waveform at 44.1 kHz, its log-mel, and which byte and phoneme each moment belongs to.

hibari's network decides how long each phoneme lasts. This module adds that duration to the network's outputs, so that
every stretch of sound maps to a phoneme and, through the phonemiser's words, to bytes of the text.
This lets a small model learn, within minutes, its position in the text.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import soxr
import torch
from hibari import Hibari, dsp
from hibari.g2p.normalize import normalize
from hibari.g2p.token import Tok
from torch import Tensor

from inference.model.codec import HOP, LogMel
from inference.model.config import SAMPLE_RATE, SAMPLES_PER_FRAME

TEACHER_RATE = 24_000
TEACHER_HOP = 300
HOPS_PER_UNIT = 2
"""hibari's duration predictor counts in units of two hops, 25 ms."""
DURATIONS = "/Clip_output_0"
LOUD = 2e-3
LEAD, TAIL = 3072, 5120
"""Samples kept before the first and after the last loud one: at least one silent frame on either side."""
MAX_FRAMES = 240
PAUSE, SPACE, STRESS = 0, 16, (156, 157)
PHONEMES = 178


@dataclass(frozen=True)
class Utterance:
    """One text as spoken. `phonemes` and `bytes` have one value for every hop (512 samples) of the padded waveform."""

    text: str
    wave: Tensor | None  # (samples,) int16, a whole number of code frames
    mel: Tensor  # (160, hops) float16
    phonemes: Tensor  # (hops,) uint8
    bytes: Tensor  # (hops,) float32, position in the UTF-8 text


@dataclass(frozen=True)
class Sentence:
    """A sentence at the network's pace, 80 steps a second: `spectra` are the inputs of hibari's `dsp.synth`, the last of them the pitch."""

    spectra: list[np.ndarray]
    phonemes: np.ndarray
    characters: np.ndarray  # position in the text


def unaligned(text: str, mel: Tensor) -> Utterance:
    """What somebody said, by its log-mel (160, hops). Which byte and phoneme a moment belongs to is not known: all are 0."""
    return Utterance(text, None, mel, torch.zeros(mel.shape[1], dtype=torch.uint8), torch.zeros(mel.shape[1]))


class Teacher:
    """hibari's voice `heart`, with phoneme durations. The network with this extra output is stored in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._tts = Hibari(threads=1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._net = onnxruntime.InferenceSession(_with_durations(self._tts.model_path, folder), options, providers=["CPUExecutionProvider"])
        self._mel = LogMel(160)

    def speak(self, text: str, *, seed: int, keep_wave: bool = True) -> Utterance | None:
        """Speak a text. Returns None when there is nothing to say or the utterance is longer than MAX_FRAMES."""
        sentences = self.sentences(text)
        return self.utterance(text, sentences, sound_of(sentences, seed), keep_wave) if sentences else None

    def utterance(self, text: str, sentences: Sequence[Sentence], sound: np.ndarray, keep_wave: bool) -> Utterance | None:
        """The sentences of a text, and their sound at 24 kHz, as training data. None for silence, or more than MAX_FRAMES."""
        found = trimmed(sound)
        if found is None:
            return None
        pcm, start = found
        phonemes, characters = (np.concatenate([getattr(s, name) for s in sentences]) for name in ("phonemes", "characters"))
        middles = (start + np.arange(len(pcm) // HOP) * HOP + HOP // 2) / SAMPLE_RATE  # seconds
        steps = np.minimum((middles * TEACHER_RATE / TEACHER_HOP).astype(int), len(phonemes) - 1)
        byte_of = np.cumsum([0, *(len(c.encode()) for c in text)])
        positions = np.interp(characters[steps], np.arange(len(byte_of)), byte_of)
        kept = torch.from_numpy(pcm)
        return Utterance(
            text,
            kept if keep_wave else None,
            self._mel(kept.float()[None] / 32768)[0].half(),
            settle(torch.from_numpy(phonemes[steps].astype(np.uint8))),
            torch.from_numpy(positions.astype(np.float32)),
        )

    def sentences(self, text: str) -> list[Sentence]:
        """What the network says of each sentence; nothing when one of them is empty or too long for it."""
        found: list[Sentence] = []
        start = 0
        for sentence in self._tts.split_sentences(text):
            at = text.index(sentence, start)
            start = at + len(sentence)
            ids, where = self._phonemes(sentence)
            if not 3 <= len(ids) <= 400:
                return []
            names = ["lh", "theta", "ln", "lr", "phi", "f0", DURATIONS]
            *spectra, units = self._net.run(names, {"ids": np.asarray([ids], np.int64), "speed": np.ones(1, np.float32)})
            steps = HOPS_PER_UNIT * units.reshape(-1).astype(int)
            found.append(Sentence([s[0] for s in spectra], np.repeat(ids, steps), np.repeat(np.asarray(where) + at, steps)))
        return found

    def _phonemes(self, sentence: str) -> tuple[list[int], list[float]]:
        """Phoneme ids of a sentence, and the character each stands at, spread evenly over its word."""
        plain = normalize(sentence)
        original = _positions(plain, sentence)
        vocabulary = self._tts.vocab
        ids, where, cursor = [PAUSE], [0.0], 0
        for token in self._tts.g2p.phonemize_tokens(self._tts.g2p.tokenize(plain)):
            begin, end = _span(plain, token, cursor)
            sounds = token.phonemes or ""
            for n, sound in enumerate(sounds):
                if sound in vocabulary:
                    ids.append(vocabulary[sound])
                    where.append(
                        float(np.interp(begin + (n + 0.5) / len(sounds) * (end - begin) - 0.5, np.arange(len(original)), original))
                    )
            if token.whitespace:
                ids.append(SPACE)
                where.append(float(original[min(end, len(plain))]))
            cursor = end + len(token.whitespace)
        while ids[-1] == SPACE:
            ids.pop()
            where.pop()
        return [*ids, PAUSE], [*where, float(len(sentence))]


def spoken(teacher: Teacher, texts: Sequence[str], *, seed: int, keep_wave: bool) -> Iterator[Utterance]:
    """Every text the teacher can speak within MAX_FRAMES."""
    for text in texts:
        if (utterance := teacher.speak(text, seed=seed, keep_wave=keep_wave)) is not None:
            yield utterance


def sound_of(sentences: Sequence[Sentence], seed: int) -> np.ndarray:
    """The sentences one after the other, samples at 24 kHz."""
    rng = np.random.default_rng(seed)
    return np.concatenate([dsp.synth(*(s.copy() for s in sentence.spectra), rng) for sentence in sentences])  # it writes into its inputs


def trimmed(sound: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Sound at 24 kHz -> int16 at 44.1 kHz in whole code frames, and where it begins there. None for silence, or more than MAX_FRAMES."""
    wave = soxr.resample(sound, TEACHER_RATE, SAMPLE_RATE, quality="HQ")
    loud = np.flatnonzero(np.abs(wave) > LOUD)
    if not len(loud):
        return None
    start, end = max(0, loud[0] - LEAD), min(len(wave), loud[-1] + TAIL)
    pcm = int16(wave[start:end])
    pcm = np.pad(pcm, (0, -len(pcm) % SAMPLES_PER_FRAME))
    return (pcm, int(start)) if len(pcm) <= MAX_FRAMES * SAMPLES_PER_FRAME else None


def int16(wave: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] as they are stored."""
    return np.clip(np.round(wave * 32767), -32768, 32767).astype(np.int16)


def settle(phonemes: Tensor) -> Tensor:
    """Replace stress marks by the vowel they mark, and punctuation by a pause."""
    marks = (phonemes == STRESS[0]) | (phonemes == STRESS[1])
    places = torch.arange(len(phonemes))
    following = torch.where(marks, len(phonemes) - 1, places).flip(0).cummin(0).values.flip(0)
    settled = phonemes[following]
    return torch.where((settled < SPACE) | (settled == STRESS[0]) | (settled == STRESS[1]), PAUSE, settled).to(torch.uint8)


def _with_durations(model: str, folder: Path) -> str:
    """hibari's network with its phoneme durations as one more output."""
    target = folder / "teacher.onnx"
    if not target.exists():
        net = onnx.load(model)
        net.graph.output.append(onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None))
        scratch = target.with_suffix(f".{os.getpid()}")
        onnx.save(net, scratch)
        scratch.replace(target)
    return str(target)


def _positions(plain: str, sentence: str) -> np.ndarray:
    """For each character of the normalised text (and its end), its position in the original sentence."""
    positions = np.arange(len(plain) + 1, dtype=np.float64)
    if plain == sentence:
        return positions
    for kind, a, b, c, d in difflib.SequenceMatcher(None, plain, sentence, autojunk=False).get_opcodes():
        steps = np.arange(b - a) + (0.0 if kind == "equal" else 0.5)
        positions[a:b] = c + steps / max(b - a, 1) * (d - c)
    positions[len(plain)] = len(sentence)
    return positions


def _span(plain: str, token: Tok, cursor: int) -> tuple[int, int]:
    begin = plain.find(token.text, cursor)
    begin = cursor if begin < 0 else begin
    return begin, begin + len(token.text)
