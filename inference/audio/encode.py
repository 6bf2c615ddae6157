"""Encodes audio chunks into a file format and returns bytes as soon as there are any. FFmpeg (PyAV) does the compression."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
import av.filter
import numpy as np
import soxr

from inference.audio.write import pcm16, wav_header
from inference.errors import RequestError, shown

NATIVE_RATE = 44_100
MIN_SPEED, MAX_SPEED = 0.25, 4.0
MAX_VOLUME = 20.0
_SLOWEST_STEP = 0.5
"""The most that one atempo filter of FFmpeg slows down."""
_PIECE = 1024
"""Samples pushed into atempo at once: atempo holds back the newest piece, and fails on very short ones."""
_HELD_BACK = 8192
"""Samples of silence that push out everything atempo holds back."""

_STREAMINFO_AT, _STREAMINFO_BYTES = 8, 34
"""Its place in a FLAC file, after `fLaC` and a block header of 4 bytes, and its size."""


@dataclass(frozen=True)
class Format:
    """`rates` are the allowed sample rates in Hz, the default first; None: any from 8,000 to 48,000, by default 44,100.

    MP3 and AAC begin with a delay of a fixed number of samples, which is audible at low rates.
    """

    media_type: str
    container: str = ""
    codec: str = ""
    rates: tuple[int, ...] | None = None
    muxer: tuple[tuple[str, str], ...] = ()


FORMATS = {
    "mp3": Format("audio/mpeg", "mp3", "libmp3lame", (44_100, 48_000, 32_000), (("write_xing", "0"), ("id3v2_version", "0"))),
    "opus": Format("audio/ogg", "ogg", "libopus", (48_000, 24_000, 16_000, 12_000, 8_000), (("page_duration", "20000"),)),
    "aac": Format("audio/aac", "adts", "aac", (44_100, 48_000)),
    "flac": Format("audio/flac", "flac", "flac"),
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm"),
    "ulaw": Format("audio/basic", "mulaw", "pcm_mulaw", (8_000,)),
    "alaw": Format("audio/x-alaw-basic", "alaw", "pcm_alaw", (8_000,)),
}


def choose_rate(kind: str, asked: int | None) -> int:
    """The requested sample rate, or the format's default. Raises RequestError when the format does not support the rate."""
    rates = FORMATS[kind].rates
    if asked is None:
        return rates[0] if rates else NATIVE_RATE
    if not (asked in rates if rates else 8000 <= asked <= 48_000):
        known = ", ".join(map(str, sorted(rates))) if rates else "8000 to 48000"
        raise RequestError(f"sample_rate is {shown(asked)}; {kind} can have {known}", "sample_rate")
    return asked


def openai_rate(kind: str, asked: int | None) -> int | None:
    """`asked`, or for raw PCM the 24 kHz that OpenAI's clients assume, since it has no header; None leaves it to the format."""
    return 24_000 if asked is None and kind == "pcm" else asked


