"""A real server, as `fishserve serve` starts it."""

import contextlib
import os
import signal
import sys

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.hub import EMBEDDED_VOICE
from inference.model import random_checkpoint
from tests.guard import command, runs
from tests.inference.server.visit import browser, visit  # noqa: F401 - fixtures
from tests.processes import Started, free_port
from tests.waiting import wait


class Server(Started):
    """A `fishserve serve` process and how to reach it."""

    def __init__(self, checkpoint, voices, **settings):
        self.port, self.states = free_port(), []
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {"OMP_NUM_THREADS": "1", "FISHSERVE_VOICES_DIR": str(voices)} | settings
        self.start(
            [sys.executable, "-m", "inference.cli", "serve", "--checkpoint", str(checkpoint), "--port", str(self.port)],
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip

    def wait_ready(self):
        self.wait(self._is_ready)
        return self

    def _is_ready(self):
        try:
            health, ready = httpx.get(f"{self.url}/health"), httpx.get(f"{self.url}/ready")
        except httpx.TransportError:
            return False
        self.states.append((health.status_code, ready.status_code, ready.json()["status"]))
        return ready.status_code == 200

    def members(self):
        """Processes of the server's session that are alive."""
        return [p for p in psutil.process_iter() if self.session_of(p.pid) == self.process.pid and runs(p)]

    def engine(self):
        """The process that loads the model and generates."""
        return wait(lambda: next((p for p in self.members() if "spawn_main" in command(p)), None))

    def forks(self):
        """LitServe's manager and the HTTP process, which it forks in this order."""

        def found():
            with contextlib.suppress(psutil.NoSuchProcess):  # one has ended meanwhile
                children = [p for p in self.members() if p.ppid() == self.process.pid and "-c" not in p.cmdline()]
                return sorted(children, key=lambda p: p.create_time()) if len(children) == 2 else None
            return None

        return wait(found)

    @staticmethod
    def session_of(pid):
        try:
            return os.getsid(pid)
        except ProcessLookupError:
            return None

    def metric(self, name, **labels):
        for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics", verify=False).text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().kill()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("server") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


@pytest.fixture
def held(checkpoint, tmp_path):
    """A checkpoint that is loaded no further than to its tokenizer, a pipe, and what lets that be read."""
    directory, name = tmp_path / "tiny", "tokenizer.tiktoken"
    directory.mkdir()
    for file in checkpoint.iterdir():
        if file.name != name:
            (directory / file.name).symlink_to(file)
    os.mkfifo(directory / name)
    return directory, lambda: (directory / name).write_bytes((checkpoint / name).read_bytes())


@pytest.fixture(scope="session")
def voices(tmp_path_factory):
    """One voice, anna."""
    directory = tmp_path_factory.mktemp("voices")
    (directory / "anna").mkdir()
    np.save(directory / "anna" / "codes.npy", np.ones((8, 30), int))
    (directory / "anna" / "text.txt").write_text("what is said")
    return directory


@pytest.fixture(scope="session")
def server(checkpoint, voices):
    with Server(checkpoint, voices).wait_ready() as server:
        yield server


@pytest.fixture(scope="session")
def minnow(voices):
    """A server that speaks with minnow, whose sentences end by themselves."""
    with Server(EMBEDDED_VOICE, voices).wait_ready() as server:
        yield server
