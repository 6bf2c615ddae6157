"""Every process of a server, killed or stopped, while it loads, idles or speaks: it is never half a server, and another can begin at once."""

import contextlib
import json
import signal

import httpx
import pytest

from inference.model import random_checkpoint
from tests.inference.server.conftest import Server
from tests.raw import post
from tests.texts import ENDLESS
from tests.waiting import wait

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]
ANSWER_SECONDS = 15
"""A probe gives up by then, as those of operators do."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("server") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


def process_of(server, role):
    """A process of a server by what it does."""
    if role == "parent":
        return server.process.pid
    if role.endswith("engine"):
        return server.engine().pid
    manager, http = server.forks()
    return (manager if role == "manager" else http).pid


def ready(server):
    try:
        return httpx.get(f"{server.url}/ready", timeout=ANSWER_SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def speaks(server):
    try:
        return (
            httpx.post(f"{server.url}/v1/audio/speech", json={"input": "Hello.", "max_new_tokens": 5}, timeout=ANSWER_SECONDS).status_code
            == 200
        )
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("state", ["loading", "idle", "speaking"])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT], ids=["killed", "stopped", "aborted"])
@pytest.mark.parametrize("role", ["parent", "manager", "http", "engine", "second engine"])
def test_it_is_never_half_a_server(checkpoint, tmp_path, monkeypatch, role, sent, state):
    devices = "cpu, cpu" if role == "second engine" else "cpu"
    with Server(checkpoint, tmp_path, FISHSERVE_DEVICE=devices) as server, contextlib.ExitStack() as stack:
        pid = process_of(server, role)
        if state != "loading":
            server.wait_ready()
        if state == "speaking":
            for seed in range(3):
                stack.enter_context(post(server.port, "/v1/audio/speech", {"input": ENDLESS, "seed": seed, "response_format": "pcm"}))
            wait(lambda: server.metric("fishserve_requests_running") == 3)
        before = server.members()
        next(p for p in before if p.pid == pid).send_signal(sent)

        def settled():
            """It has ended; or is not ready; or is ready and speaks."""
            if sent != signal.SIGSTOP:
                return server.process.poll() is not None
            return not ready(server) or speaks(server)

        wait(settled)
        code = server.process.poll()
        if sent != signal.SIGSTOP:
            wait(lambda: not server.members())
        print(
            json.dumps({"process": role, "signal": sent.name, "state": state, "exit_code": code, "ready": code is None and ready(server)})
        )
        words = server.words()
        if sent != signal.SIGSTOP and role != "parent":
            assert code == 2
            assert "Traceback" not in words
        port = server.port
        for process in server.members():
            process.send_signal(signal.SIGCONT)
    monkeypatch.setattr("tests.inference.server.conftest.free_port", lambda: port)
    with Server(checkpoint, tmp_path).wait_ready() as again:
        wait(lambda: speaks(again))
