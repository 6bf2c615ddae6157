"""`python -m worker`: loads the engine, then takes jobs from RunPod's queue until it is told to stop."""

from __future__ import annotations

import os
import time
from typing import Any

import prometheus_client
import psutil

from inference.engine.engine import SpeechEngine
from inference.engine.request import SpeechRequest
from inference.errors import FishserveError
from inference.hub import name_of
from inference.settings import read
from inference.voices.store import VoiceStore
from worker.handler import Handler
from worker.storage import Storage


def main() -> None:
    """Load, warm up, say how long that took, and serve. What keeps the model from being loaded is said by a fitness check."""
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # at DEBUG its SDK writes what jobs say and hear into the log
    import runpod

    try:
        engine, voices = _engine()
    except FishserveError as e:
        _unfit(runpod, str(e))
        return
    c = engine.checkpoint
    weights = str(next(c.lm.parameters()).dtype).removeprefix("torch.")
    seconds = time.time() - psutil.Process().create_time()
    print(f"ready in {seconds:.1f} s: {name_of(c.path)} on {c.device}, {weights}, {engine.rows} jobs at once", flush=True)
    handler = Handler(engine, voices, Storage.from_environment(), runpod.serverless.progress_update)

    async def piece_by_piece(job: dict[str, Any]) -> Any:
        async for item in handler(job):
            yield item

    async def at_once(job: dict[str, Any]) -> Any:
        items = [item async for item in handler(job)]
        return items[-1] if "error" in items[-1] else items

    # The SDK's way to try a job out (--test_input) knows no generators.
    queue = "RUNPOD_WEBHOOK_GET_JOB" in os.environ
    runpod.serverless.start(
        {"handler": piece_by_piece if queue else at_once, "return_aggregate_stream": True, "concurrency_modifier": lambda _: engine.rows}
    )


def _engine() -> tuple[SpeechEngine, VoiceStore]:
    """The engine of the settings, warm, and the voices it may speak with."""
    s = read()
    if s.metrics_port:
        prometheus_client.start_http_server(s.metrics_port)
    engine = SpeechEngine.load(
        s.checkpoint, s.device, rows=s.rows, queue=s.queue, weights=s.cpu_weights, kv_bytes=s.kv_bytes, copies=s.cache_dir
    )
    engine.synthesize(SpeechRequest("Warming up.", seed=0, max_new_tokens=8))
    return engine, VoiceStore(s.voices_dir)


def _unfit(runpod: Any, reason: str) -> None:
    """End as a failed fitness check does: the worker counts as unhealthy, before it has taken a job."""

    def the_model_can_be_loaded() -> None:
        raise RuntimeError(reason)

    async def refuse(_: dict[str, Any]) -> dict[str, str]:
        return {"error": reason}

    runpod.serverless.register_fitness_check(the_model_can_be_loaded)
    runpod.serverless.start({"handler": refuse})


if __name__ == "__main__":
    main()
