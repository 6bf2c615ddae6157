"""Reads a clip from a file or from bytes, in any format FFmpeg (PyAV) knows: mono float32 at the codec's rate, whatever it was."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soxr

from inference.errors import AudioError

MAX_CLIP_SECONDS = 600
_CONTAINERS = "aac,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,w64,wav,wv"
"""Formats that hold sound themselves. FFmpeg also reads lists of other files and addresses, which nobody may have us open."""


def read_clip(source: Path | bytes, sample_rate: int = 44_100) -> np.ndarray:
    """Samples (n,) float32 at `sample_rate` Hz, channels averaged; of a video its sound.

    Raises AudioError when it is no sound that can be read, is silent of samples, holds values that are not numbers, or lasts
    more than ten minutes.
    """
    name = source.name if isinstance(source, Path) else "the clip"
    if isinstance(source, Path) and not source.is_file():
        raise AudioError(f"{name} does not exist or is not a file", "reference")
    try:
        samples, rate = _decoded(source.read_bytes() if isinstance(source, Path) else source, name)
    except (av.FFmpegError, OSError, ValueError, IndexError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise AudioError(f"{name} is not audio that can be read here: {reason.strip().rstrip('.')}", "reference") from None
    if not len(samples):
        raise AudioError(f"{name} holds no sound: 0 samples", "reference")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds samples that are not numbers", "reference")
    return resample(samples, rate, sample_rate)


def _decoded(content: bytes, name: str) -> tuple[np.ndarray, int]:
    pieces: list[np.ndarray] = []
    with av.open(io.BytesIO(content), "r", options={"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}) as container:
        if not container.streams.audio:
            raise AudioError(f"{name} has no sound track", "reference")
        stream = container.streams.audio[0]
        rate, most = stream.rate, MAX_CLIP_SECONDS * stream.rate
        resampler, read = av.AudioResampler(format="fltp"), 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:  # a damaged piece, or what is not sound at the end of a file
                continue
            for frame in frames:
                assert isinstance(frame, av.AudioFrame)
                if frame.sample_rate != rate:
                    raise AudioError(f"{name} changes its sample rate from {rate} to {frame.sample_rate} Hz on the way", "reference")
                pieces += [f.to_ndarray().mean(axis=0, dtype=np.float32) for f in resampler.resample(frame)]
                read += frame.samples
            if read > most:
                seconds = container.duration / av.time_base if container.duration else read / rate
                raise AudioError(f"{name} lasts {seconds:.0f} s; at most {MAX_CLIP_SECONDS} s are read", "reference")
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), rate


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Samples (n,) float32 from one rate to another (soxr, high quality)."""
    return samples if rate == target else np.asarray(soxr.resample(samples, rate, target, quality="HQ"), np.float32)
