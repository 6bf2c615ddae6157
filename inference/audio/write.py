"""Converts float samples to 16-bit PCM and WAV."""

from __future__ import annotations

import struct

import numpy as np

UNKNOWN_SIZE = 0xFFFFFFFF


def pcm16(samples: np.ndarray) -> bytes:
    """float32 in [-1, 1] -> signed 16-bit little-endian."""
    return np.clip(samples * 32768, -32768, 32767).astype("<i2").tobytes()


def wav_header(sample_rate: int, data_bytes: int | None = None) -> bytes:
    """The 44 bytes before mono 16-bit PCM; sizes are 0xFFFFFFFF when the length is not known yet."""
    data = UNKNOWN_SIZE if data_bytes is None else data_bytes
    riff = UNKNOWN_SIZE if data_bytes is None else data_bytes + 36
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16, b"data", data)


def wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """A whole WAV file of mono float32 samples (n,)."""
    pcm = pcm16(samples)
    return wav_header(sample_rate, len(pcm)) + pcm