class Encoder:
    """One file being written. Feed it mono float32 samples (n,) at 44.1 kHz, then `finish` it."""

    def __init__(
        self, kind: str, sample_rate: int | None = None, speed: float = 1.0, bit_rate: int | None = None, volume: float = 0.0
    ) -> None:
        """`bit_rate` (bits/s) is for MP3, Opus and AAC; None leaves it to the codec.

        `volume` is in dB; peaks that get too loud are clipped.
        """
        self.kind, self.sample_rate = kind, choose_rate(kind, sample_rate)
        if not MIN_SPEED <= speed <= MAX_SPEED:
            raise RequestError(f"speed is {speed}; it must be between {MIN_SPEED} and {MAX_SPEED}", "speed")
        if not -MAX_VOLUME <= volume <= MAX_VOLUME:
            raise RequestError(f"volume is {volume}; it must be between {-MAX_VOLUME} and {MAX_VOLUME} dB", "volume")
        self._busy = threading.Lock()
        self._gain = 10 ** (volume / 20)
        self._speed, self._fed = speed, 0
        self._began = (0.0, 0.0)
        self._begin()
        plain = kind in ("wav", "pcm")
        self._writer: _Writer = _Plain(kind, self.sample_rate) if plain else _Compressed(FORMATS[kind], self.sample_rate, bit_rate)

    @property
    def media_type(self) -> str:
        """The value for an HTTP Content-Type header."""
        media_type = FORMATS[self.kind].media_type
        return f"{media_type};rate={self.sample_rate};channels=1" if self.kind == "pcm" else media_type

    def encode(self, samples: np.ndarray) -> bytes:
        """Encode samples; return the bytes that are ready. The encoder may hold some back until the next call."""
        with self._busy:
            return self._encode(samples)

    def position(self, seconds: float) -> float:
        """Where in the file, in seconds, a moment of the audio is heard that was fed after the last `flush`."""
        heard, written = self._began
        return written + max(0.0, seconds - heard) / self._speed

    def _encode(self, samples: np.ndarray) -> bytes:
        self._fed += len(samples)
        if self._gain != 1:
            samples = np.clip(self._gain * samples, -1, 1).astype(np.float32)
        if self._tempo:
            samples = self._tempo.change(samples)
        if self._resampler and len(samples):
            samples = self._resampler.resample_chunk(samples)
        return self._writer.write(samples)

    def flush(self) -> bytes:
        """The bytes still held back, in a file that continues. A compressed format gets some silence, which pushes out its last frames."""
        with self._busy:
            content = self._writer.write(self._rest()) + self._writer.flush()
            self._began = (self._fed / NATIVE_RATE, self._writer.written / self.sample_rate)
            self._begin()
            return content

    def finish(self) -> bytes:
        """The bytes still held back, and the end of the file."""
        with self._busy:
            return self._writer.write(self._rest()) + self._writer.close()

    def _begin(self) -> None:
        """Change speed and rate of the samples that come next, apart from earlier ones."""
        self._tempo = _Tempo(self._speed) if self._speed != 1 else None
        self._resampler = None if self.sample_rate == NATIVE_RATE else soxr.ResampleStream(NATIVE_RATE, self.sample_rate, 1, "float32")

    def _rest(self) -> np.ndarray:
        """The samples that the changes of speed and rate hold back."""
        tail = self._tempo.rest() if self._tempo else np.zeros(0, np.float32)
        return self._resampler.resample_chunk(tail, last=True) if self._resampler else tail

    def close(self) -> None:
        """Free what an unfinished file holds, FFmpeg's threads and buffers, once no other thread encodes."""
        with self._busy:
            self._writer.abandon()
            self._tempo = None

    def with_true_sizes(self, content: bytes) -> bytes:
        """A whole, finished file with its length in its header, which a stream cannot know when it begins.

        WAV and FLAC have such headers.
        """
        at, sizes = self.true_sizes(len(content))
        return content[:at] + sizes + content[at + len(sizes) :]

    def true_sizes(self, size: int) -> tuple[int, bytes]:
        """What a whole, finished file of `size` bytes must have instead of what was written: the position, and the bytes."""
        return self._writer.true_sizes(size)


class _Writer(Protocol):
    written: int
    """Samples, at the file's own rate."""

    def write(self, samples: np.ndarray) -> bytes: ...

    def flush(self) -> bytes: ...

    def close(self) -> bytes: ...

    def abandon(self) -> None: ...

    def true_sizes(self, size: int, /) -> tuple[int, bytes]: ...


class _Plain:
    def __init__(self, kind: str, rate: int) -> None:
        self._header = wav_header(rate) if kind == "wav" else b""
        self._rate, self._header_bytes, self.written = rate, len(self._header), 0

    def write(self, samples: np.ndarray) -> bytes:
        self.written += len(samples)
        header, self._header = self._header, b""
        return header + pcm16(samples)

    def flush(self) -> bytes:
        return b""

    def close(self) -> bytes:
        return b""

    def abandon(self) -> None:
        pass

    def true_sizes(self, size: int, /) -> tuple[int, bytes]:
        return 0, wav_header(self._rate, size - self._header_bytes) if self._header_bytes else b""


