"""The engine on a stand-in for a GPU that takes as long as one did: `python -m bench.timed_device`.

Everything but the device is real: requests, scheduling, which sound is made when. So it says what a change of these brings on a GPU that
nobody has at hand. Its first use, with the times of an H200's first run, gave 337 seconds of speech a second where the H200 gave 314, and
80 ms to the first audio of 95 % where it gave 77.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from bench.host import Frames, Samples
from bench.record import Record, facts, recording
from bench.stats import percentiles
from inference import Audio, SpeechEngine, SpeechRequest
from inference.engine.graphs import Graphs, PendingFrames
from inference.engine.prefill import Piece, PrefillGraphs
from inference.engine.runner import WINDOW
from inference.engine.stream import Item
from inference.engine.vocoder import CAPTURED_FRAMES, STARTED_FRAMES, PendingSound
from inference.hub import locate
from inference.model import checkpoint as checkpoints
from inference.model.checkpoint import Checkpoint
from inference.model.codec import CodecStream
from inference.model.dual_ar import KVCache

FRAME = {1: 0.96e-3, 2: 1.4e-3, 4: 1.5e-3, 8: 1.5e-3, 64: 2.2e-3}
"""Seconds of a frame of so many rows, from bench/results/gpu-frame-variants.json and gpu-frame-tiles.json."""
PREFILL = 1e-3
"""Of a pass over prompts: docs/gpu.md's arithmetic. None was measured."""
VOCODER = {4: (1.19, 2.9), 8: (1.25, 2.76), 16: (1.33, 2.48), 32: (1.61, 2.67)}
"""Milliseconds of a pass over so many frames of one stream, and of as many streams as have 128 frames, from gpu-frames.json."""
BESIDE = 1.2
"""How much longer a pass takes while frames are computed: a guess. An H200 made a third less sound a second than it led to (docs/gpu.md)."""
SENTENCE = "This is one sentence, and it is spoken for as long as it is measured. "
MEAN_FRAMES, MAX_FRAMES = 170, 1500
"""Of a segment: drawn from an exponential distribution, as with random weights."""


class _Arrival:
    """In the place of a CUDA event: it occurs at a time."""

    def __init__(self, at: float) -> None:
        self._at = at

    def synchronize(self) -> None:
        time.sleep(max(0.0, self._at - time.perf_counter()))

    def query(self) -> bool:
        return time.perf_counter() >= self._at


