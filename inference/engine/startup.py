"""Loads a checkpoint and an engine as settings say, for the server, the worker and the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.engine.calibration import with_stored_heads
from inference.engine.device import pick_device
from inference.engine.engine import SpeechEngine
from inference.engine.request import SpeechRequest
from inference.hub import complete, locate
from inference.model import checkpoint as checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from inference.model.checkpoint import Checkpoint
    from inference.settings import Settings


def load_checkpoint(where: Path, settings: Settings) -> Checkpoint:
    """Load what `locate` has found. Raises CheckpointError when it is not usable, PrecisionError when it breaks the precision policy."""
    checkpoint = checkpoints.load(complete(where, settings.codec, settings.adapter), pick_device(settings.device), settings.cache_dir)
    return with_stored_heads(checkpoint, settings.voices_dir)


def engine_for(checkpoint: Checkpoint, settings: Settings, slots: int | None = None) -> SpeechEngine:
    """An engine with the options of `settings`; `slots`, if given, replaces theirs."""
    return SpeechEngine(checkpoint, slots or settings.slots, settings.queue, settings.cpu_weights, settings.kv_bytes)


def start_engine(settings: Settings) -> SpeechEngine:
    """Load an engine and have it speak once. Raises the same errors as `locate` and `load_checkpoint`."""
    engine = engine_for(load_checkpoint(locate(settings.checkpoint), settings), settings)
    engine.synthesize(SpeechRequest("Warming up.", seed=0, max_new_tokens=8))
    return engine
