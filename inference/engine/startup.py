"""Loads an engine as settings say and warms it up, for processes that serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.engine.engine import SpeechEngine
from inference.engine.request import SpeechRequest

if TYPE_CHECKING:
    from inference.settings import Settings


def start_engine(settings: Settings) -> SpeechEngine:
    """Load an engine and have it speak once. Raises the same errors as SpeechEngine.load."""
    s = settings
    engine = SpeechEngine.load(
        s.checkpoint, s.device, slots=s.slots, queue=s.queue, weights=s.cpu_weights, kv_bytes=s.kv_bytes, copies=s.cache_dir
    )
    engine.synthesize(SpeechRequest("Warming up.", seed=0, max_new_tokens=8))
    return engine
