"""How exact the times of words are at other speeds and in texts as people write them, and what they cost.

Each word as sent is compared with the teacher's durations of what is said for it, carried over by aligning the sound of both, and with
what an independent aligner says of the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference import SpeechEngine, SpeechRequest
from inference.audio.encode import Encoder
from inference.engine.times import HOP
from inference.model.codec import LogMel
from inference.model.config import SAMPLE_RATE
from inference.text.words import SpokenLine
from training.aligner import Aligner
from training.speech import PAUSE, Teacher, Utterance

SPEEDS = (0.7, 1.5)
TEXTS = {
    "numbers": (
        "The museum shows 1,250 paintings in 48 rooms.",
        "We counted 317 birds in 26 minutes.",
        "About 75% of the 2,000 seats were taken.",
        "The river is 9.5 km long and 40 m wide.",
        "In 1969 they walked there for the 1st time.",
        "Chapter 12 begins on page 208, not on page 280.",
        "She ran 42 km at the age of 63.",
        "Call room 305 before 18:30 on 4 May 2024.",
    ),
    "money": (
        "The ticket costs $3.50 and the map costs $2.",
        "They paid €1,200 for a table that is worth £90.",
        "It was $5 before, and now it is $7.25 each.",
        "A coffee for $4.80 is more than I wanted to spend.",
        "The bank lost $3 million in one afternoon.",
        "He owes me £20, and I owe her £15.",
        "Bread is $2.10, butter is $3.95, and tea is free.",
        "The fine of €60 was paid at once.",
    ),
    "abbreviations": (
        "Dr. Smith and Mr. Jones met on Main St. at noon.",
        "The meeting with NASA begins at 9 a.m. on Monday.",
        "Mrs. Brown vs. the city was heard in Jan. last year.",
        "The USB port of the TV does not fit, i.e. it is broken.",
        "Prof. Lee works for the BBC, the WHO and the EU.",
        "He lives on 5th Ave. near St. Mark's church.",
        "Bring cups, plates, etc. to the picnic at 3 p.m. today.",
        "The CEO of the firm spoke to the FBI about it.",
    ),
    "pauses": (
        "First we wait. [pause:1s] Then we go on to the market.",
        "Take a breath [pause:0.5s] and open the window.",
        'Ready? <break time="700ms"/> Let us begin with the song.',
        "One moment. [pause:2s] Here is your ticket. [pause:0.3s] Good night.",
        "The answer is [pause:0.8s] not what you expected.",
        "Look left, [pause:400ms] look right, [pause:400ms] and cross the street.",
        "It rained all day. [pause:1.5s] The next day it snowed.",
        "Slowly [pause:0.3s] very slowly [pause:0.3s] the door opened.",
    ),
    "Markdown": (
        "The **red** car is *faster* than the [blue one](https://example.com/cars).",
        "# A short story\n\nThe old man sat by the `window` and waited.",
        "- Bring **warm** clothes\n- Bring some *food*\n- Come early",
        "She said _nothing_ for a **very long** time.",
        "> The sea was calm that night.\n\nHe wrote it in [his book](notes.md).",
        "1. Open the box\n2. Take out the **small** key\n3. Close it again",
        "This is ~~wrong~~ right, and **that** is *also* right.",
        "## The garden\n\nRoses grow *beside* the __old__ wall.",
    ),
}  # fmt: skip
TAUGHT_DELAY_SECONDS = 0.084
"""The teacher's durations are late: its sound comes so much earlier, by the aligner's median on its own speech."""
COST_ROUNDS = 12
"""An even number: then neither kind goes first more often."""
BANDS = 96
"""Mel bands that are compared: the teacher has no sound above 12 kHz."""


def taught_starts(line: SpokenLine, taught: Utterance) -> np.ndarray:
    """When each word of a line begins in the teacher's speech by its own durations, in seconds; nan where they do not say.

    TAUGHT_DELAY_SECONDS are taken off.
    """
    silent, places = taught.phonemes.numpy() == PAUSE, taught.bytes.numpy()
    starts = []
    for word in line.words:
        reached = np.flatnonzero((places > len(line.text[: word.begin].encode()) - 0.5) & ~silent)
        starts.append(reached[0] * HOP / SAMPLE_RATE - TAUGHT_DELAY_SECONDS if len(reached) else np.nan)
    return np.array(starts)


def carried_over(seconds: np.ndarray, taught: Tensor, heard: Tensor) -> np.ndarray:
    """Times in the speech whose log-mel is `taught` (bands, hops), as times in that of `heard`, which says the same in other time."""
    rows, columns = _warped(taught[:BANDS].numpy().astype(np.float64), heard[:BANDS].numpy().astype(np.float64))
    hops = np.arange(taught.shape[1])
    places = np.bincount(rows, columns, len(hops)) / np.bincount(rows, minlength=len(hops))
    return np.interp(seconds * SAMPLE_RATE / HOP, hops, places) * HOP / SAMPLE_RATE


def _warped(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The path of least distance through a (bands, n) and b (bands, m): the hops of each that belong together."""
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    costs = np.sqrt(np.maximum((a**2).sum(0)[:, None] + (b**2).sum(0) - 2 * a.T @ b, 0))
    n, m = costs.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        total[i + 1, j + 1] = costs[i, j] + np.minimum(total[i, j], np.minimum(total[i, j + 1], total[i + 1, j]))
    path = [(n, m)]
    while path[-1] != (1, 1):
        i, j = path[-1]
        path.append(min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda p: total[p]))
    rows, columns = np.array(path[::-1]).T - 1
    return rows, columns


