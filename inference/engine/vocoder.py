"""Decides when a request's frames become sound, and decodes those that are due together in one batch.

On CUDA a pass of the decoder is a captured graph on its own stream, which runs while the engine generates frames. A pass is hundreds of
small kernels, and launching each takes longer than running it. Nobody waits for a pass: its sound lands in host memory, and the engine
looks each round whether it is there.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.engine.captured import GRAPHS, Captured, capture_first
from inference.engine.graphs import capture, powers
from inference.model.codec import Codec, CodecStream, History, decode_streams
from inference.model.config import CODES_PER_GROUP, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from inference.engine.cuda_vocoder import FusedHead

FIRST_CHUNK = 4
"""Frames in the first chunk of a request: 186 ms of sound, heard as soon as they exist."""
LARGEST_CHUNK = 32
"""Each later chunk is twice the one before, up to this: larger chunks cost less per frame."""
CAPTURED_FRAMES = 128
"""Frames of all streams in the largest captured pass: enough to keep a large GPU busy, in about a gigabyte."""
CPU_FRAMES, CPU_FRAMES_BESIDE = 32, 8
"""Frames decoded between two frames of the model on a CPU, and beside somebody's first sound. More would cost a little less each, and
everybody waits for all of them.
"""
MAX_FLYING, STARTED_FRAMES = 3, 256
"""On a GPU: passes that may be on their way before others start, and the frames of those that then start. The engine looks once a round, and
the device should have enough until then, in few passes. Who has heard nothing waits for what is on its way: 10 to 20 ms on an H200.
"""
PHASE_STEP = 12
"""How many frames later than the last one a stream comes due, modulo the largest chunk: FIRST_CHUNK times a number that meets all phases."""
CHECKED = 3
"""Utterances that the start decodes with each pass: not a divisor of a pass's streams, so that rows in a wrong order are heard."""
WRONG = 0.05
"""How much the sound of a captured pass may differ from an eager one's, as a part of the sound; FP16 rounds by far less."""
log = logging.getLogger("fishserve")


class VocoderStream:
    """Frames of one segment waiting to be decoded, each (codebooks,) int64. `ended` says that no more will come."""

    def __init__(self, codec: Codec, chunk: int = FIRST_CHUNK) -> None:
        self.stream: CodecStream = codec.stream()
        self.waiting: list[np.ndarray] = []
        self.chunk, self.ended = chunk, False
        self.flying = False
        """Its last pass is on its way. The next one would begin where that ends."""
        self.phase: int | None = None
        self.taken = 0

    @property
    def due(self) -> bool:
        """Whether there are frames enough for a pass, and nothing is on its way."""
        return not self.flying and bool(self.waiting) and (self.ended or len(self.waiting) >= self.chunk)

    def next_frames(self, most: int) -> int:
        """The frames in its next pass, a power of two up to `most`, which is one from FIRST_CHUNK to LARGEST_CHUNK.

        Only a stream's last frames may be filled up with others, whose sound is dropped.
        """
        waiting = min(len(self.waiting), most)
        return _pass_frames(waiting) if self.ended else 1 << (waiting.bit_length() - 1)