class _Sink:
    """FFmpeg's output file. It has no `seek`, so FFmpeg never goes back to bytes that were already sent."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken


class _Compressed:
    def __init__(self, form: Format, rate: int, bit_rate: int | None) -> None:
        self._sink, self._rate, self.written, self._kind, self._info = _Sink(), rate, 0, form.container, b""
        self._container = av.open(self._sink, "w", format=form.container, options={"flush_packets": "1", **dict(form.muxer)})
        stream = self._container.add_stream(form.codec, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        self._stream, self._encoded = stream, 0

    def write(self, samples: np.ndarray) -> bytes:
        if len(samples):
            for packet in self._stream.encode(_frame(samples, self._rate, self.written)):
                assert packet.pts is not None
                self._encoded = packet.pts + (packet.duration or 0)  # in samples, without the codec's delay
                self._container.mux(packet)
            self.written += len(samples)
        return self._sink.take()

    def flush(self) -> bytes:
        size = self._stream.codec_context.frame_size
        content, goal = self._sink.take(), self.written + (size if self._kind == "ogg" else 0)  # Ogg keeps the newest frame
        while size and self._encoded < goal:
            content += self.write(np.zeros(size, np.float32))
        return content

    def close(self) -> bytes:
        begun = b"" if self.written else self.write(np.zeros(self._rate // 50, np.float32))  # a file without any sound is invalid
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._info = bytes(self._stream.codec_context.extradata or b"")
        self._container.close()
        return begun + self._sink.take()

    def abandon(self) -> None:
        """Free FFmpeg's threads now. A client that left leaves an exception behind, whose frames hold this object until they are collected."""
        if container := vars(self).pop("_container", None):
            container.close()
            del self._stream
        self._sink.take()

    def true_sizes(self, _size: int, /) -> tuple[int, bytes]:
        # FFmpeg's encoder ends with a STREAMINFO that has the number of samples and their MD5.
        complete = self._kind == "flac" and len(self._info) == _STREAMINFO_BYTES
        return _STREAMINFO_AT, self._info if complete else b""


class _Tempo:
    """Faster or slower at the same pitch: FFmpeg's atempo (waveform similarity overlap-add)."""

    def __init__(self, speed: float) -> None:
        self._graph, self._speed, self._waiting = av.filter.Graph(), speed, np.zeros(0, np.float32)
        self._fed = self._given = 0
        nodes = [self._graph.add_abuffer(sample_rate=NATIVE_RATE, format="flt", layout="mono", time_base=Fraction(1, NATIVE_RATE))]
        while speed < _SLOWEST_STEP:
            nodes.append(self._graph.add("atempo", str(_SLOWEST_STEP)))
            speed /= _SLOWEST_STEP
        nodes += [self._graph.add("atempo", str(speed)), self._graph.add("abuffersink")]
        self._graph.link_nodes(*nodes).configure()

    def change(self, samples: np.ndarray) -> np.ndarray:
        """Feed samples; return those that are ready."""
        samples = np.concatenate((self._waiting, samples))
        ready: list[np.ndarray] = []
        whole = len(samples) // _PIECE * _PIECE
        for start in range(0, whole, _PIECE):
            self._graph.push(_frame(samples[start : start + _PIECE], NATIVE_RATE, self._fed))
            self._fed += _PIECE
            ready += self._pull()
        self._waiting = samples[whole:]
        return np.concatenate(ready) if ready else np.zeros(0, np.float32)

    def rest(self) -> np.ndarray:
        """The samples still held back, so that the total length is the input's length divided by the speed."""
        total = round((self._fed + len(self._waiting)) / self._speed) - self._given
        last = self.change(np.zeros(_HELD_BACK, np.float32))
        self._graph.push(None)
        return np.concatenate((last, *self._pull()))[:total]

    def _pull(self) -> list[np.ndarray]:
        ready: list[np.ndarray] = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return ready
            assert isinstance(frame, av.AudioFrame)
            self._given += frame.samples
            ready.append(frame.to_ndarray()[0])


def _frame(samples: np.ndarray, rate: int, start: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32)[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame
