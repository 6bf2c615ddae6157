"""How long the teacher pauses within and between sentences, how much silence minnow's own segments begin and end with, and how far
the levels of neighbouring segments lie apart.

`python -m training.pauses` prints these figures; the pauses in minnow's `generation_config.json` follow from them.
"""

from __future__ import annotations

import argparse
import json
import re
from itertools import pairwise

import numpy as np
from hibari import Hibari

from inference import SpeechEngine, SpeechRequest
from inference.model.config import SAMPLE_RATE
from inference.text.normalize import normalize
from inference.text.sentences import sentences
from training.speech import LOUD, TEACHER_RATE
from training.text import PARAGRAPHS

SENTENCES = 40
WINDOW_SECONDS = 0.01
_CLAUSE_MARK = re.compile(r"[,;:](?=\s)")


def main() -> None:
    """Measure on the sentences of the first paragraphs of paragraphs.json."""
    argparse.ArgumentParser(prog="python -m training.pauses", description=__doc__).parse_args()
    prose = [p["text"] for p in json.loads(PARAGRAPHS.read_text(encoding="utf-8")) if p["kind"] != "list"]
    spoken = [s.strip() for text in prose for s in sentences(normalize(text))][:SENTENCES]
    teacher = Hibari(threads=1)
    waves = [teacher(s) for s in spoken]
    edges = [_edges(w, TEACHER_RATE) for w in waves]
    _report("teacher, between sentences", [a[1] + b[0] for a, b in pairwise(edges)])
    one_mark = [w for w, s in zip(waves, spoken, strict=True) if len(_CLAUSE_MARK.findall(s)) == 1]
    _report("teacher, at the mark of a clause", [_longest_inside(w, TEACHER_RATE) for w in one_mark])
    with SpeechEngine.load(device="cpu") as engine:
        own = [engine.synthesize(SpeechRequest(s, seed=i)).samples for i, s in enumerate(spoken)]
    edges = [_edges(w, SAMPLE_RATE) for w in own]
    _report("minnow, between two segments without a pause", [a[1] + b[0] for a, b in pairwise(edges)])
    for who, spoken_by in (("teacher", waves), ("minnow", own)):
        _report(f"{who}, level from one sentence to the next", [abs(a - b) for a, b in pairwise(_level(w) for w in spoken_by)], "dB")


def _report(what: str, values: list[float], unit: str = "s") -> None:
    low, middle, high = np.percentile(values, [10, 50, 90])
    print(f"{what}: median {middle:.2f} {unit}, from {low:.2f} to {high:.2f} (10th to 90th percentile of {len(values)})", flush=True)


def _level(wave: np.ndarray) -> float:
    """Level in decibels of the part that is not silent."""
    return float(10 * np.log10(np.mean(np.square(wave[np.abs(wave) > LOUD]))))


def _loud(wave: np.ndarray, rate: int) -> np.ndarray:
    """Which windows of 10 ms are louder than the silence threshold, which is relative to the loudest sample."""
    size = round(WINDOW_SECONDS * rate)
    windows = np.abs(wave[: len(wave) // size * size]).reshape(-1, size).max(1)
    return windows > max(LOUD, 0.02 * windows.max())


def _edges(wave: np.ndarray, rate: int) -> tuple[float, float]:
    """Seconds of silence at the beginning and at the end."""
    loud = np.flatnonzero(_loud(wave, rate))
    return loud[0] * WINDOW_SECONDS, len(wave) / rate - (loud[-1] + 1) * WINDOW_SECONDS


def _longest_inside(wave: np.ndarray, rate: int) -> float:
    """Seconds of the longest silence between the first and the last sound."""
    loud = np.flatnonzero(_loud(wave, rate))
    return float(np.diff(loud).max() - 1) * WINDOW_SECONDS


if __name__ == "__main__":
    main()
