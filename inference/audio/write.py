"""Converts float samples to 16-bit PCM and WAV."""

from __future__ import annotations

import struct

import numpy as np

UNKNOWN_SIZE = 0xFFFFFFFF


def pcm16(samples: np.ndarray) -> bytes:
    """float32 in [-1, 1] -> signed 16-bit little-endian."""
    return int16(samples).tobytes()


def int16(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] -> little-endian int16."""
    return np.clip(samples * 32768, -32768, 32767).astype("<i2")


def float32(samples: np.ndarray) -> np.ndarray:
    """The inverse of `int16`: turned into int16 again, they are the same."""
    return samples.astype(np.float32) / 32768


def wav_header(sample_rate: int, data_bytes: int | None = None) -> bytes:
    """The 44 bytes before mono 16-bit PCM; sizes are 0xFFFFFFFF when the length is not known yet."""
    data = UNKNOWN_SIZE if data_bytes is None else data_bytes
    riff = UNKNOWN_SIZE if data_bytes is None else data_bytes + 36
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16, b"data", data)


def wav(samples: np.ndarray, sample_rate: int) -> bytes:
    """A whole WAV file of mono float32 samples (n,)."""
    pcm = pcm16(samples)
    return wav_header(sample_rate, len(pcm)) + pcm
