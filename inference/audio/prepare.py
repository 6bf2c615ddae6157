"""Prepares a reference clip: trims silence and normalises loudness."""

from __future__ import annotations

import numpy as np

from inference.errors import AudioError

SHORTEST, LONGEST = 1, 90
"""Seconds that a clip may last after its silence is trimmed. About 10 are best."""
LOUDNESS = -23.0
"""dB below full scale: root mean square of the loud parts."""
_LOUD, _SILENCE = 20.0, 40.0
"""dB below the quietest frame of the loudest half second. Frames above the first are loud parts; frames below the second are silence."""
_HALF_A_SECOND = 50
"""Frames. Any usable clip has this much speech, and no click lasts this long."""
_KEPT = 0.1
"""Seconds of silence left at either end."""
_FRAME = 0.01
_PEAK = 0.99


def prepare(samples: np.ndarray, sample_rate: int = 44_100) -> np.ndarray:
    """Samples (n,) float32 -> the same, trimmed and at LOUDNESS, but never so loud that peaks are clipped.

    Raises AudioError when the clip is silent, or when its audible part is too short or too long.
    """
    size = int(_FRAME * sample_rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    reference = np.sort(power)[-_HALF_A_SECOND:][0] if len(power) else 0.0
    if reference < 1e-8:  # -80 dB
        seconds, level = len(samples) / sample_rate, 10 * np.log10(max(reference, 1e-12))
        raise AudioError(f"the clip is silent: the loudest half second of its {seconds:.1f} s reaches {level:.0f} dB", "reference")
    heard = np.flatnonzero(power > reference * 10 ** (-_SILENCE / 10))
    margin = int(_KEPT * sample_rate)
    kept = samples[max(0, heard[0] * size - margin) : (heard[-1] + 1) * size + margin]
    seconds = len(kept) / sample_rate
    if not SHORTEST <= seconds <= LONGEST:
        raise AudioError(
            f"the clip lasts {seconds:.1f} s without the silence around it; {SHORTEST} to {LONGEST} s are needed, about 10 s are best",
            "reference",
        )
    level = np.sqrt(power[power > reference * 10 ** (-_LOUD / 10)].mean())
    return (min(10 ** (LOUDNESS / 20) / level, _PEAK / np.abs(kept).max()) * kept).astype(np.float32)
