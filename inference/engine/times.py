"""When the words of a segment are heard: exact at its ends, read from the model's attention between them.

Without heads that follow the text they are estimated there, from the text and the pauses in the sound.
What attention says is known during the segment, and does not change any more; an estimate is known at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import regex

from inference.model.alignment import TextPath, character_bounds
from inference.model.config import FRAMES_PER_SECOND, SAMPLE_RATE
from inference.text.words import Precision, SpokenLine, Word

HOP = 512
"""Samples whose energy is measured together: 11.6 ms, a quarter of a frame."""
MIN_PAUSE_SECONDS = 0.12
"""A shorter silence may be the closure of a "p", "t" or "k"."""
_SILENT = 1e-4
"""The part of the energy of loud speech below which a hop is silent: -40 dB."""
_BLOCK = 86
"""Hops, a second of sound, whose loudness is judged together by all sound up to their end."""
_WORD_WEIGHT, _UNSPACED_WEIGHT = 1.0, 3.0
"""What the beginning of a word adds to its letters, and the weight of a letter of a script that needs no spaces; other letters weigh 1."""
_NO_PUNCTUATION = 6.0
"""Letters by which a pause may rather be off than lie at a word's end without punctuation."""
_MAX_SHIFT, _MAX_SHIFT_SHARE = 12.0, 0.1
"""A pause that is farther from the nearest word's end, in letters and as a share of the letters there, is within a word."""
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


class SegmentTimes:
    """The times of one segment's words, which comes as sound chunk by chunk. `begins` is when it begins, in seconds of the whole audio."""

    def __init__(self, line: SpokenLine, begins: float) -> None:
        self._line, self._begins = line, begins
        self._energies: list[np.ndarray] = []
        self._pieces: Sequence[bytes] = ()
        self._path: TextPath | None = None
        self._bounds: np.ndarray | None = None
        self._given = 0
        self._levels: list[float] = []
        self._is_news = False
        self.columns: tuple[range, list[bytes]] | None = None
        """Where the text is in the segment's columns, and its tokens, once somebody has looked."""
        self.read_frames = 0
        """Frames whose attention was read."""
        self.delay = 0.0
        """Seconds by which the model's attention follows the sound."""

    def read(self, pieces: Sequence[bytes], attention: np.ndarray) -> None:
        """Take the attention of the next frames, (heads, frames, tokens + 1), to the text's tokens `pieces` and the column behind them."""
        self._pieces, self._path = pieces, self._path or TextPath(len(pieces) + 1)
        self._path.add(attention)
        self.read_frames += attention.shape[1]
        self._update(ended=False)

    def end(self) -> None:
        """The attention of all frames was read."""
        self._update(ended=True)

    def _update(self, *, ended: bool) -> None:
        if self._path:
            self._is_news = True
            bounds = character_bounds(self._line.text, self._pieces, self._path.starts(ended=ended)) / FRAMES_PER_SECOND
            self._bounds = earlier(bounds, len(self._line.text), self.delay)

    def cut(self, characters: int) -> None:
        """Only so many characters of the text are said, so only their words are given."""
        words = tuple(word for word in self._line.words if word.end <= characters)
        self._line = SpokenLine(self._line.text[:characters], words)
        if self._bounds is not None:
            self._bounds = self._bounds[: characters + 1]

    def heard(self, samples: np.ndarray, ended: bool) -> tuple[Word, ...]:
        """Take the next samples (n,) of the segment. Returns the words whose times are now known, each once, in order; the last at the end."""
        self._energies.append(_energy(samples))
        if not (ended or self._is_news):
            return ()
        self._is_news = False
        times = character_times(self._line.text, np.concatenate(self._energies), ended, self._bounds, self._levels)
        precision: Precision = "segment" if self._bounds is None else "word"
        words = []
        for number, word in enumerate(self._line.words[self._given :], self._given + 1):
            last = number == len(self._line.words)
            if word.end > len(times) or (last and not ended):
                break
            start, end = (float(self._begins + t) for t in (times[word.begin, 0], times[word.end - 1, 1]))
            words.append(Word(word.text, word.start_char, word.end_char, start, end, word.spoken, precision, last))
        self._given += len(words)
        return tuple(words)


