"""A real server, as `fishserve serve` starts it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.hub import EMBEDDED_VOICE
from inference.model import random_checkpoint


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A `fishserve serve` process and how to reach it."""

    def __init__(self, checkpoint, voices, **settings):
        self.port, self.stderr = free_port(), tempfile.TemporaryFile()  # noqa: SIM115 - a pipe nobody reads would fill up
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {"OMP_NUM_THREADS": "1", "FISHSERVE_VOICES_DIR": str(voices)} | settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inference.cli", "serve", "--checkpoint", str(checkpoint), "--port", str(self.port)],
            env=os.environ | environment, stderr=self.stderr, start_new_session=True,
        )  # fmt: skip
        self.states = []

    def wait_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                health, ready = httpx.get(f"{self.url}/health"), httpx.get(f"{self.url}/ready")
                self.states.append((health.status_code, ready.status_code, ready.json()["status"]))
                if ready.status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.states[-3:]}, {self.process.poll()}")

    def members(self):
        """Processes of the server's session that are alive."""
        return [p for p in psutil.process_iter() if self.session_of(p.pid) == self.process.pid and p.status() != psutil.STATUS_ZOMBIE]

    @staticmethod
    def session_of(pid):
        try:
            return os.getsid(pid)
        except ProcessLookupError:
            return None

    def metric(self, name, **labels):
        for family in text_string_to_metric_families(httpx.get(f"{self.url}/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0

    def log(self):
        """All it has written to standard error."""
        return os.pread(self.stderr.fileno(), 1 << 24, 0).decode()

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        try:
            return self.process.wait(40)
        finally:
            for process in self.members():
                process.kill()
            self.stderr.close()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("server") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


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
    server = Server(checkpoint, voices).wait_ready()
    yield server
    server.end()


@pytest.fixture(scope="session")
def minnow(voices):
    """A server that speaks with minnow, whose sentences end by themselves."""
    server = Server(EMBEDDED_VOICE, voices).wait_ready()
    yield server
    server.end()
