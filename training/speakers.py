"""Speaker similarity: resemblyzer judges whether a cloned voice is nearer to its own speaker than to 27 others.

    python -m training.speakers --work var/minnow --checkpoint var/minnow/checkpoint --kokoro DIR --out scores.json

DIR holds what `training.kokoro` needs for the other speakers. Needs `pip install librosa webrtcvad 'setuptools<81'` and
`pip install --no-deps resemblyzer==0.1.4`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr

from inference import SpeechEngine, SpeechRequest, Voice
from inference.model.config import SAMPLE_RATE
from training.evaluate import needs
from training.kokoro import KOKORO_RATE, TEACHER_VOICE, Kokoro, english_voices, kokoro_folder
from training.recipe import Recipe
from training.shards import held_out, read_corpus, utterances
from training.speech import Utterance

CLIP_SECONDS = 10
RESEMBLYZER_RATE = 16_000
RESEMBLYZER_PACKAGES = ("resemblyzer", "librosa", "webrtcvad", "pkg_resources")
"""resemblyzer, and what it does not work without; `pkg_resources` is part of setuptools below 81."""


@dataclass(frozen=True)
class Likeness:
    """Cosine similarities are means over the sentences; `nearest` is the share of sentences that are closest to their own speaker."""

    sentences: int
    others: int
    nearest: float
    to_own: float
    to_nearest_other: float
    confused_with: dict[str, int]


def measure(recipe: Recipe, checkpoint: Path, kokoro: Path) -> Likeness:
    """Clone the teacher from a 10 s clip of sentences never trained on, speak the test sentences, and find the most similar speaker."""
    from resemblyzer import VoiceEncoder

    held = [u for u in utterances(held_out(recipe, "validation")) if u.wave is not None]
    clip = _clip(held)
    rest = held[len(clip) : len(clip) + 8]
    ear = VoiceEncoder("cpu", verbose=False)
    own = ear.embed_utterance(_joined(rest))
    reader, names = Kokoro(kokoro), [name for name in english_voices(kokoro) if name != TEACHER_VOICE]
    read = {name: np.concatenate([reader.speak(name, u.text) for u in rest[:2]]) for name in names}
    others = {name: ear.embed_utterance(_heard(wave, KOKORO_RATE)) for name, wave in read.items()}
    texts = [t.text for t in read_corpus(recipe).test]
    with SpeechEngine.load(checkpoint, device="cpu") as engine:
        wave = np.concatenate([_samples(u) for u in clip])
        voice = engine.voice(wave, " ".join(u.text for u in clip))
        spoken = [ear.embed_utterance(_heard(_say(engine, text, voice, seed), SAMPLE_RATE)) for seed, text in enumerate(texts)]
    to_own = np.array([s @ own for s in spoken])
    to_others = np.array([[s @ others[n] for n in names] for s in spoken])
    confused: dict[str, int] = {}
    for i in np.flatnonzero(to_others.max(1) >= to_own):
        name = names[int(to_others[i].argmax())]
        confused[name] = confused.get(name, 0) + 1
    nearest = float((to_own > to_others.max(1)).mean())
    return Likeness(len(texts), len(names), nearest, float(to_own.mean()), float(to_others.max(1).mean()), confused)


def _clip(held: list[Utterance]) -> list[Utterance]:
    """The first utterances that together last CLIP_SECONDS."""
    seconds, n = 0.0, 0
    while seconds < CLIP_SECONDS:
        seconds += len(_samples(held[n])) / SAMPLE_RATE
        n += 1
    return held[:n]


def _samples(u: Utterance) -> np.ndarray:
    assert u.wave is not None
    return u.wave.numpy().astype(np.float32) / 32768


def _joined(held: Iterable[Utterance]) -> np.ndarray:
    return _heard(np.concatenate([_samples(u) for u in held]), SAMPLE_RATE)


def _heard(wave: np.ndarray, rate: int) -> np.ndarray:
    return soxr.resample(wave.astype(np.float32), rate, RESEMBLYZER_RATE)


def _say(engine: SpeechEngine, text: str, voice: Voice, seed: int) -> np.ndarray:
    return engine.synthesize(SpeechRequest(text, voice, seed=seed)).samples


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m training.speakers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("var/minnow"))
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--kokoro", type=kokoro_folder, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    needs(*RESEMBLYZER_PACKAGES)
    recipe = Recipe(options.work)
    if not held_out(recipe, "validation").exists():
        raise SystemExit(f"{options.work} has no {held_out(recipe, 'validation').name}: make it with `python -m training speech`")
    likeness = measure(recipe, options.checkpoint, options.kokoro)
    options.out.write_text(json.dumps(asdict(likeness), indent=1) + "\n", encoding="utf-8")
    print(likeness)


if __name__ == "__main__":
    main()
