"""fishserve's engine: FishSpeech 1.5 text to speech on one machine.

    engine = SpeechEngine.load("path/to/checkpoint")
    for chunk in engine.stream(SpeechRequest("Hello.", seed=1)):
        play(chunk.samples, chunk.sample_rate)

Each name is imported on first use, so that a process that only forwards requests does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.engine.engine import SpeechEngine
    from inference.engine.request import Audio, FinishReason, SpeechRequest
    from inference.engine.stream import AsyncSpeechStream, RequestHandle, SpeechStream
    from inference.errors import (
        AudioError,
        CheckpointError,
        ConfigurationError,
        DictionaryExists,
        DictionaryNotFound,
        EngineClosed,
        FishserveError,
        GenerationError,
        MissingExtra,
        NotReady,
        Overloaded,
        PrecisionError,
        RequestError,
        VoiceExists,
        VoiceNotFound,
        VoicesUnavailable,
    )
    from inference.text.words import Word
    from inference.voices.voice import Reference, Voice

__all__ = [
    "AsyncSpeechStream",
    "Audio",
    "AudioError",
    "CheckpointError",
    "ConfigurationError",
    "DictionaryExists",
    "DictionaryNotFound",
    "EngineClosed",
    "FinishReason",
    "FishserveError",
    "GenerationError",
    "MissingExtra",
    "NotReady",
    "Overloaded",
    "PrecisionError",
    "Reference",
    "RequestError",
    "RequestHandle",
    "SpeechEngine",
    "SpeechRequest",
    "SpeechStream",
    "Voice",
    "VoiceExists",
    "VoiceNotFound",
    "VoicesUnavailable",
    "Word",
]

_HOMES = {
    "AsyncSpeechStream": "inference.engine.stream",
    "FinishReason": "inference.engine.request",
    "SpeechEngine": "inference.engine.engine",
    "SpeechStream": "inference.engine.stream",
    "RequestHandle": "inference.engine.stream",
    "Audio": "inference.engine.request",
    "SpeechRequest": "inference.engine.request",
    "Reference": "inference.voices.voice",
    "Voice": "inference.voices.voice",
    "Word": "inference.text.words",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from inference.importing import without_collector

    try:
        with without_collector():
            home = import_module(_HOMES.get(name, "inference.errors"))
    except ModuleNotFoundError as e:
        from inference.extras import explained

        error = explained(e, "engine", f"inference.{name}")
        raise ModuleNotFoundError(str(error), name=e.name) from e
    return getattr(home, name)
