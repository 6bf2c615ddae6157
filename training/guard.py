"""What the guard against bad takes finds and costs: on takes of minnow that were made faulty on purpose, and on minnow as it speaks.

Faulty takes are good ones whose frames were changed (`bench.forced`). Word errors are those that the recogniser of `training.evaluate` hears.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from bench.forced import Forced
from bench.record import facts, recording
from inference import Audio, SpeechEngine, SpeechRequest
from inference.engine.request import GuardReport
from inference.engine.takes import MAX_TAKES
from inference.model.config import FRAMES_PER_SECOND, SAMPLES_PER_FRAME
from training.evaluate import Ear, words
from training.recipe import TextRecipe
from training.text import corpus
from training.word_times import Reader

SAMPLING: dict[str, dict[str, Any]] = {"default": {}, "hot": {"temperature": 1.0}, "wild": {"temperature": 1.0, "top_p": 1.0}}
FIRST_SEED = 50_000
"""The limits were chosen on seeds below this."""
SILENT_FRAMES, DAMAGED_SENTENCES = 65, 20
Damage = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""Makes a faulty take from the codes (codebooks, frames) of a good one, the frames where its words begin, and codes of silence."""


def looped(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The word in the middle comes again and again."""
    del silence, random
    middle = len(starts) // 2
    begin, end = int(starts[middle - 1]), int(starts[middle])
    return np.concatenate((codes[:, :end], np.tile(codes[:, begin:end], 60)), axis=1)


def ended_early(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A quarter of it is there."""
    del starts, silence, random
    return codes[:, : codes.shape[1] // 4]


def endless(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """After the text, frames of it in any order."""
    del starts, silence
    return np.concatenate((codes, codes[:, random.integers(0, codes.shape[1], 1024)]), axis=1)


def silenced(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Three seconds of silence in the middle."""
    del random
    middle = int(starts[len(starts) // 2])
    return np.concatenate((codes[:, :middle], silence, codes[:, middle:]), axis=1)


def skipped(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two words in the middle are left out."""
    del silence, random
    middle = len(starts) // 2
    return np.concatenate((codes[:, : int(starts[middle - 1])], codes[:, int(starts[middle + 1]) :]), axis=1)


def repeated(codes: np.ndarray, starts: np.ndarray, silence: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Two words in the middle are said twice."""
    del silence, random
    middle = len(starts) // 2
    return np.concatenate((codes[:, : int(starts[middle + 1])], codes[:, int(starts[middle - 1]) :]), axis=1)


DAMAGES: tuple[Damage, ...] = (looped, ended_early, endless, silenced, skipped, repeated)


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


def measure_damages(engine: SpeechEngine, texts: Sequence[str]) -> list[dict[str, Any]]:
    """For each kind of damage: how many first takes were caught, how many requests still had a fault at the end, and what that cost.

    The first take is the damaged one. With `stuck`, so is each further take.
    """
    forced, reader = Forced(engine), Reader(engine.checkpoint)
    results: list[dict[str, Any]] = []
    noise = np.random.default_rng(0).normal(0, 1e-5, SILENT_FRAMES * SAMPLES_PER_FRAME).astype(np.float32)
    silence = engine.encode(noise)
    clean = [
        (text, speak(engine, text, FIRST_SEED + seed, {}, False)[1]) for seed, text in enumerate(texts) if len(lines(engine, text)) == 1
    ]
    for damage in DAMAGES:
        for stuck in (False, True):
            caught, faults, report, seconds = 0, Counter[str](), GuardReport(), 0.0
            for seed, (text, codes) in enumerate(clean):
                (line,) = lines(engine, text)
                bounds = reader.bounds(line, codes) * FRAMES_PER_SECOND
                starts = np.array([bounds[m] for m in range(len(line)) if m == 0 or line[m - 1] == " "])
                damaged = damage(codes, starts, silence, np.random.default_rng(seed))
                forced.play([damaged] * (MAX_TAKES if stuck else 1))
                audio, _ = speak(engine, text, FIRST_SEED + seed, {}, True)
                assert audio.guard is not None
                caught += audio.guard.retries > 0
                faults.update(audio.guard.faults)
                report, seconds = report + audio.guard, seconds + audio.seconds
            results.append({
                "damage": damage.__name__, "every_take": stuck, "takes": len(clean), "caught": caught, "unmended": report.unmended,
                "retries": report.retries, "rests": report.rests, "faults": dict(faults), "seconds": round(seconds, 2),
                "discarded_seconds": round(report.discarded_seconds, 2),
            })  # fmt: skip
            print(results[-1], flush=True)
    forced.play([])
    return results


def measure_speech(engine: SpeechEngine, texts: Sequence[str], sampling: dict[str, Any], sets: int) -> list[dict[str, Any]]:
    """Word errors without and with the guard, for each set of seeds, and those of the takes that it rejected and of their successors."""
    ear = Ear()
    results: list[dict[str, Any]] = []
    speak(engine, texts[0], 0, sampling, False)  # the first one compiles
    for number in range(sets):
        asked = [words(t) for t in texts]
        heard: dict[bool, list[str]] = {}
        taken: dict[bool, float] = {}
        reports: list[GuardReport] = []
        for guard in (False, True):
            began = time.process_time()
            audio = [speak(engine, text, FIRST_SEED + 1000 * number + seed, sampling, guard)[0] for seed, text in enumerate(texts)]
            taken[guard] = time.process_time() - began
            reports = [a.guard for a in audio if a.guard]
            same = [guard and not report.faults for report in reports] or [False] * len(audio)  # what was not flagged is heard once
            heard[guard] = [heard[False][i] if same[i] else ear.hear(a.samples) for i, a in enumerate(audio)]
        changed = [i for i, report in enumerate(reports) if report.faults]
        each = {guard: [round(jiwer.wer(asked[i], heard[guard][i]), 3) for i in changed] for guard in heard}
        total = sum(reports, GuardReport())
        results.append({
            "first_seed": FIRST_SEED + 1000 * number, **sampling, "sentences": len(texts), "segments": total.segments,
            "word_errors_without": round(jiwer.wer(asked, heard[False]), 4), "word_errors_with": round(jiwer.wer(asked, heard[True]), 4),
            "flagged": len(changed), "faults": dict(Counter(total.faults)), "retries": total.retries, "unmended": total.unmended,
            "flagged_word_errors_without": each[False], "flagged_word_errors_with": each[True],
            "cpu_seconds_without": round(taken[False], 2), "cpu_seconds_with": round(taken[True], 2),
            "discarded_seconds": round(total.discarded_seconds, 2),
        })  # fmt: skip
        print(results[-1], flush=True)
    return results


def main() -> None:
    """Measure the guard on damaged takes, or on minnow's own: at its defaults, at temperature 1, or at temperature 1 without top-p."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("takes", choices=["damaged", *SAMPLING], help="which takes")
    parser.add_argument("--sets", type=int, default=1, help="sets of seeds for minnow's own takes (default 1)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    texts = [t.text for t in corpus(TextRecipe()).test]
    settings = {"takes": chosen.takes, "sets": chosen.sets}
    with SpeechEngine.load(device="cpu") as engine, recording(chosen.out, "guard", settings, facts(engine.checkpoint)) as record:
        if chosen.takes == "damaged":
            record.runs += measure_damages(engine, texts[:DAMAGED_SENTENCES])
        else:
            record.runs += measure_speech(engine, texts, SAMPLING[chosen.takes], chosen.sets)


if __name__ == "__main__":
    main()
