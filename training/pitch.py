"""The median pitch of speech, from the autocorrelation of its frames: quick enough for thousands of takes, and without a library."""

from __future__ import annotations

import numpy as np
import soxr

from inference.model.config import SAMPLE_RATE

RATE = 16_000
FRAME, STEP = 800, 320
LAGS = slice(40, 267)
"""400 down to 60 Hz."""
VOICED, NEARLY = 0.7, 0.9
"""How like itself a frame must be a period later, and what share of the best likeness the first good period has."""


def median_pitch(wave: np.ndarray) -> float:
    """Samples (n,) float32 at 44.1 kHz -> Hz, the median over voiced frames of 50 ms; 0 where none is voiced.

    The period of a frame is the shortest that is nearly as good as the best: twice the period is as good.
    """
    heard = soxr.resample(np.pad(wave, (0, max(0, SAMPLE_RATE // 10 - len(wave)))), SAMPLE_RATE, RATE)
    frames = np.lib.stride_tricks.sliding_window_view(heard, FRAME)[::STEP]
    frames = frames - frames.mean(1, keepdims=True)
    likeness = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, : LAGS.stop] / np.linspace(1, 1 - (LAGS.stop - 1) / FRAME, LAGS.stop)
    lags = likeness[:, LAGS] / np.maximum(likeness[:, :1], 1e-6)
    voiced = lags.max(1) > VOICED
    first = (lags > NEARLY * lags.max(1, keepdims=True)).argmax(1)
    return float(np.median(RATE / (LAGS.start + first[voiced]))) if voiced.any() else 0.0
