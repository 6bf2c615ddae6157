"""A cluster of two nodes, of which one cannot be reached any more: a network namespace whose link is cut."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import pytest

from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.cluster.test_cluster_faults import listeners, speak
from tests.inference.server.conftest import free_port
from tests.processes import Started
from tests.waiting import wait

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces need root, and ip of the package iproute2"
)
HEAD, WORKER = "10.213.7.1", "10.213.7.2"
ENGINES = 3


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Link:
    """A network namespace, `name`, with one link to this one. `cut` loses every packet in both directions, `mend` ends that."""

    def __init__(self):
        self.name, self._here, self._there = f"fish{os.getpid()}", f"fh{os.getpid()}", f"ft{os.getpid()}"

    def __enter__(self):
        ip("netns", "add", self.name)
        ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.name)
        ip("addr", "add", f"{HEAD}/24", "dev", self._here)
        ip("link", "set", self._here, "up")
        ip("-n", self.name, "addr", "add", f"{WORKER}/24", "dev", self._there)
        ip("-n", self.name, "link", "set", "lo", "up")
        self.mend()
        return self

    def __exit__(self, *_):
        ip("netns", "del", self.name)

    def cut(self):
        ip("-n", self.name, "link", "set", self._there, "down")

    def mend(self):
        ip("-n", self.name, "link", "set", self._there, "up")


class Node(Started):
    """`ray start`, which runs until the node ends."""

    def __init__(self, environment, *words, inside=()):
        command = [
            *inside,
            Path(sys.executable).with_name("ray"),
            "start",
            "--block",
            "--num-cpus",
            "2",
            "--object-store-memory",
            str(200 << 20),
            *words,
        ]
        self.start(command, env=environment, start_new_session=True)


class TwoNodes(Cluster):
    """Doors and an engine on the head, two engines on the other node."""

    def __init__(self, voices, link):
        self.port, ray_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ray, self._link, self._stack = tempfile.TemporaryDirectory(prefix="ray-"), link, contextlib.ExitStack()
        self.environment = os.environ | {
            "FISHSERVE_VOICES_DIR": str(voices), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex,
            "RAY_ADDRESS": f"{HEAD}:{ray_port}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": self.ray.name, "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self._starting = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        self.worker = None
        head = ("--head", "--include-dashboard", "false", "--node-ip-address", HEAD, "--port", str(ray_port))
        self.head = self._stack.enter_context(Node(self._starting, *head))
        wait(lambda: "Ray runtime started" in self.head.words())
        self.engines(1)
        self.start_worker()
        self.engines(ENGINES)

    def start_worker(self):
        words = ("--address", self.environment["RAY_ADDRESS"], "--node-ip-address", WORKER)
        self.worker = self._stack.enter_context(Node(self._starting, *words, inside=("ip", "netns", "exec", self._link.name)))
        wait(lambda: "Ray runtime started" in self.worker.words())

    def engines(self, number):
        """Deploy so many."""
        with self.deploy("--checkpoint", EMBEDDED_VOICE, "--min-replicas", str(number)) as deploying:
            said = deploying.communicate()[0].decode()
        assert deploying.returncode == 0, said
        wait(lambda: len(self.replicas()) == number)

    def family(self):
        return [*self.head.family(), *(self.worker.family() if self.worker else ())]

    def __exit__(self, *_):
        self._stack.close()
        self.ray.cleanup()


def test_streams_of_a_node_that_is_cut_off_end_and_the_node_comes_back(voices):
    with Link() as link, TwoNodes(voices, link) as nodes:
        with listeners(nodes, 9) as found:
            began = time.monotonic()
            link.cut()
            took = []

            def is_noticed():
                asked = time.monotonic()
                assert speak(nodes).status_code == 200
                took.append(time.monotonic() - asked)
                return any(listener.end for listener in found) and len(nodes.replicas()) < ENGINES

            wait(is_noticed)
            print(f"cut off: noticed after {time.monotonic() - began:.1f} s; {len(took)} were answered, after at most {max(took):.1f} s")
            had = [listener.bytes for listener in found]
            wait(lambda: all(listener.end or listener.bytes > before for listener, before in zip(found, had, strict=True)))
            ends = [listener.end for listener in found]
        assert set(ends) == {"RemoteProtocolError", None}
        cut_off = nodes.worker
        wait(lambda: cut_off.process.poll() is not None or not [p for p in cut_off.family() if "ray::" in p.name()])
        link.mend()
        cut_off.kill()  # a supervisor would start the node's container again
        began = time.monotonic()
        nodes.start_worker()
        wait(lambda: len(nodes.replicas()) == ENGINES)
        print(f"mended: {ENGINES} engines {time.monotonic() - began:.1f} s after the node started again")
        assert speak(nodes).status_code == 200
