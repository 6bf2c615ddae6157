"""Loads a checkpoint and an engine as settings say, for the server, the worker and the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.engine.calibration import calibrate, is_settled, store, with_heads, with_stored_heads
from inference.engine.device import pick_device, usual_kv_bytes
from inference.engine.engine import SpeechEngine
from inference.engine.request import SpeechRequest
from inference.errors import GenerationError, RequestError
from inference.hub import complete, locate
from inference.model import checkpoint as checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from inference.model.checkpoint import Checkpoint
    from inference.settings import Settings


WARMING_TEXTS = {"cpu": ["Warming up."], "cuda": ["Warming up.", "Warming up before anybody speaks. " * 3, "Warming up. " * 15]}
"""On CUDA prompts of several lengths: the library chooses a kernel for each range of them, and loads it at its first use."""


def load_checkpoint(where: Path, settings: Settings) -> Checkpoint:
    """Load what `locate` has found. Raises CheckpointError when it is not usable, PrecisionError when it breaks the precision policy."""
    checkpoint = checkpoints.load(complete(where, settings.codec, settings.adapter), pick_device(settings.device), settings.cache_dir)
    return with_stored_heads(checkpoint, settings.voices_dir)


def engine_for(checkpoint: Checkpoint, settings: Settings, slots: int | None = None) -> SpeechEngine:
    """An engine with the options of `settings`; `slots`, if given, replaces theirs."""
    kv_bytes = settings.kv_bytes or usual_kv_bytes(checkpoint.device, settings.replicas)
    return SpeechEngine(
        checkpoint, slots or settings.slots, settings.queue, settings.weights, kv_bytes, settings.quality_guard, settings.fast_layers
    )


def start_engine(settings: Settings, calibrated: Callable[[str], None] | None = None) -> SpeechEngine:
    """Load an engine and have it speak once. Raises the same errors as `locate` and `load_checkpoint`.

    With `calibrated`, which gets a sentence about the result, a model that nobody has looked at is searched for heads that follow the text,
    unless the settings say not to.
    """
    checkpoint = load_checkpoint(locate(settings.checkpoint), settings)
    if calibrated and settings.calibrate_times and not is_settled(checkpoint, settings.voices_dir):
        checkpoint = _calibrate(checkpoint, settings, calibrated)
    engine = engine_for(checkpoint, settings)
    for text in WARMING_TEXTS[engine.checkpoint.device.type]:
        engine.synthesize(SpeechRequest(text, seed=0, max_new_tokens=8))
    return engine


def _calibrate(checkpoint: Checkpoint, settings: Settings, say: Callable[[str], None]) -> Checkpoint:
    """The checkpoint with the heads that were found. The engine that looks for them ends before the server's own begins."""
    try:
        with engine_for(checkpoint, settings, slots=1) as engine:
            choice = calibrate(engine, lambda _: None)
    except (GenerationError, RequestError) as e:
        say(f"word times stay estimates: {e}")
        return checkpoint
    try:
        kept = f"stored in {store(settings.voices_dir, checkpoint, choice)}"
    except OSError as e:
        kept = f"not stored, so that the next start looks again: {e.strerror}"
    say(f"word times, {choice}; {kept}")
    return with_heads(checkpoint, choice.heads)