class Vocoder:
    """A codec's decoder, with graphs where the device has them.

    `frames_a_round` is how many frames it should decode at a time, `frames_beside` how many beside somebody's first sound, None for as many.
    `flying` are the passes on their way, oldest first.
    """

    def __init__(self, codec: Codec) -> None:
        self.flying: deque[Flying] = deque()
        self._phase = 0
        self._codec = codec
        captured = capture_passes(codec)
        self._passes, self.how = captured.graphs, captured.how
        self._alone = _device(codec).type == "cpu"
        self.frames_a_round = CPU_FRAMES if self._alone else STARTED_FRAMES
        self.frames_beside = CPU_FRAMES_BESIDE if self._alone else None

    @property
    def free(self) -> bool:
        """Whether more passes may start."""
        return len(self.flying) < MAX_FLYING

    def decode_due(self, due: Mapping[VocoderStream, int], enough: Callable[[], bool] = bool) -> Iterator[tuple[VocoderStream, np.ndarray]]:
        """Decode the next frames of each stream, as many as `next_frames` has said; samples (n,) float32, each as soon as they are there.

        With graphs it starts the passes, and returns what has arrived of these or of earlier ones. Without, it leaves what is not decoded yet
        for later once `enough` says so.
        Libraries compile a hundred kernels for each size of pass, and keep 1,024. So passes have few lengths, and on a CPU one stream,
        as several are hardly cheaper together.
        """
        batches: defaultdict[tuple[int, int], list[VocoderStream]] = defaultdict(list)
        for number, (stream, frames) in enumerate(due.items()):
            batches[frames, number if self._alone else 0].append(stream)
        for (frames, _), streams in batches.items():
            taken = [s.waiting[:frames] for s in streams]
            codes = torch.zeros(len(streams), self._codec.config.groups, frames, dtype=torch.int64)
            for row, part in zip(codes.numpy(), taken, strict=True):
                row[:, : len(part)] = np.stack(part, axis=1)
            if self._passes is not None:
                self._start(self._passes, streams, codes, [len(part) for part in taken])
                continue
            waves = decode_streams([s.stream for s in streams], codes.to(_device(self._codec)))
            for stream, part, wave in zip(streams, taken, waves.cpu().numpy(), strict=True):
                del stream.waiting[:frames]
                stream.chunk = min(2 * frames, LARGEST_CHUNK)
                yield stream, wave[: len(part) * SAMPLES_PER_FRAME]
            if enough():
                break
        yield from self._landed()

    def _start(self, passes: Passes, streams: list[VocoderStream], codes: Tensor, taken: list[int]) -> None:
        for part in passes.parts(len(streams), codes.shape[2]):
            sound = passes.launch([s.stream for s in streams[part]], codes[part])
            self.flying.append(Flying(streams[part], taken[part], sound))
            for stream, frames in zip(streams[part], taken[part], strict=True):
                del stream.waiting[:frames]
                stream.taken += codes.shape[2]
                stream.flying, stream.chunk = True, self._next_chunk(stream, codes.shape[2])

    def _landed(self) -> Iterator[tuple[VocoderStream, np.ndarray]]:
        """The sound that has arrived. Where a pass has failed, its streams stay `flying`: their sound never comes."""
        while self.flying:
            oldest = self.flying.popleft()
            if not oldest.sound.is_there():
                self.flying.appendleft(oldest)
                return
            for stream, frames, wave in zip(oldest.streams, oldest.frames, oldest.sound.samples.numpy(), strict=True):
                stream.flying = False
                yield stream, wave[: frames * SAMPLES_PER_FRAME]

    def _next_chunk(self, stream: VocoderStream, last: int) -> int:
        """Twice the last chunk. Once that is the largest, the stream's chunks end at its own phase, so that streams which began together
        come due one after the other.
        """
        if stream.phase is None:
            if 2 * last < LARGEST_CHUNK:
                return 2 * last
            stream.phase = self._phase
            self._phase = (self._phase + PHASE_STEP) % LARGEST_CHUNK
        return LARGEST_CHUNK - (stream.taken - stream.phase) % LARGEST_CHUNK


