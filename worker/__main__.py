"""`python -m worker`: loads the engine, then takes jobs from RunPod's queue until it is told to stop."""

from __future__ import annotations

import os
import sys
import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

from inference import tracing
from inference.errors import FishserveError, MissingExtra
from inference.extras import needs
from inference.importing import without_collector

if TYPE_CHECKING:
    from inference import SpeechEngine
    from inference.voices.store import VoiceStore


def main() -> None:
    """Run the worker. A missing package and Ctrl-C end it without a traceback."""
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # at DEBUG RunPod's SDK logs the jobs' input and output
    try:
        with needs("worker", "`python -m worker`"):
            for package in ("psutil", "worker.handler", "runpod"):  # before a model is loaded
                import_module(package)
        serve()
    except MissingExtra as e:
        sys.exit(f"error: {e}")
    except KeyboardInterrupt:
        sys.exit(130)


def serve() -> None:
    """Load, warm up, report how long that took, and take jobs. If the model cannot be loaded, it reports a failed fitness check."""
    import psutil
    import runpod

    from inference.hub import name_of
    from worker.handler import Handler
    from worker.lost_engine import jobs_of_the_sdk, watch
    from worker.storage import Storage

    try:
        engine, voices = _engine()
    except FishserveError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)  # outside RunPod nobody asks for the fitness check
        _unfit(runpod, str(e))
        return
    c = engine.checkpoint
    weights = str(next(c.lm.parameters()).dtype).removeprefix("torch.")
    seconds = time.time() - psutil.Process().create_time()
    print(f"ready in {seconds:.1f} s: {name_of(c.path)} on {c.device}, {weights}, {engine.slots} jobs at once", flush=True)
    handler = Handler(engine, voices, Storage.from_environment(), runpod.serverless.progress_update)
    ends_in_order = threading.Event()
    watch(engine, lambda: jobs_of_the_sdk() - handler.left, ends_in_order)

    async def piece_by_piece(job: dict[str, Any]) -> Any:
        async for item in handler(job):
            yield item

    async def at_once(job: dict[str, Any]) -> Any:
        items = [item async for item in handler(job)]
        return items[-1] if "error" in items[-1] else items

    # The SDK's test mode (--test_input) does not support generators.
    queue = "RUNPOD_WEBHOOK_GET_JOB" in os.environ
    try:
        runpod.serverless.start(
            {
                "handler": piece_by_piece if queue else at_once,
                "return_aggregate_stream": True,
                "concurrency_modifier": lambda _: engine.slots,
            }
        )
    finally:
        ends_in_order.set()


def _engine() -> tuple[SpeechEngine, VoiceStore]:
    """The warmed-up engine that the settings describe, and the voices it may use."""
    with without_collector():
        from inference.engine.startup import start_engine
    from inference.http.metrics import exposition
    from inference.http.small_server import SmallServer
    from inference.settings import read
    from inference.voices.choice import open_store

    s = read()
    if s.metrics_port:
        SmallServer("0.0.0.0", s.metrics_port, lambda _: (200, *exposition()))
    tracing.start()
    engine, voices = start_engine(s), open_store(s.voices_dir, s.voices_bucket)
    voices.start()
    return engine, voices


def _unfit(runpod: Any, reason: str) -> None:
    """Exit as after a failed fitness check: RunPod counts the worker as unhealthy before it has taken a job."""

    def the_model_can_be_loaded() -> None:
        raise RuntimeError(reason)

    async def refuse(_: dict[str, Any]) -> dict[str, str]:
        return {"error": reason}

    runpod.serverless.register_fitness_check(the_model_can_be_loaded)
    runpod.serverless.start({"handler": refuse})


if __name__ == "__main__":
    main()
