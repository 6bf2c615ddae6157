"""What the guard against bad takes finds and costs: on takes of minnow that were made faulty on purpose, and on minnow as it speaks.

Faulty takes are given to the engine in place of those it draws (`bench.forced`), or drawn by a minnow with disturbed weights. What went
wrong, and how many words are wrong, is what the recogniser of `training.evaluate` hears.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jiwer
import numpy as np

from bench.forced import Forced
from bench.record import facts, recording
from inference import Audio, SpeechEngine, SpeechRequest
from inference.engine.request import GuardReport
from inference.engine.takes import MAX_TAKES
from inference.hub import EMBEDDED_VOICE
from inference.model.config import FRAMES_PER_SECOND, SAMPLES_PER_FRAME
from training.bad_takes import DAMAGES, copied, disturbed, doubled, nearly_copied
from training.evaluate import Ear, words
from training.recipe import TextRecipe
from training.text import corpus
from training.word_times import Reader

SAMPLING: dict[str, dict[str, Any]] = {
    "default": {}, "hot": {"temperature": 1.0}, "wild": {"temperature": 1.0, "top_p": 1.0},
}  # fmt: skip
DISTURBANCES = (0.4, 1.0), (0.0, 0.8), (0.0, 0.7), (0.0, 0.6)
"""Noise and sharpness of the attention of each disturbed minnow (`training.bad_takes.disturbed`)."""
FIRST_SEED = 50_000
"""The limits were chosen on seeds below this, and on other sentences."""
SILENT_FRAMES, FEW_SENTENCES = 65, 20
DOUBLED_WORDS = 1, 2, 3
MIN_WRONG_WORDS = 3
"""A take went wrong when the recogniser hears so many words too many or too few; other words may be its own mistakes."""


@dataclass(frozen=True)
class Bad:
    """One kind of bad take: the segments' texts, and for each the codes (codebooks, frames) of the bad take. Words said twice are not cut."""

    name: str
    texts: list[str]
    takes: list[np.ndarray]
    twice: bool


def speak(engine: SpeechEngine, text: str, seed: int, sampling: dict[str, Any], guard: bool) -> tuple[Audio, np.ndarray]:
    """A text's sound, and its codes."""
    request = SpeechRequest(text, seed=seed, **sampling, quality_guard=guard, guard_look_ahead=math.inf)
    with engine.stream(request) as stream:
        audio = Audio.joined(list(stream))
    assert stream.codes is not None
    return audio, stream.codes


def lines(engine: SpeechEngine, text: str) -> list[str]:
    """The segments of a text as the model gets them."""
    defaults = engine.checkpoint.defaults
    return [line.text for line in SpeechRequest(text).resolved(defaults).script(defaults)[0]]


def bad_takes(engine: SpeechEngine, texts: Sequence[str]) -> Iterator[Bad]:
    """Good takes damaged in each way, and takes of each text with words doubled."""
    reader = Reader(engine.checkpoint)
    noise = np.random.default_rng(0).normal(0, 1e-5, SILENT_FRAMES * SAMPLES_PER_FRAME).astype(np.float32)
    silence = engine.encode(noise)
    once = [line for text in texts for line in lines(engine, text) if lines(engine, line) == [line]]
    good = [speak(engine, line, FIRST_SEED + seed, {}, False)[1] for seed, line in enumerate(once)]
    for damage in DAMAGES:
        takes = []
        for seed, (line, codes) in enumerate(zip(once, good, strict=True)):
            bounds = reader.bounds(line, codes) * FRAMES_PER_SECOND
            starts = np.array([bounds[m] for m in range(len(line)) if m == 0 or line[m - 1] == " "])
            takes.append(damage(codes, starts, silence, np.random.default_rng(seed)))
        yield Bad(damage.__name__, once, takes, damage in (copied, nearly_copied))
    for count in DOUBLED_WORDS:
        for comma in (True, False):
            twice = [doubled(line, count, comma, random.Random(seed)) for seed, line in enumerate(once)]
            spoken = [(line, text) for line, text in zip(once, twice, strict=True) if text and lines(engine, text) == [text]]
            takes = [speak(engine, text, FIRST_SEED + seed, {}, False)[1] for seed, (_, text) in enumerate(spoken)]
            yield Bad(f"doubled_{count}{'_comma' * comma}", [line for line, _ in spoken], takes, twice=True)


