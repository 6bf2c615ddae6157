"""The Ray Serve application: what `fishserve cluster run`, `serve run`, `serve deploy` and KubeRay start.

`import_path: inference.cluster.application:build`
"""

import math
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from inference.cluster.doors import DOORS, ENGINE, Doors
from inference.cluster.engine_replica import EngineReplica
from inference.cluster.options import Options
from inference.cpu_threads import SPINS
from inference.settings import Settings, read

DRAIN_SECONDS = 3600.0
"""How long a replica that is replaced may finish its streams: longer than all but the longest texts take."""
HEALTH_SECONDS = 5.0
COUNT_SECONDS = 5.0
"""How often requests are counted; Ray Serve wants this to be less than the time over which it takes their mean."""
QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
"""The doors write a line for each request themselves."""
MAX_CALLS = 10_000
"""Calls to a replica at once: more than it can have, since the engine itself refuses what is too much."""
MAX_CONVERSATIONS = 1_000
"""Requests and idle WebSockets of one replica of the doors."""
SLOTS, CUDA_SLOTS = 8, 64
"""What an engine takes at once when no setting says so (`inference.engine.device`)."""


# Ray Serve reads the annotation to build the options, so this module must not have its annotations as text.
def build(options: Options) -> Application:
    """The doors before the engines. Raises ConfigurationError for a setting that cannot be used."""
    settings = _plain(read(**options.settings))
    slots = settings["slots"] or (CUDA_SLOTS if options.engine_gpus else SLOTS)
    router = RequestRouterConfig(
        request_router_class="inference.cluster.router.SpeechRouter",
        request_router_kwargs={"routing": options.routing, "keep": max(1, slots // 2)},
    )
    shared: dict[str, Any] = {
        "graceful_shutdown_timeout_s": DRAIN_SECONDS, "graceful_shutdown_wait_loop_s": 0.5, "health_check_period_s": HEALTH_SECONDS,
        "logging_config": QUIET,
    }  # fmt: skip
    engine = serve.deployment(
        EngineReplica, name=ENGINE, max_ongoing_requests=MAX_CALLS, ray_actor_options=_actor(options), request_router_config=router,
        **shared, **_replicas(options, slots),
    )  # fmt: skip
    doors = serve.deployment(
        serve.ingress()(Doors), name=DOORS, max_ongoing_requests=MAX_CONVERSATIONS, ray_actor_options={"num_cpus": 1},
        num_replicas=options.doors, **shared,
    )  # fmt: skip
    return doors.bind(engine.bind(settings), settings, options.min_replicas == 0)


def __getattr__(name: str) -> Application:
    """`app` is the application with the defaults, for `serve build`, which takes no function."""
    if name == "app":
        return build(Options.model_validate({}))
    raise AttributeError(name)


def _plain(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values, with paths that mean the same in every process."""
    paths = {name: str(value.absolute()) for name, value in settings if isinstance(value, Path)}
    return settings.model_dump(mode="json") | paths


def _replicas(options: Options, slots: int) -> dict[str, Any]:
    """A fixed number of engines, or autoscaling by running and waiting requests."""
    if options.min_replicas == options.max_replicas:
        return {"num_replicas": options.min_replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=options.min_replicas, initial_replicas=max(1, options.min_replicas), max_replicas=options.max_replicas,
            target_ongoing_requests=options.busy or _busy(options, slots), metrics_interval_s=COUNT_SECONDS, look_back_period_s=10,
            upscale_delay_s=5, downscale_delay_s=300, downscale_to_zero_delay_s=options.idle_seconds,
        )
    }  # fmt: skip


def _busy(options: Options, slots: int) -> float:
    """Requests of a replica that has work and room. A GPU gives many streams a frame in about the time that one takes; a core is slower with
    each, and nearly 60% busy with a quarter of its slots (docs/scale.md)."""
    return max(1.0, slots / (2 if options.engine_gpus else 4))


def _actor(options: Options) -> dict[str, Any]:
    """What a replica's process gets. How idle threads wait must be known before it loads torch (`inference.cpu_threads`)."""
    threads = str(max(1, math.floor(options.cores)))
    variables = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
    return {"num_cpus": options.cores, "num_gpus": options.engine_gpus, "runtime_env": {"env_vars": variables}}
