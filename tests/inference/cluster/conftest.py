"""A real cluster, as `fishserve cluster run` starts it: Ray's own processes, the doors and minnow in several replicas."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.hub import EMBEDDED_VOICE
from tests.inference.server.conftest import Server, free_port, voices  # noqa: F401 - a fixture
from tests.processes import Started
from tests.waiting import HANG_SECONDS, wait

WITHOUT_CLUSTER = ("test_cluster_command", "test_metric_pages", "test_ring", "test_router")


def pytest_collection_modifyitems(items):
    """Tests that start a cluster are slow, and need Ray."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem not in WITHOUT_CLUSTER:
            item.add_marker(pytest.mark.drill)
            if importlib.util.find_spec("ray") is None:
                item.add_marker(pytest.mark.skip(reason="Ray is not installed: `make cluster` installs it and runs this"))


class Cluster(Server):
    """A `fishserve cluster run` process and how to reach it."""

    def __init__(self, checkpoint, folder, *options, **settings):
        self.port, self.states = free_port(), []
        self.url = f"http://127.0.0.1:{self.port}"
        self.ray = tempfile.TemporaryDirectory(prefix="ray-")  # the paths of Ray's sockets have to be short
        own = {
            "RAY_TMPDIR": self.ray.name,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid4().hex,
        }  # else Ray writes one to the home folder
        self.environment = os.environ | {"FISHSERVE_VOICES_DIR": str(folder)} | own | settings
        words = ["--checkpoint", str(checkpoint), "--port", str(self.port), *options]
        self.start([sys.executable, "-m", "inference.cli", "cluster", "run", *words], env=self.environment, start_new_session=True)

    def _is_ready(self):
        """Ray Serve's proxy answers 404 before it knows the application."""
        try:
            return httpx.get(f"{self.url}/ready").status_code == 200
        except httpx.TransportError:
            return False

    def deploy(self, *words):
        """Upgrade it, as another process would, and wait until that is done."""
        gcs = next(w for p in self.family() for w in p.cmdline() if w.startswith("--gcs-address="))
        environment = self.environment | {"RAY_ADDRESS": gcs.partition("=")[2]}
        command = [sys.executable, "-m", "inference.cli", "cluster", "deploy", "--port", str(self.port), *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def actors(self, name):
        """Processes of Ray's actors whose title has this in it."""
        found = []
        for process in self.family():
            with contextlib.suppress(psutil.Error):  # it has just ended
                if any(word.startswith("ray::") and name in word for word in process.cmdline()):
                    found.append(process)
        return found

    def metric(self, name, **labels):
        """The sum over all replicas."""
        text = httpx.get(f"{self.url}/metrics", timeout=HANG_SECONDS).text
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())

    def replicas(self):
        """The names of the replicas that answer."""
        text = httpx.get(f"{self.url}/metrics", timeout=HANG_SECONDS).text
        return {s.labels["replica"] for family in text_string_to_metric_families(text) for s in family.samples}

    def end(self, sign=signal.SIGTERM, code=None):
        super().end(sign, code)

    def kill(self):
        Started.kill(self)
        self.ray.cleanup()


@pytest.fixture(scope="session")
def cluster(voices):  # noqa: F811
    """minnow in three replicas."""
    with Cluster(EMBEDDED_VOICE, voices, "--min-replicas", "3").wait_ready() as cluster:
        wait(lambda: len(cluster.replicas()) == 3)
        yield cluster


@pytest.fixture(scope="session")
def minnow(cluster):
    """What tests of the single server call the server that speaks with minnow."""
    return cluster