@dataclass(frozen=True)
class PendingSound:
    """Samples (streams, n) FP32 on their way to host memory; they are there once the event `arrived` has occurred."""

    samples: Tensor
    arrived: torch.cuda.Event | None

    def is_there(self) -> bool:
        """Whether they are there; it does not wait."""
        return self.arrived is None or self.arrived.query()

    def wait(self) -> Tensor:
        """Wait for them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.samples


@dataclass(frozen=True)
class Flying:
    """A pass on its way: its streams, and how many frames of each it decodes."""

    streams: list[VocoderStream]
    frames: list[int]
    sound: PendingSound


@dataclass
class _Pass:
    """The inputs and outputs of a pass over a fixed number of streams and frames. Without a graph it runs eagerly."""

    codes: Tensor
    pasts: Tensor
    graph: torch.cuda.CUDAGraph | None = None
    result: tuple[Tensor, Tensor] | None = None


class Passes:
    """Passes over the next frames of several streams. There are few numbers of either: for each pair the library chooses 56 kernels.

    A stream's past is one tensor, all layers concatenated.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec, device = codec, _device(codec)
        self._head: FusedHead | None = None
        silent = codec.stream()
        silent.decode(torch.zeros(codec.config.groups, 1, dtype=torch.int64, device=device))
        self._shapes = [_innermost(layer).shape[1:] for layer in silent.past]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._silence = silent.past[0].new_zeros(sum(self._sizes))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._passes: dict[tuple[int, int], _Pass] = {}

    def decode(self, streams: list[CodecStream], codes: Tensor) -> Tensor:
        """As `decode_streams`, with codes and samples on the CPU; this class keeps a stream's `past` in its own form. Waits only for the
        passes, as many as `launch` needs.
        """
        return torch.cat([self.launch(streams[part], codes[part]).wait() for part in self.parts(len(streams), codes.shape[2])])

    @staticmethod
    def parts(streams: int, frames: int) -> list[slice]:
        """The streams of each pass, where so many have so many frames."""
        most = _pass_rows(_pass_frames(frames))[-1]
        return [slice(i, i + most) for i in range(0, streams, most)]

    def launch(self, streams: list[CodecStream], codes: Tensor) -> PendingSound:
        """Start one pass over the next frames of streams that fit in it: codes (streams, groups, frames) on the CPU.

        The number of frames must be a power of two, at least FIRST_CHUNK. Only a stream's last frames may be any number: the pass pads them
        with frames whose sound is dropped.
        """
        frames = _pass_frames(codes.shape[2])
        rows = next(n for n in _pass_rows(frames) if n >= len(streams))
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            p = self._passes.get((rows, frames)) or self._pass(rows, frames)
            p.codes[: len(streams), :, : codes.shape[2]].copy_(codes.pin_memory() if self._stream else codes, non_blocking=True)
            torch.stack([s.past[0] if s.past else self._silence for s in streams], out=p.pasts[: len(streams)])
            if p.graph is not None:
                p.graph.replay()
            else:
                p.result = self._run(p)
            assert p.result is not None
            waves, pasts = (result[: len(streams)] for result in p.result)
            for stream, past in zip(streams, pasts.clone(), strict=True):
                stream.past = [past]
            waves = waves[:, : codes.shape[2] * SAMPLES_PER_FRAME]
            if self._stream is None:
                return PendingSound(waves, None)
            # Memory that is locked: only there a copy does not hold up the thread.
            landing = torch.empty(waves.shape, dtype=waves.dtype, pin_memory=True)
            return PendingSound(landing.copy_(waves, non_blocking=True), self._stream.record_event())

    def _pass(self, rows: int, frames: int) -> _Pass:
        codes = torch.zeros(rows, self._codec.config.groups, frames, dtype=torch.int64, device=self._silence.device)
        return _Pass(codes, self._silence.repeat(rows, 1))

    def fuse(self) -> None:
        """Run the head in kernels of our own from now on."""
        from inference.engine.cuda_vocoder import FusedHead  # Triton comes with torch for CUDA, and nothing else needs it

        self._head = FusedHead(self._codec.head, sum(self._sizes[: self._before_head]))

    @property
    def _before_head(self) -> int:
        """The quantizer's layers that have a past: they run before the head's."""
        return 2 * len(self._codec.quantizer.upsample)

    def _run(self, p: _Pass) -> tuple[Tensor, Tensor]:
        rows = len(p.codes)
        layers = zip(p.pasts.split(self._sizes, dim=1), self._shapes, strict=True)
        history = History([_outermost(part.view(rows, *shape)) for part, shape in layers])
        if self._head is None:
            waves = self._codec.decode_next(p.codes, history)
            return waves, _joined(history.past)
        features = self._codec.quantizer.decode(p.codes, history).transpose(1, 2).contiguous()
        kept, before = torch.empty_like(p.pasts), _joined(history.past[: self._before_head])
        kept[:, : before.shape[1]] = before
        return self._head.run(features, p.pasts, kept), kept

    def run_eagerly(self, size: tuple[int, int]) -> None:
        """Compute a pass of so many streams and frames without a graph."""
        self._run(self._pass(*size))

    def capture(self) -> None:
        """Capture every pass, on the stream it will run on."""
        assert self._stream is not None
        started, pool = time.monotonic(), torch.cuda.graph_pool_handle()
        for rows, frames in pass_sizes():
            p = self._passes[rows, frames] = self._pass(rows, frames)
            p.graph, p.result = capture(partial(self._run, p), self._stream, pool)
        log.info("captured %d graphs of the codec's decoder in %.1f s", len(self._passes), time.monotonic() - started)

    def check(self) -> None:
        """Decode two chunks with every pass. Raises RuntimeError if the sound differs from the codec's eager result.

        Rows take a few utterances in turn, whose eager sound is that of one shape: others would make the library choose kernels for each.
        """
        shape = CHECKED, self._codec.config.groups, 2 * LARGEST_CHUNK
        codes = torch.arange(math.prod(shape)).mul_(7919).remainder_(CODES_PER_GROUP).view(shape)
        theirs = torch.cat([self._codec.decode(one[None].to(_device(self._codec))).cpu() for one in codes])
        for rows, frames in self._passes:
            which = torch.arange(rows) % CHECKED
            streams, heard = [self._codec.stream() for _ in range(rows)], codes[which, :, : 2 * frames]
            ours = torch.cat([self.decode(streams, part) for part in heard.split(frames, dim=2)], dim=1)
            right = theirs[which, : ours.shape[1]]
            if not (ours - right).norm() <= WRONG * right.norm():
                raise RuntimeError(f"graph of {rows} streams and {frames} frames: other sound than the codec makes eagerly")


