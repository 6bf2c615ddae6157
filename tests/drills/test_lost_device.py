"""A device that is lost or never answers: server and worker end, say why, and each request ends once."""

import contextlib
import os
from pathlib import Path

import httpx
import psutil
import pytest

from inference.model import random_checkpoint
from tests.inference.server.conftest import Server
from tests.texts import ENDLESS
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import Queue, Worker

pytestmark = pytest.mark.drill
REASONS = {"lost": "the engine ended: RuntimeError: CUDA error: an illegal memory access", "hangs": "cpu does not answer"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("device") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


@pytest.fixture
def fault(tmp_path):
    """Settings of a process whose device can break, and what breaks it."""
    file = tmp_path / "fault"
    path = os.pathsep.join([str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "DEVICE_FAULT": str(file)}, file.write_text


@pytest.mark.parametrize("kind", REASONS)
def test_a_server_ends_and_so_do_its_requests(checkpoint, tmp_path, fault, kind):
    settings, break_device = fault
    with Server(checkpoint, tmp_path, **settings).wait_ready() as server:
        url, body = f"{server.url}/v1/audio/speech", {"input": ENDLESS, "response_format": "pcm"}
        with httpx.stream("POST", url, json=body, timeout=HANG_SECONDS) as speech:
            sound = speech.iter_raw()
            next(sound)
            break_device(kind)
            with contextlib.suppress(httpx.TransportError):  # the reply has begun, so it breaks off
                for _ in sound:
                    pass
        assert server.process.wait(HANG_SECONDS) == 2
        assert REASONS[kind] in " ".join(server.words().split())


@pytest.mark.parametrize("kind", REASONS)
def test_a_worker_ends_and_another_does_its_jobs(checkpoint, fault, kind):
    settings, break_device = fault
    with Queue() as queue:
        with Worker(queue, checkpoint, **settings).ready() as worker:
            jobs = [queue.run(text="Hello. " * 40, max_new_tokens=40, seed=1, format="mp3", stream=n == 0) for n in range(6)]
            wait(lambda: worker.metric("fishserve_audio_seconds_total") > 0)
            break_device(kind)
            assert worker.process.wait(HANG_SECONDS) == 1
            assert REASONS[kind] in worker.words()
            wait(lambda: not any(Server.session_of(p.pid) == worker.process.pid for p in psutil.process_iter()))
            httpx.post(f"{queue.url}/lost/{worker.name}")
        assert not any(queue.status(job)["error"] for job in jobs)
        with Worker(queue, checkpoint).ready():
            done = [queue.done(job) for job in jobs]
    assert {(d["status"], d["answers"]) for d in done} == {("COMPLETED", 1)}
    assert max(d["taken"] for d in done) == 2
