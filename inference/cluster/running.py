"""Starts the application, on a Ray cluster of this machine alone or on one that runs, and ends the former."""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import NoReturn

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import HTTPOptions
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from ray.util import list_named_actors

from inference.cluster.application import QUIET, build
from inference.cluster.doors import APP, DOORS, deployment_error
from inference.cluster.options import Options, missing
from inference.errors import ConfigurationError, FishserveError
from inference.server.shutdown import finishing, parents
from inference.settings import KEEP_ALIVE_SECONDS

PROXY_CHECK_SECONDS = 2
"""How often Ray Serve looks at a proxy, which it starts again after three failures; every 10 s without this."""
OBJECT_STORE_BYTES = 512 << 20
"""Only clips are large enough to go through Ray's store."""
REACH_SECONDS = 10.0
FINISH_SECONDS = 30.0
"""How long running requests may take when the server ends: as long as `fishserve serve` lets them."""
_LOOK_SECONDS, _CALL_SECONDS = 0.1, 10.0


@contextmanager
def alone(options: Options, host: str, port: int) -> Iterator[None]:
    """The application, ready, on a Ray cluster of this machine. Both end with the block, and with this process.

    Raises ConfigurationError for more GPUs than there are, FishserveError when the application cannot start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", str(PROXY_CHECK_SECONDS))
    os.environ.setdefault("RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S", str(_LOOK_SECONDS))
    # Ray divides cores that it is told of: as many as the replicas ask for and one more of each, which an upgrade starts beside them.
    cores = math.ceil(options.doors + 1 + (options.max_replicas + 1) * options.cores)
    ray.init(
        "local", num_cpus=max(cores, os.cpu_count() or 1), include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
        logging_level=logging.WARNING,
    )  # fmt: skip
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        needed, found = options.all_gpus, ray.cluster_resources().get("GPU", 0)
        if needed > found:  # Ray Serve would wait for more machines
            raise ConfigurationError(
                f"GPUs that the engines need: {needed:g}; that Ray finds here: {found:g}. Lower --min-replicas or --gpus."
            )
        _deploy(options, host, port, QUIET)
        yield
    finally:
        with redirect_stdout(io.StringIO()):  # where Ray says that this process's own calls of the controller, which ends, have failed
            serve.shutdown()
            ray.shutdown()


def finish(say: Callable[[str], None]) -> bool:
    """Take no new requests, and wait until those that run have ended, for up to FINISH_SECONDS. Returns whether they have.

    `say` is told how many there are.
    The doors have spoken a stream before its client has read it: the proxies know when all of it is sent. What they are asked is how Ray
    Serve's controller empties a node, and not public: tests/inference/cluster/test_cluster_end.py notices when it changes.
    """
    deadline = time.monotonic() + FINISH_SECONDS
    with suppress(TimeoutError, RayError, RayServeException):  # the doors or the proxy have ended, and so have their streams
        if running := sum(serve.get_app_handle(APP).broadcast("drain").results(timeout_s=_CALL_SECONDS)):
            say(finishing(running))
        proxies = [ray.get_actor(**actor) for actor in list_named_actors(all_namespaces=True) if "PROXY_ACTOR" in actor["name"]]
        ray.get([proxy.update_draining.remote(True) for proxy in proxies], timeout=_CALL_SECONDS)
        while not all(ray.get([proxy.is_drained.remote() for proxy in proxies], timeout=_CALL_SECONDS)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_SECONDS)
    return True


def end_now(code: int) -> NoReturn:
    """Kill this process and all that it started. Ray's would end by themselves, too, but go on serving for a minute."""
    everyone, family = parents(), [os.getpid()]
    for process in family:
        family.extend(pid for pid, parent in everyone.items() if parent == process)
    for pid in family[1:]:  # those who start others come before them
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(code)


def deploy(options: Options, host: str, port: int, say: Callable[[str], None]) -> None:
    """Start the application on the Ray cluster that RAY_ADDRESS names, else on the one of this machine, and wait until it is ready.

    One that runs there already is upgraded: its replicas are replaced one after another, and finish their streams.
    `say` is told what it waits for when the cluster is too small: a Ray cluster may grow by itself.
    Raises ConfigurationError when no cluster answers, FishserveError when the application cannot start.
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
    keep_alive = options.settings.get("keep_alive_seconds", KEEP_ALIVE_SECONDS)
    http = HTTPOptions(host=host, port=port, keep_alive_timeout_s=keep_alive)
    serve.start(http_options=http, proxy_location="EveryNode", logging_config=logs)
    try:
        serve.run(build(options), name=APP)
    except RuntimeError as e:  # Ray Serve has given up, after three tries
        raise FishserveError(deployment_error() or deployment_error(DOORS) or str(e)) from None
