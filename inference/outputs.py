"""The files that commands write: checked before any work, and what `fishserve say` speaks into them."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from inference.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from rich.progress import Progress

    from inference import Audio, SpeechEngine, SpeechRequest
    from inference.engine.request import GuardReport


@dataclass(frozen=True)
class Outputs:
    """Where `fishserve say` writes: the WAV file, `-` for standard output, and what else is asked for beside it."""

    wav: Path
    codes: Path | None = None
    srt: Path | None = None
    vtt: Path | None = None
    words: Path | None = None

    @property
    def need_words(self) -> bool:
        """Whether a file says when words are heard."""
        return bool(self.srt or self.vtt or self.words)

    def check(self) -> None:
        """As `check_writable`."""
        check_writable(self.wav, self.codes, self.srt, self.vtt, self.words)


def speak(engine: SpeechEngine, request: SpeechRequest, outputs: Outputs, console: Console) -> None:
    """Speak into a file, or to standard output while generating, then report the speed and what the guard found."""
    from inference import Audio
    from inference.audio.write import pcm16, wav, wav_header

    chunks: list[Audio] = []
    seconds, live = 0.0, str(outputs.wav) == "-"
    if not live:
        request = replace(request, guard_look_ahead=math.inf)  # nobody hears a file before it is whole
    with _progress(console) as progress, engine.stream(request) as stream, writing(outputs.wav):
        task = progress.add_task("", total=None, seconds=0.0, speed=0.0)
        started = time.perf_counter()
        if live:
            sys.stdout.buffer.write(wav_header(engine.sample_rate))
        for chunk in stream:
            chunks.append(chunk)
            seconds += chunk.seconds
            progress.update(task, seconds=seconds, speed=seconds / (time.perf_counter() - started))
            if live:
                sys.stdout.buffer.write(pcm16(chunk.samples))
                sys.stdout.buffer.flush()
        audio = Audio.joined(chunks)
        if not live:
            outputs.wav.write_bytes(wav(audio.samples, engine.sample_rate))
    if outputs.codes is not None and stream.codes is not None:
        save_codes(outputs.codes, stream.codes)
    _write_captions(outputs, request.text, audio)
    elapsed = time.perf_counter() - started
    cut = "; the length limit cut it" if stream.finish_reason == "length" else ""
    console.print(f"{outputs.wav}: {seconds:.2f} s of speech in {elapsed:.2f} s, {seconds / elapsed:.2f} times real time{cut}")
    if audio.guard and audio.guard.faults:
        _report_faults(audio.guard, console)


def _report_faults(report: GuardReport, console: Console) -> None:
    faults = ", ".join(f"{count} x {fault}" for fault, count in Counter(report.faults).items())
    done = f"retries: {report.retries}; rests spoken as new segments: {report.rests}; segments sent with a fault: {report.unmended}"
    console.print(f"quality guard: found {faults}; {done}", style="yellow" if report.unmended else None)


def _write_captions(outputs: Outputs, text: str, audio: Audio) -> None:
    from inference.text.captions import srt, vtt, words_json

    for path, made in ((outputs.srt, srt), (outputs.vtt, vtt), (outputs.words, words_json)):
        if path is not None:
            with writing(path):
                path.write_text(made(text, audio.words), encoding="utf-8")


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("speaking"),
        BarColumn(),
        TextColumn("{task.fields[seconds]:.1f} s, {task.fields[speed]:.1f}x real time"),
        console=console,
        transient=True,
    )


def check_writable(*paths: Path | None) -> None:
    """Raise RequestError for a path that cannot be written, before any work. An existing file stays as it is."""
    for path in paths:
        if path is None or str(path) == "-":
            continue
        if not path.parent.is_dir():
            raise RequestError(f"cannot write {path}: there is no directory {path.parent}")
        with writing(path):
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()


def save_codes(path: Path, codes: np.ndarray) -> None:
    """Write codes as a .npy file. Raises RequestError."""
    import numpy as np

    with writing(path), path.open("wb") as file:  # a file object, since numpy adds .npy to names
        np.save(file, codes)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises RequestError for an OSError of the work inside."""
    try:
        yield
    except OSError as e:
        raise RequestError(f"cannot write {path}: {e.strerror or e}") from None
