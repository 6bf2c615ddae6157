"""How well a voice follows clips of speakers that it was never trained on: 12 of Kokoro's voices, clips of about 5 and 15 s.

The speakers' own readings of the same sentences show what can be reached. A recogniser counts the words that it mishears.

    python -m training.cloning --kokoro DIR -o cloning.json

DIR holds what `training.kokoro` needs. Needs `pip install librosa==0.11.0 webrtcvad 'setuptools<81'` and
`pip install --no-deps resemblyzer==0.1.4`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np
import soxr

from bench.record import facts, recording
from inference import SpeechEngine, SpeechRequest
from inference.model.config import SAMPLE_RATE
from training.evaluate import Ear, needs, words
from training.kokoro import KOKORO_RATE, Kokoro, kokoro_folder
from training.speakers import RESEMBLYZER_PACKAGES
from training.text import HELD_OUT

if TYPE_CHECKING:
    from resemblyzer import VoiceEncoder

VOICES = (
    "af_aoede", "af_jessica", "af_river", "af_sarah", "bf_isabella", "bf_lily",
    "am_adam", "am_michael", "am_onyx", "am_puck", "bm_daniel", "bm_lewis",
)  # fmt: skip
"""Six women and six men, as unlike as Kokoro has them: over one sentence the two most alike have a similarity of 0.68, the mean is 0.55.
Chosen among the women at 155 Hz or more in it and the men at 125 Hz or less, since the pitch of the others does not tell their gender.
"""
CLIPS = {5: slice(3, 5), 15: slice(0, 5)}
"""Which of the names' sentences make the clip of so many seconds."""
READ, REFERENCE = 6, 2
"""How many sentences with numbers are spoken, and how many everyday sentences a speaker's own embedding is of."""
HEARING_RATE, PITCH_FRAME = 16_000, 1024
LOWEST_PITCH, HIGHEST_PITCH = 60, 400
"""Hz"""


@dataclass(frozen=True)
class Following:
    """How closely speech follows the speakers of the clips."""

    nearest: float
    """Share of sentences that are more similar to the cloned speaker than to any other; chance is one in as many as there are."""
    to_own: float
    to_nearest_other: float
    """Mean cosine similarities."""
    right_side: float
    """Share of sentences whose pitch is on the female or male side, as their speaker's is; chance is a half."""
    pitch_correlation: float
    """Spearman's rank correlation, over speakers, of the clip's pitch with that of its sentences; chance is 0."""


def embedding(encoder: VoiceEncoder, wave: np.ndarray, rate: int) -> np.ndarray:
    """Samples -> the speaker embedding (256,), of length 1."""
    from resemblyzer import preprocess_wav

    return encoder.embed_utterance(preprocess_wav(soxr.resample(wave, rate, HEARING_RATE)))


def median_pitch(wave: np.ndarray, rate: int) -> float:
    """Samples -> the median fundamental of the frames that pYIN takes for voiced, in Hz; 0 when there is none."""
    from librosa import pyin

    heard = soxr.resample(wave, rate, HEARING_RATE)
    hertz, voiced, _ = pyin(heard, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=HEARING_RATE, frame_length=PITCH_FRAME)
    return float(np.median(hertz[voiced])) if voiced.any() else 0.0