def earlier(bounds: np.ndarray, characters: int, delay: float) -> np.ndarray:
    """Bounds of so many characters, in seconds, `delay` earlier: all but the end of the text, which the end of the sound tells."""
    moved = np.maximum(bounds - delay, 0.0)
    moved[characters:] = bounds[characters:]
    return moved


def character_times(
    text: str, energy: np.ndarray, ended: bool, bounds: np.ndarray | None = None, levels: list[float] | None = None
) -> np.ndarray:  # fmt: skip
    """When each character is heard, (characters, 2) float64: start and end in seconds from the segment's beginning, never falling.

    `energy` (hops,) is the mean square of each HOP samples so far. The result covers the characters whose times will not change any more.
    `bounds` are those that attention gives so far, in seconds; they are kept out of pauses. Without them nothing is known until the segment
    has `ended`; then, between the first sound and the last one, the time that is not silent is shared by the weight of the
    letters; longer pauses are put between words, after punctuation where there is some nearby. `levels` keeps what was computed of the
    sound so far; give the same list with more sound.
    """
    if bounds is not None:
        return _outside_pauses(bounds, _loud_by_blocks(energy, ended, [] if levels is None else levels), ended)
    if not ended:
        return np.zeros((0, 2))
    if not len(energy):
        return np.zeros((len(text), 2))
    loud = _loud(energy)
    hops = np.flatnonzero(loud) if loud.any() else np.arange(len(energy))
    weights = np.concatenate(([0.0], np.cumsum(letter_weights(text))))
    if not weights[-1]:
        weights = np.linspace(0, 1, len(text) + 1)
    ends = [(weights[m.start()], not text[m.start() - 1].isalnum()) for m in regex.finditer(r"(?<=\S)\s", text)]
    pauses = [(n + 1, after - before - 1) for n, (before, after) in enumerate(pairwise(hops.tolist())) if after - before > 1]
    long = [p for p in pauses if p[1] * HOP >= MIN_PAUSE_SECONDS * SAMPLE_RATE]
    knots = [(0.0, 0.0), *_knots(long, ends, (0.0, 0.0), (weights[-1], len(hops))), (weights[-1], float(len(hops)))]
    heard = np.interp(weights, [read for read, _ in knots], [hop for _, hop in knots])  # hops of sound before each character
    starts, stops = np.floor(heard[:-1] + 1e-6), np.ceil(heard[1:] - 1e-6) - 1
    start = hops[np.minimum(starts, len(hops) - 1).astype(int)] + np.maximum(heard[:-1] - starts, 0)
    end = hops[np.maximum(stops, 0).astype(int)] + np.minimum(heard[1:] - stops, 1)
    times = np.stack((start, np.maximum(start, end)), axis=1) * HOP / SAMPLE_RATE
    return np.minimum(np.maximum.accumulate(times.reshape(-1)), len(energy) * HOP / SAMPLE_RATE).reshape(-1, 2)


def _loud(energy: np.ndarray) -> np.ndarray:
    """Which hops sound."""
    return _without_clicks(energy > _SILENT * np.quantile(energy, 0.95))


def _loud_by_blocks(energy: np.ndarray, ended: bool, levels: list[float]) -> np.ndarray:
    """As `_loud`, of as many hops as are judged: those of whole blocks, and at the end the rest. More sound changes nothing of it.

    `levels` are those below which the blocks so far are silent; those of further blocks are added.
    """
    while (end := _BLOCK * (len(levels) + 1)) <= len(energy):
        levels.append(_SILENT * float(np.quantile(energy[:end], 0.95)))
    judged = len(energy) if ended else _BLOCK * len(levels)
    rest = [_SILENT * float(np.quantile(energy, 0.95))] if judged > _BLOCK * len(levels) else []
    loud = _without_clicks(energy[:judged] > np.repeat([*levels, *rest], _BLOCK)[:judged])
    return loud if ended else loud[:-1]


