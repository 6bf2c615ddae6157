"""Reads a clip from a file or from bytes: mono float32 at the codec's rate, whatever it was."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from inference.errors import AudioError

MAX_CLIP_SECONDS = 600


def read_clip(source: Path | bytes, sample_rate: int = 44_100) -> np.ndarray:
    """Samples (n,) float32 at `sample_rate` Hz, channels averaged.

    Reads what libsndfile does: WAV, FLAC, Ogg, MP3, AIFF and more. Raises AudioError when it is none of these, is
    silent of samples, holds values that are not numbers, or lasts more than ten minutes.
    """
    name = source.name if isinstance(source, Path) else "the clip"
    if isinstance(source, Path) and not source.is_file():
        raise AudioError(f"{name} does not exist or is not a file", "reference")
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as f:
            rate = f.samplerate
            if f.frames > MAX_CLIP_SECONDS * rate:
                raise AudioError(f"{name} lasts {f.frames / rate:.0f} s; at most {MAX_CLIP_SECONDS} s are read", "reference")
            samples = f.read(MAX_CLIP_SECONDS * rate, dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.LibsndfileError, OSError, ValueError) as e:
        reason = getattr(e, "error_string", "") or str(e)
        raise AudioError(f"{name} is not audio that can be read here: {reason.strip().rstrip('.')}", "reference") from None
    if not len(samples):
        raise AudioError(f"{name} holds no sound: 0 samples", "reference")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds samples that are not numbers", "reference")
    return resample(samples, rate, sample_rate)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Samples (n,) float32 from one rate to another (soxr, high quality)."""
    return samples if rate == target else np.asarray(soxr.resample(samples, rate, target, quality="HQ"), np.float32)