def score(similarity: np.ndarray, clip_pitch: np.ndarray, pitch: np.ndarray, female: np.ndarray) -> Following:
    """From similarities (speakers, sentences, speakers) of each cloned speaker's sentences to each speaker, the pitch in Hz of the clips
    (speakers,) and of the sentences (speakers, sentences), 0 where there is none, and which speakers are female (speakers,).
    """
    everyone = np.arange(len(similarity))
    own = similarity[everyone, :, everyone]
    others = similarity.copy()
    others[everyone, :, everyone] = -np.inf
    nearest_other = others.max(2)
    middle = np.sqrt(np.median(clip_pitch[female]) * np.median(clip_pitch[~female]))
    right_side = (pitch > 0) & ((pitch > middle) == female[:, None])
    return Following(
        nearest=float((own > nearest_other).mean()),
        to_own=float(own.mean()),
        to_nearest_other=float(nearest_other.mean()),
        right_side=float(right_side.mean()),
        pitch_correlation=rank_correlation(clip_pitch, np.median(pitch, axis=1)),
    )


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two series; equal values share their mean rank, and a series of equal values correlates with none."""
    ranks = [(x[:, None] > x).sum(1) + (x[:, None] == x).sum(1) / 2 for x in (a, b)]
    return float(np.corrcoef(ranks)[0, 1]) if all(r.std() for r in ranks) else 0.0


def measure(engine: SpeechEngine, kokoro: Kokoro) -> Iterator[dict[str, Any]]:
    """The figures of the speakers' own readings, then of the engine's speech from clips of each length."""
    from resemblyzer import VoiceEncoder

    encoder, ear = VoiceEncoder("cpu", verbose=False), Ear()
    numbers, names, everyday = (_held_out(kind) for kind in ("number", "name", "everyday"))
    speakers = np.array([embedding(encoder, _read(kokoro, voice, everyday[:REFERENCE]), KOKORO_RATE) for voice in VOICES])
    clips = {seconds: [_read(kokoro, voice, names[part]) for voice in VOICES] for seconds, part in CLIPS.items()}
    own = [[kokoro.speak(voice, text) for text in numbers[:READ]] for voice in VOICES]
    judged = _judged(encoder, speakers, clips[max(CLIPS)], own, KOKORO_RATE)
    yield {"speech": "kokoro"} | _misheard(ear, numbers[:READ], own, KOKORO_RATE) | judged
    for seconds, part in CLIPS.items():
        cloned = []
        for number, clip in enumerate(clips[seconds]):
            voice = engine.voice(soxr.resample(clip, KOKORO_RATE, SAMPLE_RATE), " ".join(names[part]))
            requests = [SpeechRequest(text, voice, seed=READ * number + n) for n, text in enumerate(numbers[:READ])]
            cloned.append([engine.synthesize(request).samples for request in requests])
        judged = _judged(encoder, speakers, clips[seconds], cloned, SAMPLE_RATE)
        yield {"speech": "cloned", "clip": seconds} | _misheard(ear, numbers[:READ], cloned, SAMPLE_RATE) | judged


def _misheard(ear: Ear, texts: Sequence[str], speech: list[list[np.ndarray]], rate: int) -> dict[str, float]:
    """The share of words that are wrong in all speech, and in that of women and of men."""
    heard = [[ear.hear(soxr.resample(wave, rate, SAMPLE_RATE)) for wave in waves] for waves in speech]
    asked = [words(text) for text in texts]
    chosen = {"": "fm", "_women": "f", "_men": "m"}
    wrong = {name: [h for voice, h in zip(VOICES, heard, strict=True) if voice[1] in kind] for name, kind in chosen.items()}
    return {
        f"word_errors{name}": round(jiwer.wer(asked * len(those), [h for of_one in those for h in of_one]), 4)
        for name, those in wrong.items()
    }


def _judged(
    encoder: VoiceEncoder, speakers: np.ndarray, clips: list[np.ndarray], speech: list[list[np.ndarray]], rate: int
) -> dict[str, Any]:
    """The figures, and under `each` the measurements of each speaker that they follow from."""
    similarity = np.array([[embedding(encoder, wave, rate) @ speakers.T for wave in waves] for waves in speech], float)
    clip_pitch = np.array([median_pitch(clip, KOKORO_RATE) for clip in clips])
    pitch = np.array([[median_pitch(wave, rate) for wave in waves] for waves in speech])
    following = score(similarity, clip_pitch, pitch, np.array([voice[1] == "f" for voice in VOICES]))
    each = [
        {
            "voice": voice, "clip_seconds": round(len(clips[n]) / KOKORO_RATE, 2), "clip_pitch": round(clip_pitch[n], 1),
            "pitch": pitch[n].round(1).tolist(), "nearest": [VOICES[i] for i in similarity[n].argmax(1)],
            "similarity": similarity[n].round(3).tolist(),
        }
        for n, voice in enumerate(VOICES)
    ]  # fmt: skip
    return {name: round(value, 3) for name, value in asdict(following).items()} | {"each": each}


def _held_out(kind: str) -> list[str]:
    """The hand-written sentences of a kind, which no training has seen."""
    return [t["text"] for t in json.loads(HELD_OUT.read_text(encoding="utf-8")) if t["kind"] == kind]


def _read(kokoro: Kokoro, voice: str, texts: Sequence[str]) -> np.ndarray:
    return np.concatenate([kokoro.speak(voice, text) for text in texts])


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cloning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="the voice to measure (default: the embedded one)")
    parser.add_argument("--kokoro", type=kokoro_folder, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON file to write")
    chosen = parser.parse_args()
    needs(*RESEMBLYZER_PACKAGES)
    settings = {"voices": VOICES, "clips": list(CLIPS)}
    with (
        TemporaryDirectory() as copies,
        SpeechEngine.load(chosen.checkpoint, copies=Path(copies)) as engine,
        recording(chosen.out, "cloning", settings, facts(engine.checkpoint)) as record,
    ):
        for run in measure(engine, Kokoro(chosen.kokoro)):
            record.runs.append(run)
            record.write()
            print({name: value for name, value in run.items() if name != "each"}, flush=True)


if __name__ == "__main__":
    main()