def _without_clicks(loud: np.ndarray) -> np.ndarray:
    """One hop alone is a click, such as a vocoder's first sample."""
    return loud & (np.append(loud[1:], False) | np.append(False, loud[:-1]))


def _outside_pauses(bounds: np.ndarray, loud: np.ndarray, ended: bool) -> np.ndarray:
    """Starts and ends of characters, (characters, 2) in seconds: none begins in a pause, none lasts into one.

    Pauses are the silence at both ends of the segment, and each long one within it. Before the segment has `ended`, the result is that of
    the characters that end before the last sound: the silence behind it may become a pause.
    """
    if not ended:
        loud = loud[: np.flatnonzero(loud)[-1] + 1] if loud.any() else loud[:0]
        bounds = bounds[bounds * SAMPLE_RATE / HOP < len(loud)]
    if len(bounds) < 2 or not len(loud):
        return np.zeros((max(0, len(bounds) - 1), 2))
    loud = loud if loud.any() else ~loud
    edges = np.flatnonzero(np.diff(np.concatenate(([0], ~loud, [0]))))
    pause = np.zeros(len(loud) + 1, bool)
    for begin, end in edges.reshape(-1, 2):
        if begin == 0 or end == len(loud) or (end - begin) * HOP >= MIN_PAUSE_SECONDS * SAMPLE_RATE:
            pause[begin:end] = True
    hops = np.arange(len(pause))
    sounds_next = np.minimum.accumulate(np.where(pause, len(loud), hops)[::-1])[::-1]
    pauses_next = np.minimum.accumulate(np.where(pause, hops, len(loud))[::-1])[::-1]
    places = np.clip(bounds * SAMPLE_RATE / HOP, 0, len(loud))
    starts = np.maximum(places[:-1], sounds_next[places[:-1].astype(int)])
    ends = np.minimum(places[1:], pauses_next[starts.astype(int)])
    times = np.maximum.accumulate(np.stack((starts, ends), axis=1).reshape(-1))
    return (times * HOP / SAMPLE_RATE).reshape(-1, 2)


def _knots(
    pauses: list[tuple[int, int]], ends: list[tuple[float, bool]], first: tuple[float, float], last: tuple[float, float]
) -> list[tuple[float, float]]:
    """The pauses between `first` and `last` that separate words: how much of the text, and how much of the sound, is before each."""
    inside = [p for p in pauses if first[1] < p[0] < last[1]]
    places = [e for e in ends if first[0] < e[0] < last[0]]
    if not inside or not places:
        return []
    heard, _ = longest = max(inside, key=lambda p: p[1])
    expected = float(np.interp(heard, (first[1], last[1]), (first[0], last[0])))
    place, punctuated = min(places, key=lambda e: abs(e[0] - expected) + (0 if e[1] else _NO_PUNCTUATION))
    if abs(place - expected) + (0 if punctuated else _NO_PUNCTUATION) > _MAX_SHIFT + _MAX_SHIFT_SHARE * (last[0] - first[0]):
        return _knots([p for p in inside if p != longest], places, first, last)
    knot = (place, float(heard))
    return [*_knots(inside, places, first, knot), knot, *_knots(inside, places, knot, last)]


def is_unspaced(character: str) -> bool:
    """Whether a character's script has no spaces between words."""
    return _UNSPACED.match(character) is not None


def letter_weights(text: str) -> np.ndarray:
    """How much longer than a letter each character takes, (characters,)."""
    found = np.array([float(c.isalnum()) for c in text])
    for m in regex.finditer(r"(?:(?<=\s)|\A)[^\W_]", text):
        found[m.start()] += _WORD_WEIGHT
    for m in _UNSPACED.finditer(text):
        found[m.start()] = _UNSPACED_WEIGHT
    return found


def _energy(samples: np.ndarray) -> np.ndarray:
    """The mean square of each HOP samples, (hops,) float32; a segment's sound is a whole number of them."""
    return np.square(samples[: len(samples) // HOP * HOP].reshape(-1, HOP)).mean(axis=1)