def measure_damages(engine: SpeechEngine, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """For each kind of bad take: how many first takes were caught, how many requests still had a fault at the end, and what that cost.

    The first take is the bad one. With `every_take`, so is each further one. `heard_longer` are those in which the recogniser hears more
    words than the text has.
    """
    forced, ear = Forced(engine), Ear()
    for bad in bad_takes(engine, texts):
        heard = [ear.hear(engine.decode(codes).samples) for codes in bad.takes if bad.twice]
        longer = sum(len(h.split()) > len(words(text).split()) for h, text in zip(heard, bad.texts, strict=False))
        for stuck in (False,) if bad.twice else (False, True):
            caught, faults, report, seconds = 0, Counter[str](), GuardReport(), 0.0
            for seed, (text, codes) in enumerate(zip(bad.texts, bad.takes, strict=True)):
                forced.play([codes] * (MAX_TAKES if stuck else 1))
                audio, _ = speak(engine, text, FIRST_SEED + seed, {}, True)
                assert audio.guard is not None
                caught += audio.guard.retries > 0
                faults.update(audio.guard.faults)
                report, seconds = report + audio.guard, seconds + audio.seconds
            yield {
                "damage": bad.name, "every_take": stuck, "takes": len(bad.takes), "caught": caught, "heard_longer": longer if bad.twice else None,
                "unmended": report.unmended, "retries": report.retries, "rests": report.rests, "faults": dict(faults),
                "seconds": round(seconds, 2), "discarded_seconds": round(report.discarded_seconds, 2),
            }  # fmt: skip
    forced.play([])


def measure_speech(engine: SpeechEngine, texts: Sequence[str], sampling: dict[str, Any], first_seed: int) -> dict[str, Any]:
    """Each text without and with the guard: what went wrong, what was found, word errors and costs."""
    ear, asked = Ear(), [words(t) for t in texts]
    speak(engine, texts[0], 0, sampling, False)  # the first one compiles
    sound: dict[bool, list[Audio]] = {}
    taken: dict[bool, float] = {}
    for guard in (False, True):
        began = time.process_time()
        sound[guard] = [speak(engine, text, first_seed + seed, sampling, guard)[0] for seed, text in enumerate(texts)]
        taken[guard] = time.process_time() - began
    reports = [audio.guard for audio in sound[True] if audio.guard]
    heard = {False: [ear.hear(audio.samples) if audio.seconds else "" for audio in sound[False]]}
    heard[True] = [  # what was not flagged is the same sound
        ear.hear(audio.samples) if report.faults else heard[False][number]
        for number, (audio, report) in enumerate(zip(sound[True], reports, strict=True))
    ]
    total, flagged = sum(reports, GuardReport()), [bool(report.faults) for report in reports]
    wrong = {guard: [_wrong(a, h) for a, h in zip(asked, heard[guard], strict=True)] for guard in heard}
    return {
        "first_seed": first_seed, **sampling, "sentences": len(texts), "segments": total.segments,
        "wrong_without": sum(wrong[False]), "wrong_with": sum(wrong[True]), "flagged": sum(flagged),
        "wrong_and_flagged": sum(w and f for w, f in zip(wrong[False], flagged, strict=True)),
        "word_errors_without": round(jiwer.wer(asked, heard[False]), 4), "word_errors_with": round(jiwer.wer(asked, heard[True]), 4),
        "faults": dict(Counter(total.faults)), "first_faults": dict(Counter(r.faults[0] for r in reports if r.faults)),
        "retries": total.retries, "rests": total.rests, "unmended": total.unmended,
        "cpu_seconds_without": round(taken[False], 2), "cpu_seconds_with": round(taken[True], 2),
        "seconds_without": round(sum(a.seconds for a in sound[False]), 1), "seconds_with": round(sum(a.seconds for a in sound[True]), 1),
        "discarded_seconds": round(total.discarded_seconds, 2),
        "each": [
            {"sentence": n, "faults": reports[n].faults, "heard_without": heard[False][n], "heard_with": heard[True][n], "asked": asked[n]}
            for n in range(len(texts)) if wrong[False][n] or wrong[True][n] or flagged[n]
        ],
    }  # fmt: skip


def _wrong(asked: str, heard: str) -> bool:
    found = jiwer.process_words(asked, heard)
    return max(found.insertions, found.deletions) >= MIN_WRONG_WORDS


@contextmanager
def minnow(number: int | None) -> Iterator[SpeechEngine]:
    """minnow on the CPU; with a number, one that is disturbed by that of DISTURBANCES."""
    with TemporaryDirectory() as folder:
        path = None
        if number is not None:
            path = disturbed(EMBEDDED_VOICE, Path(folder) / "disturbed", *DISTURBANCES[number])
        with SpeechEngine.load(path, device="cpu", copies=Path(folder) / "copies") as engine:
            yield engine


def measure(takes: str, sets: int) -> Iterator[dict[str, Any]]:
    """The results of each kind of bad takes, of each set of seeds, or of each disturbed minnow."""
    texts = [t.text for t in corpus(TextRecipe()).test]
    if takes == "disturbed":
        for number, (noise, sharpness) in enumerate(DISTURBANCES):
            with minnow(number) as engine:
                yield {"noise": noise, "sharpness": sharpness} | measure_speech(engine, texts[:FEW_SENTENCES], {}, FIRST_SEED)
        return
    with minnow(None) as engine:
        if takes == "damaged":
            yield from measure_damages(engine, texts[:FEW_SENTENCES])
        else:
            for number in range(sets):
                yield measure_speech(engine, texts, SAMPLING[takes], FIRST_SEED + 1000 * number)


def main() -> None:
    """Measure the guard on bad takes, or on what minnow draws: by default, at temperature 1, also without top-p, or disturbed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("takes", choices=["damaged", "disturbed", *SAMPLING], help="which takes")
    parser.add_argument("--sets", type=int, default=1, help="sets of seeds for what minnow draws (default 1)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    with minnow(None) as engine:
        measured = facts(engine.checkpoint)
    with recording(chosen.out, "guard", {"takes": chosen.takes, "sets": chosen.sets}, measured) as record:
        for run in measure(chosen.takes, chosen.sets):
            record.runs.append(run)
            record.write()
            print({name: value for name, value in run.items() if name != "each"}, flush=True)


if __name__ == "__main__":
    main()
