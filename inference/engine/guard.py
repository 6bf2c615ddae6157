"""Judges a take: what the model made of one segment's text. Knows frames, samples and the text's progress; no jobs, slots or queues.

Every detector looks at each frame a fixed number of times, so a take of any length costs the same a frame.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import regex

from inference.engine.times import HOP, letter_weights
from inference.model.alignment import gain_of_going_back, monotonic_path
from inference.model.config import FRAMES_PER_SECOND, SAMPLE_RATE, SAMPLES_PER_FRAME

LEAST_SHARE, MOST_SHARE = 0.4, 2.5
"""A take that has less or more frames than these shares of what its text needs is too short or too long."""
SPARE_FRAMES = 10
"""Frames that a take may have beyond its share: a very short text may be drawled."""
FIRST_PACE = 1.4
"""Frames that a unit of text takes until a voice was heard: 15 letters and beginnings of words a second."""
SILENT_UNITS = 4.0
"""What the silence at both ends adds to a text, in units."""
FIRST_UNITS, MOST_UNITS = 60.0, 3000.0
"""How much the first guess of a pace weighs, and of how much text a voice's pace is the mean."""
MAX_VOICES = 1024
LONGEST_BLOCK = 64
"""Frames in the longest block whose repetitions are noticed: 3 s."""
REPETITIONS, LEAST_REPEATED = 3, 32
"""A block has to come so many times more, and its repetitions have to take so many frames together."""
SILENCE_SECONDS = 2.0
_SILENT, _NO_SOUND = 1e-4, 1e-6
"""Energy of a silent hop as a part of the loudest so far (-40 dB), and that of a take without any sound (-60 dB of full scale)."""
LEAST_SOUND_SECONDS = 0.1
_FULL_SCALE, CLIPPED_SHARE = 0.999, 0.01
"""Samples as large as this are clipped; a take may have this share of them."""
MIN_SKIPPED_LETTERS = 6
"""Letters that no frame speaks."""
MIN_BACK_LETTERS, MIN_BACK_GAIN, _LEAST_SHARE_BACK = 4, 4.0, 1e-2
"""How far back in the text the model has to look for words to be said twice, and how much better (as the logarithm of a likelihood) that
has to explain its attention than a path that never goes back. Takes of minnow without a fault gain up to 1.2 (docs/guard.md).
"""
SHORTEST_COPY, MIN_COPIED_FRAMES = 5, 3.0
"""Frames in the shortest block that is a word said twice, and how many of the next block's have to be the same. Those without a fault: 1.6."""
_LEAST_SHARE = 1e-4
_SAID_TWICE = regex.compile(
    r"\b(\w.{1,80}?)\W+\1\b|([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]{2,80}?)\W*\2", regex.I
)
"""Words that a text itself has twice, as in "very, very good", also where no spaces part them."""
_LONG_WHEN_READ = regex.compile(r"[\d\p{Sc}%&@#+=]|(?<=\p{Lu})\p{Lu}|\p{Lu}(?=\p{Lu})")
_UNITS_WHEN_READ = 5.0
"""Units by which a digit, a sign or a letter of an acronym may take longer than a letter: it can be a word of its own."""


class Fault(StrEnum):
    """What is wrong with a take."""

    NO_END = "no_end"
    """The model did not end it: the limit of frames did."""
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    LOOP = "loop"
    """The same block of frames came again and again."""
    SILENCE = "silence"
    EMPTY = "empty"
    CLIPPED = "clipped"
    SKIPPED = "skipped"
    """Words of the text were left out."""
    REPEATED = "repeated"
    """Words were said twice."""


@dataclass(frozen=True)
class Finding:
    """A fault, how many frames before it are good (None: it is everywhere), and how many seconds are wrong or missing."""

    fault: Fault
    good_frames: int | None
    seconds: float


class Loops:
    """Finds a block of frames that repeats, by the first code of each frame: the others differ by chance when the sound is the same."""

    def __init__(self) -> None:
        self._lags = np.arange(1, LONGEST_BLOCK + 1)
        self._needed = np.maximum(REPETITIONS * self._lags, LEAST_REPEATED)
        self._last = np.full(LONGEST_BLOCK, -1)
        self._runs = np.zeros(LONGEST_BLOCK, np.int64)
        self._count = 0

    def add(self, code: int) -> Finding | None:
        """Take the next frame's first code. Returns a finding when a loop is complete, with the frames before its first repetition."""
        self._runs = np.where(self._last == code, self._runs + 1, 0)
        self._last[1:] = self._last[:-1]
        self._last[0] = code
        self._count += 1
        lag = int(np.argmax(self._runs >= self._needed))
        run = int(self._runs[lag])
        if run < self._needed[lag]:
            return None
        return Finding(Fault.LOOP, self._count - run, run / FRAMES_PER_SECOND)