def capture_passes(codec: Codec) -> Captured[Passes]:
    """Captured and checked passes. Where our own kernels cannot be used, the library's convolutions are captured."""
    device = _device(codec)

    def passes(fused: bool) -> Passes:
        with torch.cuda.device(device), torch.inference_mode():
            captured = Passes(codec)
            if fused:
                from inference.engine.kernel_cache import compile_at_once  # Triton comes with torch for CUDA, and nothing else needs it

                captured.fuse()
                compile_at_once(captured.run_eagerly, pass_sizes(), torch.cuda.get_device_capability(device))
            captured.capture()
            captured.check()
        return captured

    ways = [(GRAPHS, partial(passes, True)), ("graphs of the library's convolutions", partial(passes, False))]
    return capture_first("codec", "decoding takes several times as long", device, ways, lambda: None)


def pass_sizes() -> list[tuple[int, int]]:
    """Streams and frames of the passes that are captured. The largest come first, so that the others can reuse their memory."""
    lengths = [n for n in reversed(powers(LARGEST_CHUNK)) if n >= FIRST_CHUNK]
    return [(rows, frames) for frames in lengths for rows in reversed(_pass_rows(frames))]


def _joined(pasts: Sequence[Tensor]) -> Tensor:
    """The pasts of several layers, (streams, values)."""
    return torch.cat([_innermost(layer).reshape(len(layer), -1) for layer in pasts], dim=1)


def _pass_frames(frames: int) -> int:
    """The smallest pass for so many frames."""
    return max(FIRST_CHUNK, 1 << (frames - 1).bit_length())


def _pass_rows(frames: int) -> list[int]:
    """The numbers of streams that passes of so many frames take."""
    return powers(max(1, CAPTURED_FRAMES // frames))


def _device(codec: Codec) -> torch.device:
    return codec.spec_transform.window.device


def _innermost(layer: Tensor) -> Tensor:
    """A layer's past in memory order: channels last where it is an image."""
    return layer.movedim(1, -1) if layer.ndim == 4 else layer


def _outermost(layer: Tensor) -> Tensor:
    return layer.movedim(-1, 1) if layer.ndim == 4 else layer
