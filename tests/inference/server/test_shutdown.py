"""Which requests the server waits for when it ends."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from inference.server.shutdown import INTERRUPTED, InFlight
from tests.waiting import HANG_SECONDS


@pytest.mark.parametrize(("path", "counted"), [("/v1/tts", 1), ("/health", 0), ("/ready", 0), ("/metrics", 0)])
def test_it_counts_what_somebody_waits_for(path, counted):
    count, seen = multiprocessing.Value("i", 0), []

    async def app(*_):
        seen.append(count.value)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(InFlight(app, count)({"type": "http", "path": path}, None, None))
    assert (seen, count.value) == ([counted], 0)


LOADING = """
import subprocess, sys
from inference.server.shutdown import Shutdown

shutdown = Shutdown(print)
shutdown.folder = sys.argv[1]
with shutdown.on_ctrl_c():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    print("loading", flush=True)
    child.wait()
print("error: a process ended", flush=True)
sys.exit(2)
"""


def test_what_ctrl_c_ends_is_not_called_a_fault(tmp_path):
    for number in range(20_000):  # its removal takes longer than the main thread needs to see that the child has ended
        (tmp_path / str(number)).touch()
    command = [sys.executable, "-c", LOADING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "loading\n"
        os.killpg(process.pid, signal.SIGINT)
        try:
            assert process.communicate(timeout=HANG_SECONDS) == ("", None)
        finally:
            process.kill()
    assert process.returncode == INTERRUPTED
    assert not tmp_path.exists()
