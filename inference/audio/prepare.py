"""Makes a clip fit to be imitated: silence around it cut off, at the loudness of speech."""

from __future__ import annotations

import numpy as np

from inference.errors import AudioError

SHORTEST, LONGEST = 1, 90
"""Seconds a clip may last once its silence is gone. About 10 are best."""
LOUDNESS = -23.0
"""dB below full scale: root mean square of what is not silence."""
_SILENCE = 40.0
"""dB below the loud parts."""
_KEPT = 0.1
"""Seconds of silence left at either end."""
_FRAME = 0.01
_PEAK = 0.99


def prepare(samples: np.ndarray, sample_rate: int = 44_100) -> np.ndarray:
    """Samples (n,) float32 -> the same, trimmed and at LOUDNESS, but never so loud that peaks are cut.

    Raises AudioError when nothing can be heard, or what can be heard is too short or too long.
    """
    size = int(_FRAME * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    loud = np.percentile(power, 95) if len(power) else 0.0
    if loud < 1e-8:  # -80 dB
        raise AudioError(f"the clip is silent: its {len(samples) / sample_rate:.1f} s reach {_decibels(loud):.0f} dB", "reference")
    heard = np.flatnonzero(power > loud * 10 ** (-_SILENCE / 10))
    margin = int(_KEPT * sample_rate)
    kept = samples[max(0, heard[0] * size - margin) : (heard[-1] + 1) * size + margin]
    seconds = len(kept) / sample_rate
    if not SHORTEST <= seconds <= LONGEST:
        raise AudioError(
            f"the clip lasts {seconds:.1f} s without the silence around it; {SHORTEST} to {LONGEST} s are needed, about 10 s are best",
            "reference",
        )
    gain = min(10 ** (LOUDNESS / 20) / np.sqrt(power[heard].mean()), _PEAK / np.abs(kept).max())
    return (gain * kept).astype(np.float32)


def _decibels(power: float) -> float:
    return 10 * float(np.log10(max(power, 1e-12)))