class _Clock:
    """Until when the device's two streams, of frames and prompts and of sound, are busy."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {"frames": 0.0, "sound": 0.0}
        self.busy = dict.fromkeys(self.until, 0.0)

    def run(self, stream: str, seconds: float) -> Any:
        """Queue work on a stream; what occurs when it is done."""
        self.until[stream] = max(self.until[stream], time.perf_counter()) + seconds
        self.busy[stream] += seconds
        return _Arrival(self.until[stream])


class _Graphs(Graphs):
    def __init__(self, clock: _Clock, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clock = clock

    def launch(self, rows: int) -> PendingFrames:
        frames = super().launch(rows).frames
        return PendingFrames(frames, self._clock.run("frames", FRAME[next(n for n in FRAME if n >= rows)]))


class _Prompts(PrefillGraphs):
    def __init__(self, clock: _Clock, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clock = clock

    def launch(self, pieces: Sequence[Piece]) -> list[Tensor]:
        self._clock.run("frames", PREFILL)
        return super().launch(pieces)


class _Nothing:
    """In the place of `inference.engine.cuda_prefill.FusedPrefill`."""

    def run(self, columns: Tensor, blocks: Tensor, cache: KVCache, hidden: Tensor) -> None:
        pass


class _Samples(Samples):
    def __init__(self, clock: _Clock, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._clock = clock

    def launch(self, streams: list[CodecStream], codes: Tensor) -> PendingSound:
        frames = max(4, 1 << (codes.shape[2] - 1).bit_length())
        rows, most = 1 << (len(streams) - 1).bit_length(), CAPTURED_FRAMES // frames
        one, all_ = VOCODER[frames]
        seconds = (one + (all_ - one) * (rows - 1) / (most - 1)) * BESIDE / 1000
        return PendingSound(super().launch(streams, codes).samples, self._clock.run("sound", seconds))


class TimedEngine(SpeechEngine):
    """An engine whose device takes the times above, and always makes the same frame and silence."""

    def __init__(self, checkpoint: Checkpoint, rows: int, queue: int) -> None:
        self.clock, self._ready = _Clock(), threading.Event()
        super().__init__(checkpoint, rows, queue)
        runner, step = self._runner, Frames(checkpoint)
        runner._graphs = _Graphs(self.clock, step, runner._cache, rows, step.codebooks, WINDOW)
        runner._prefill_graphs = _Prompts(self.clock, _Nothing(), runner._cache, step.codebooks, checkpoint.lm.embeddings.weight)
        vocoder = self._vocoder
        vocoder._passes, vocoder._alone = _Samples(self.clock, checkpoint.codec, rows), False
        vocoder.frames_a_round, vocoder.frames_beside, self._scheduler._holds = STARTED_FRAMES, None, False
        self._ready.set()

    def _loop(self) -> None:
        self._ready.wait()
        super()._loop()


@dataclass
class Heard:
    """What the clients of a run heard."""

    firsts: list[float]
    seconds: float = 0.0
    requests: int = 0


def run(engine: TimedEngine, clients: int, seconds: float) -> Heard:
    """As many clients as that, each with its next request as soon as its last has ended, for so long."""
    rng, heard, free, changed = random.Random(0), Heard([]), deque(range(clients)), threading.Event()

    def start(client: int) -> None:
        sentences, limit = rng.choice((1, 1, 1, 6)), min(MAX_FRAMES, 5 + int(rng.expovariate(1 / MEAN_FRAMES)))
        began, unheard = time.perf_counter(), True

        def deliver(item: Item) -> None:
            nonlocal unheard
            if not isinstance(item, Audio):
                heard.requests += 1
                free.append(client)
                changed.set()
            elif len(item.samples):
                if unheard:
                    heard.firsts.append(time.perf_counter() - began)
                unheard = False
                heard.seconds += len(item.samples) / engine.sample_rate

        engine.submit(SpeechRequest(SENTENCE * sentences, seed=rng.randrange(2**40), max_new_tokens=limit), deliver)

    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        while free:
            start(free.popleft())
        changed.wait(0.01)
        changed.clear()
    return heard


def main(
    clients: Annotated[str, typer.Option(help="Numbers of clients.")] = "1,64,100",
    rows: Annotated[int, typer.Option(help="Requests generated at once.")] = 64,
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 8.0,
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON file to write.")] = Path("bench/results/timed-device.json"),
) -> None:
    """Seconds of speech a second, and time to the first audio, of the engine on a GPU that takes as long as an H200 did."""
    checkpoint = checkpoints.load(locate(None), torch.device("cpu"))
    levels = [int(n) for n in clients.split(",")]
    with recording(out, "timed-device", {"clients": levels, "rows": rows, "seconds": seconds}, facts(checkpoint)) as record:
        measure(checkpoint, levels, rows, seconds, record)
    for found in record.runs:
        typer.echo(found)


def measure(checkpoint: Checkpoint, levels: list[int], rows: int, seconds: float, record: Record) -> None:
    """One run for each number of clients, on an engine of its own."""
    for clients in levels:
        engine = TimedEngine(checkpoint, rows, queue=2 * clients)
        heard = run(engine, clients, seconds)
        busy = {stream: spent / seconds for stream, spent in engine.clock.busy.items()}
        engine.close()
        speech = heard.seconds / seconds
        record.runs.append(
            {"clients": clients, "requests": heard.requests, "speech": speech, "busy": busy, "first_audio": percentiles(heard.firsts)}
        )
        record.write()


if __name__ == "__main__":
    typer.run(main)
