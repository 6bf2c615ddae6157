"""When words begin in speech, by PocketSphinx: a forced aligner that does not know minnow.

It is given the text as spoken, so that it has nothing to recognise: only where each word begins, on a grid of 10 ms.
The hiss of words that begin with "s" is plain enough to tell without any model whether others are early or late by a constant.
README.md says how to install it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import soxr
from hibari import Hibari

from inference.model.config import SAMPLE_RATE

HEARING_RATE, GRID = 16_000, 100
"""Samples and places a second."""
PADDING_SECONDS = 0.5
"""Silence put before and behind the sound: without any the aligner lets the first word begin at once."""
HISS_SECONDS, HISS_WINDOW, HISS_HOP = 0.2, 512, 64
_SAID = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_ARPABET = {
    "A": "EY", "I": "AY", "O": "OW", "W": "AW", "Y": "OY", "ᵊ": "AH", "b": "B", "d": "D", "f": "F", "h": "HH", "i": "IY", "j": "Y",
    "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "s": "S", "t": "T", "u": "UW", "v": "V", "w": "W", "z": "Z", "ɑ": "AA", "æ": "AE",
    "ɔ": "AO", "ð": "DH", "ʤ": "JH", "ə": "AH", "ɛ": "EH", "ɜ": "ER", "ɡ": "G", "ɪ": "IH", "ŋ": "NG", "θ": "TH", "ɹ": "R", "ɾ": "D",
    "T": "D", "ʃ": "SH", "ʧ": "CH", "ʊ": "UH", "ʌ": "AH", "ʒ": "ZH", "ᵻ": "IH", "ɐ": "AH", "ʔ": "T",
}  # fmt: skip


class Aligner:
    """PocketSphinx with its US English model and dictionary. `unknown` are the words that were not in it: these are said as hibari reads them."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(lm=None, samprate=HEARING_RATE, frate=GRID, loglevel="FATAL")
        self._g2p = Hibari(threads=1).g2p
        self.unknown: set[str] = set()

    def starts(self, text: str, begins: Sequence[int], wave: np.ndarray) -> np.ndarray:
        """When the words of `text` that begin at the characters `begins` begin in `wave` (samples,) at 44.1 kHz, in seconds.

        All nan when the aligner finds no way through the sound.
        """
        said = [(m.start(), self._known(m[0].lower().replace("’", "'"))) for m in _SAID.finditer(text)]
        heard = np.pad(soxr.resample(wave.astype(np.float32), SAMPLE_RATE, HEARING_RATE), round(PADDING_SECONDS * HEARING_RATE))
        self._decoder.set_align_text(" ".join(word for _, word in said))
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(heard, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = [s.start_frame / GRID - PADDING_SECONDS for s in self._decoder.seg() or () if s.word[0] not in "<[("]
        if len(found) != len(said):
            return np.full(len(begins), np.nan)
        places = np.searchsorted([at for at, _ in said], begins)
        return np.array([found[n] if n < len(found) else np.nan for n in places])

    def _known(self, word: str) -> str:
        """The word, which is in the dictionary from now on."""
        if self._decoder.lookup_word(word) is None:
            self.unknown.add(word)
            sounds = "".join(token.phonemes or "" for token in self._g2p.phonemize_tokens(self._g2p.tokenize(word)))
            sounds = sounds.replace("ɜɹ", "ɜ").replace("əɹ", "ɜ")
            self._decoder.add_word(word, " ".join(_ARPABET[sound] for sound in sounds if sound in _ARPABET), True)
        return word


def hiss_starts(text: str, begins: Sequence[int], wave: np.ndarray, near: np.ndarray) -> np.ndarray:
    """When the hiss begins of those words that begin with an "s" sound, in seconds; nan for others. It is plain in the sound, to a few milliseconds.

    It is the longest stretch within HISS_SECONDS of `near`, the words' starts, in which more sound is above 4 kHz than below.
    """
    frames = np.lib.stride_tricks.sliding_window_view(wave, HISS_WINDOW)[::HISS_HOP] * np.hanning(HISS_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    border = round(4000 * HISS_WINDOW / SAMPLE_RATE)
    hisses = power[:, border:].sum(1) > power[:, :border].sum(1)
    found = np.full(len(begins), np.nan)
    for n, (begin, second) in enumerate(zip(begins, near, strict=True)):
        if not (np.isfinite(second) and re.match(r"s[^\Wh]", text[begin:], re.IGNORECASE)):
            continue
        first = max(0, round((second - HISS_SECONDS) * SAMPLE_RATE / HISS_HOP))
        edges = np.flatnonzero(np.diff([0, *hisses[first : round((second + HISS_SECONDS) * SAMPLE_RATE / HISS_HOP)], 0]))
        if len(edges):
            longest = np.argmax(edges[1::2] - edges[::2])
            found[n] = ((first + edges[::2][longest]) * HISS_HOP + HISS_WINDOW / 2) / SAMPLE_RATE
    return found
