"""Starts the application: on a Ray cluster of this machine alone, or on one that runs."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from inference.cluster.application import QUIET, build
from inference.cluster.doors import APP
from inference.cluster.options import Options, missing
from inference.errors import ConfigurationError

PROXY_CHECK_SECONDS = 2
"""How often Ray Serve looks at a proxy, which it starts again after three failures; every 10 s without this."""
OBJECT_STORE_BYTES = 512 << 20
"""Only clips are large enough to go through Ray's store."""
REACH_SECONDS = 10.0


@contextmanager
def alone(options: Options, host: str, port: int) -> Iterator[None]:
    """The application, ready, on a Ray cluster of this machine. Both end with the block, and with this process."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", str(PROXY_CHECK_SECONDS))
    # Ray divides cores that it is told of: as many as the replicas ask for and one more of each, which an upgrade starts beside them.
    cores = math.ceil(options.doors + 1 + (options.max_replicas + 1) * options.cores)
    ray.init(
        "local", num_cpus=max(cores, os.cpu_count() or 1), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
    )  # fmt: skip
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        _deploy(options, host, port, QUIET)
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(options: Options, host: str, port: int, say: Callable[[str], None]) -> None:
    """Start the application on the Ray cluster that RAY_ADDRESS names, else on the one of this machine, and wait until it is ready.

    One that runs there already is upgraded: its replicas are replaced one after another, and finish their streams.
    `say` is told what it waits for when the cluster is too small: a Ray cluster may grow by itself.
    Raises ConfigurationError when no cluster answers.
    """
    named = os.environ.get("RAY_ADDRESS", "")
    try:
        _reach(named)
        ray.init("auto", log_to_driver=False)
    except OSError:
        where = f"at RAY_ADDRESS={named}" if named else "on this machine, and RAY_ADDRESS names no other one"
        raise ConfigurationError(f"no Ray cluster runs {where}; `ray start --head` starts one") from None
    for lack in missing(options, ray.cluster_resources()):
        say(f"{lack}; this waits until more machines join")
    _deploy(options, host, port)


def _reach(address: str) -> None:
    """Connect to HOST:PORT once, for which Ray would try for minutes; other kinds of address are left to Ray. Raises OSError."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()


def _deploy(options: Options, host: str, port: int, logs: LoggingConfig | None = None) -> None:
    serve.start(http_options=HTTPOptions(host=host, port=port), proxy_location="EveryNode", logging_config=logs)
    serve.run(build(options), name=APP)
