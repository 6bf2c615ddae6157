"""Decodes a clip from a file or bytes, in any format FFmpeg (PyAV) knows, to mono float32 at the codec's sample rate."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soxr

from inference.errors import AudioError

MAX_CLIP_SECONDS = 600
MIN_RATE, MAX_RATE = 4_000, 384_000
_ABSURD = 1e9
"""Times full scale."""
_CONTAINERS = "aac,aiff,amr,asf,au,avi,caf,flac,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,w64,wav,wv"
"""Formats that hold sound themselves. FFmpeg also reads lists of other files and URLs; a client must not make us open those."""


def read_clip(source: str | Path | bytes, sample_rate: int = 44_100) -> np.ndarray:
    """Samples (n,) float32 at `sample_rate` Hz, channels averaged. A video gives its sound track.

    Raises AudioError when the source is not readable audio, has no samples, holds values that are not numbers, or lasts
    more than ten minutes.
    """
    if isinstance(source, str):
        source = Path(source)
    name = source.name if isinstance(source, Path) else "the clip"
    if isinstance(source, Path) and not source.is_file():
        raise AudioError(f"{name} does not exist or is not a file", "reference")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
            samples = _decoded(file, name, sample_rate)
    except (av.FFmpegError, OSError, ValueError, IndexError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise AudioError(f"{name} is not audio that can be read here: {reason.strip().rstrip('.')}", "reference") from None
    if not len(samples):
        raise AudioError(f"{name} holds no sound: 0 samples", "reference")
    return samples


def _decoded(file: BinaryIO, name: str, target: int) -> np.ndarray:
    """Resample while decoding, so that a small file with hours of sound, or millions of samples a second, takes no memory."""
    pieces: list[np.ndarray] = []
    with av.open(file, "r", options={"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}) as container:
        if not container.streams.audio:
            raise AudioError(f"{name} has no sound track", "reference")
        stream = container.streams.audio[0]
        # Interleaved: with 8 or more planes, PyAV reads beyond the last one.
        floats, rate, read = av.AudioResampler(format="flt"), 0, 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:  # a damaged packet, or data other than sound at the end of a file
                continue
            for frame in frames:
                assert isinstance(frame, av.AudioFrame)
                if not rate:  # the first frame's rate: the header may give half of it (AAC with SBR)
                    rate = frame.sample_rate
                    if not MIN_RATE <= rate <= MAX_RATE:
                        raise AudioError(f"{name} has {rate} samples a second; {MIN_RATE} to {MAX_RATE} are read", "reference")
                    to_target = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
                if frame.sample_rate != rate:
                    raise AudioError(f"{name} changes its sample rate from {rate} to {frame.sample_rate} Hz on the way", "reference")
                for f in floats.resample(frame):
                    values = f.to_ndarray().reshape(-1, f.layout.nb_channels)
                    if not (np.abs(values) < _ABSURD).all():  # NaN fails this, too
                        raise AudioError(f"{name} holds samples that are not numbers", "reference")
                    mono = values.mean(axis=1, dtype=np.float64).astype(np.float32)
                    pieces.append(to_target.resample_chunk(mono) if rate != target else mono)
                read += frame.samples
            if read > MAX_CLIP_SECONDS * rate:
                seconds = container.duration / av.time_base if container.duration else read / rate
                raise AudioError(f"{name} lasts {seconds:.0f} s; at most {MAX_CLIP_SECONDS} s are read", "reference")
    if rate and rate != target:
        pieces.append(to_target.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
