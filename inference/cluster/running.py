"""Starts the application: on a Ray cluster of this machine alone, or on one that runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from inference.cluster.application import build
from inference.cluster.doors import APP
from inference.cluster.options import Options

PROXY_CHECK_SECONDS = 2
"""How often Ray Serve looks at a proxy, which it starts again after three failures; every 10 s without this."""
OBJECT_STORE_BYTES = 512 << 20
"""Only clips are large enough to go through Ray's store."""


@contextmanager
def alone(options: Options, host: str, port: int) -> Iterator[None]:
    """The application, ready, on a Ray cluster of this machine. Both end with the block, and with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", str(PROXY_CHECK_SECONDS))
    # Ray divides cores that it is told of: as many as the replicas ask for and one more of each, which an upgrade starts beside them.
    cores = math.ceil(options.doors + 1 + (options.max_replicas + 1) * options.cores)
    ray.init("local", num_cpus=max(cores, os.cpu_count() or 1), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES)
    try:
        _deploy(options, host, port)
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(options: Options, host: str, port: int) -> None:
    """Start the application on the Ray cluster that RAY_ADDRESS names, else on the one of this machine, and wait until it is ready.

    One that runs there already is upgraded: its replicas are replaced one after another, and finish their streams.
    """
    ray.init("auto", log_to_driver=False)
    _deploy(options, host, port)


def _deploy(options: Options, host: str, port: int) -> None:
    serve.start(http_options=HTTPOptions(host=host, port=port), proxy_location="EveryNode")
    serve.run(build(options), name=APP)