class Sound:
    """Finds silence and clipping in sound that comes chunk by chunk."""

    def __init__(self) -> None:
        self.samples = 0
        self._clipped = self._loud_hops = self._hops = 0
        self._before, self._peak, self._last_loud = 0.0, 0.0, -1

    def add(self, samples: np.ndarray) -> Finding | None:
        """Take the next samples (n,), a whole number of frames. Returns a finding when a silence has lasted too long."""
        self.samples += len(samples)
        self._clipped += int((np.abs(samples) >= _FULL_SCALE).sum())
        energy = np.square(samples.reshape(-1, HOP)).mean(axis=1)
        both = np.minimum(energy, np.concatenate(([self._before], energy[:-1])))  # one loud hop alone is a click
        peaks = np.maximum.accumulate(np.maximum(both, self._peak))
        loud = both > np.maximum(_SILENT * peaks, _NO_SOUND)
        numbers = self._hops + np.arange(len(energy))
        last = np.maximum.accumulate(np.where(loud, numbers, self._last_loud))
        silent = numbers - last >= SILENCE_SECONDS * SAMPLE_RATE / HOP
        began = int(last[silent.argmax()]) + 1 if silent.any() else None
        self._before, self._peak, self._last_loud = float(energy[-1]), float(peaks[-1]), int(last[-1])
        self._hops, self._loud_hops = self._hops + len(energy), self._loud_hops + int(loud.sum())
        return None if began is None else Finding(Fault.SILENCE, began * HOP // SAMPLES_PER_FRAME, SILENCE_SECONDS)

    def ended(self) -> list[Finding]:
        """What is found when all of a take's sound is there."""
        found = []
        if self._loud_hops * HOP < LEAST_SOUND_SECONDS * SAMPLE_RATE:
            found.append(Finding(Fault.EMPTY, 0, self.samples / SAMPLE_RATE))
        if self._clipped > CLIPPED_SHARE * self.samples:
            found.append(Finding(Fault.CLIPPED, None, self._clipped / SAMPLE_RATE))
        return found


@dataclass(frozen=True)
class Need:
    """How many frames a text needs: about `usual`, at least `least`; with more than `most` something is wrong."""

    usual: float
    least: float
    most: float


class Paces:
    """How many frames each voice takes for a unit of text: the running mean over its good takes."""

    def __init__(self) -> None:
        self._heard: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def need(self, voice: bytes, text: str) -> Need:
        """The frames that a voice needs for a text. Digits, signs and capitals may be read as one letter or as a whole word."""
        frames, units = self._heard.get(voice, (FIRST_PACE * FIRST_UNITS, FIRST_UNITS))
        pace, least = frames / units, _units(text)
        most = least + _UNITS_WHEN_READ * len(_LONG_WHEN_READ.findall(text))
        return Need(pace * (least + most) / 2, LEAST_SHARE * pace * least, MOST_SHARE * pace * most + SPARE_FRAMES)

    def introduce(self, voice: bytes, text: str, frames: int) -> None:
        """Take the pace of a voice that was never heard from its reference: so many frames of a text."""
        if voice not in self._heard and frames:
            units = _units(text)
            frames_a_unit = min(max(frames / units, FIRST_PACE / 2), 2 * FIRST_PACE)
            self._keep(voice, frames_a_unit * FIRST_UNITS, FIRST_UNITS)

    def learn(self, voice: bytes, text: str, frames: int) -> None:
        """Take in a good take of a text. One with digits or acronyms says little of the pace and is left out."""
        if _LONG_WHEN_READ.search(text):
            return
        before, units = self._heard.pop(voice, (FIRST_PACE * FIRST_UNITS, FIRST_UNITS))
        share = min(1.0, MOST_UNITS / units)
        self._keep(voice, before * share + frames, units * share + _units(text))

    def _keep(self, voice: bytes, frames: float, units: float) -> None:
        self._heard[voice] = frames, units
        if len(self._heard) > MAX_VOICES:
            self._heard.popitem(last=False)


def _units(text: str) -> float:
    return float(letter_weights(text).sum()) + SILENT_UNITS


def of_length(frames: int, need: Need, ends: bool = True) -> list[Finding]:
    """What the number of frames of a take says; without `ends` its limit cut it off."""
    found = []
    if frames < need.least:
        found.append(Finding(Fault.TOO_SHORT, frames, (need.usual - frames) / FRAMES_PER_SECOND))
    if frames > need.most:
        found.append(Finding(Fault.TOO_LONG, None, (frames - need.usual) / FRAMES_PER_SECOND))
    elif not ends:
        found.append(Finding(Fault.NO_END, None, max(0.0, frames - need.usual) / FRAMES_PER_SECOND))
    return found


def of_words(text: str, pieces: Sequence[bytes], attention: np.ndarray) -> list[Finding]:
    """Which words of a whole take were left out or said twice, at the first place where the model's attention says so.

    `pieces` are the bytes of the text's tokens; `attention` (heads, frames, tokens or one more) is what `text_attention` gives for them.
    """
    shares = attention.astype(np.float64).mean(0)[:, : len(pieces)]
    shares /= np.maximum(shares.sum(-1, keepdims=True), _LEAST_SHARE)
    ends = np.cumsum([len(piece) for piece in pieces])
    letters = np.concatenate(([0], np.cumsum([c.isalnum() for c in text])))  # before each character
    characters = np.concatenate(([0], np.cumsum([len(c.encode()) for c in text])))  # the bytes before each
    before = letters[np.searchsorted(characters, np.concatenate(([0], ends)), side="right") - 1]  # letters before each token, and all
    path = monotonic_path(np.log(shares + _LEAST_SHARE))
    left_out = before[np.append(path[1:], len(pieces))] - before[path + 1]
    found = []
    if (left_out >= MIN_SKIPPED_LETTERS).any():
        place = int(np.argmax(left_out >= MIN_SKIPPED_LETTERS))
        found.append(Finding(Fault.SKIPPED, place + 1, float(left_out[place]) * FIRST_PACE / FRAMES_PER_SECOND))
    _pool_equal_words(shares, text, np.searchsorted(characters, ends - 1, side="right") - 1)
    if gain_of_going_back(np.log(shares + _LEAST_SHARE_BACK), before[:-1], MIN_BACK_LETTERS) >= MIN_BACK_GAIN:
        found.append(Finding(Fault.REPEATED, None, 0.0))  # where and for how long is too uncertain to cut there, or to choose the best
    return found


def _pool_equal_words(shares: np.ndarray, text: str, characters: np.ndarray) -> None:
    """Let each token have the shares (frames, tokens) of all tokens at the same place of an equal word: the model may look at either.

    `characters` are those with which the tokens end.
    """
    words = [(word.start(), word[0].casefold()) for word in regex.finditer(r"\w+", text)]
    places: dict[tuple[str, int], list[int]] = {}
    for token, number in enumerate(np.searchsorted([begin for begin, _ in words], characters, side="right") - 1):
        if number >= 0:
            begin, word = words[number]
            places.setdefault((word, int(characters[token]) - begin), []).append(token)
    for tokens in places.values():
        if len(tokens) > 1:
            shares[:, tokens] = shares[:, tokens].sum(1, keepdims=True)


def of_codes(text: str, codes: np.ndarray) -> list[Finding]:
    """Whether a block of the codes (codebooks, frames) of a take comes twice in immediate succession, with some differences or none.

    Codes that are those of the frame before, too, as in silence, say nothing.
    """
    frames, most, block = codes.shape[1], 0.0, 0
    new = (codes[:, 1:] != codes[:, :-1]).mean(0) if frames else np.zeros(0)
    for lag in range(SHORTEST_COPY, min(LONGEST_BLOCK, frames // 2) + 1):
        same = (codes[:, lag:] == codes[:, :-lag]).mean(0) * new[lag - 1 :]
        sums = np.concatenate(([0.0], same.cumsum()))
        copied = float((sums[lag:] - sums[:-lag]).max())
        if copied > most:
            most, block = copied, lag
    if most < MIN_COPIED_FRAMES or _SAID_TWICE.search(text):
        return []
    return [Finding(Fault.REPEATED, None, block / FRAMES_PER_SECOND)]


def score(found: Sequence[Finding]) -> float:
    """How bad a take is: the seconds that are wrong or missing, and one more for each fault."""
    return sum(1.0 + f.seconds for f in found)