class FileErrors(NamedTuple):
    """How much later than others say the words of a file begin, in seconds, but for the first word of each segment.

    Others are the teacher's durations, carried over, and the aligner, which is nan where it does not tell. `first` are the first words,
    against the aligner.
    """

    taught: list[float]
    aligned: list[float]
    first: list[float]


def errors_as_sent(
    engine: SpeechEngine, teacher: Teacher, aligner: Aligner, mel: LogMel, text: str, seed: int, speeds: Sequence[float] = (1.0,)
) -> list[FileErrors]:
    """The errors of each word of a text, in a file of each speed. A segment that the teacher does not speak is left out of `taught`."""
    defaults = engine.checkpoint.defaults
    request = SpeechRequest(text, seed=seed, words=True).resolved(defaults)
    lines, _ = request.script(defaults)
    spoken = request.spoken_words(lines, defaults)
    words, ends, at, samples = [], [], 0.0, []
    for chunk in engine.stream(request):
        at += chunk.seconds
        samples.append(chunk.samples)
        words += chunk.words
        if chunk.words and chunk.words[-1].ends_line:
            ends.append(at)
    found = []
    for speed in speeds:
        wave, position = at_speed(np.concatenate(samples), speed)
        own = iter(np.array([position(word.start) for word in words]))
        aligned = iter(aligner.starts(" ".join(line.text for line in spoken), _begins(spoken), wave))
        errors, begins = FileErrors([], [], []), 0.0
        for line, said, end in zip(lines, spoken, ends, strict=True):
            starts, heard = (np.array([next(times) for _ in said.words]) for times in (own, aligned))
            errors.aligned.extend((starts - heard)[1:])
            errors.first.extend((starts - heard)[:1])
            begins += line.silence
            if taught := teacher.speak(line.text, seed=seed, keep_wave=False):
                first, last = position(begins), position(end)
                sound = mel(torch.from_numpy(wave[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)])[None])[0]
                expected = first + carried_over(taught_starts(said, taught), taught.mel.float(), sound)
                errors.taught.extend((starts - expected)[1:])
            begins = end
        found.append(errors)
    return found


def at_speed(samples: np.ndarray, speed: float) -> tuple[np.ndarray, Callable[[float], float]]:
    """Samples (n,) as a file of that speed has them, and where in the file a second of them is."""
    encoder = Encoder("pcm", SAMPLE_RATE, speed)
    file = encoder.encode(samples) + encoder.finish()
    return np.frombuffer(file, "<i2").astype(np.float32) / 32768, encoder.position


def _begins(lines: Sequence[SpokenLine]) -> list[int]:
    """With which character each word begins, of all lines with a space between them."""
    offsets = accumulate((len(line.text) + 1 for line in lines), initial=0)
    return [offset + word.begin for offset, line in zip(offsets, lines, strict=False) for word in line.words]


def costs(engine: SpeechEngine, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Speed and first audio with and without times, for one stream and for as many as there are texts, in turns: medians of the rounds."""
    found = []
    for streams in (1, len(texts)):
        for words in (False, True):
            _speak_all(engine, texts, streams, words)  # so that nothing is done for the first time below
        taken: dict[bool, list[tuple[float, float, list[float]]]] = {False: [], True: []}
        for number in range(2 * COST_ROUNDS):
            words = bool(number % 2) == bool(number // 2 % 2)
            taken[words].append(_speak_all(engine, texts, streams, words))
        for words, rounds in taken.items():
            wall, speech = median(r[0] for r in rounds), rounds[0][1]
            first = median(f for r in rounds for f in r[2])
            found.append(
                {
                    "streams": streams, "words": words, "speech_seconds": round(speech, 2), "seconds": round(wall, 3),
                    "speech_seconds_a_second": round(speech / wall, 2), "first_audio_ms": round(1000 * first, 1),
                }
            )  # fmt: skip
    return found


def _speak_all(engine: SpeechEngine, texts: Sequence[str], streams: int, words: bool) -> tuple[float, float, list[float]]:
    """Seconds that it took, seconds of speech, and the seconds to each text's first audio."""
    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        spoken = list(pool.map(partial(_speak, engine, words), texts))
    return time.perf_counter() - began, sum(seconds for seconds, _ in spoken), [first for _, first in spoken]


def _speak(engine: SpeechEngine, words: bool, text: str) -> tuple[float, float]:
    began, first, seconds = time.perf_counter(), 0.0, 0.0
    for chunk in engine.stream(SpeechRequest(text, seed=1, normalize=False, words=words)):
        first, seconds = first or time.perf_counter() - began, seconds + chunk.seconds
    return seconds, first
