"""The guard of processes, on small runs of pytest that leave some behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import guard
from tests.waiting import wait

PREAMBLE = """
import os, subprocess, sys, pytest
def start():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10000)", {mark!r}])
def orphan():
    subprocess.run(["sh", "-c", 'exec setsid "$0" -c "import time; time.sleep(10000)" {mark} &', sys.executable])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs pytest on a file, and gives the process and what identifies the processes it starts."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # others take seconds to import
    monkeypatch.setenv("PYTEST_GUARD_SECONDS", "0.5")  # what is left on purpose ends never by itself
    mark = f"mark-of-{tmp_path.name}"

    def run(tests, *arguments):
        (tmp_path / "test_it.py").write_text(PREAMBLE.format(mark=mark) + tests)
        command = [sys.executable, "-m", "pytest", "-p", "tests.guard", "-p", "xdist", "-p", "no:cacheprovider", *arguments, "."]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    run.marked = lambda: [p for p in psutil.process_iter() if guard.runs(p) and mark in guard.command(p)]
    run.mark = mark
    yield run
    for process in run.marked():
        process.kill()


def test_a_process_that_a_test_leaves_is_ended_and_named(run):
    with run("def test_fails():\n    start().returncode = 0; assert False\ndef test_other():\n    orphan()\n") as pytest_:
        said = pytest_.stdout.read()
    assert pytest_.returncode == 1
    assert run.marked() == []
    for test in ("test_fails", "test_other"):
        assert f"test_it.py::{test} (call) left process" in said
    assert run.mark in said


def test_a_session_fixtures_process_lives_until_the_end(run):
    fixture = "@pytest.fixture(scope='session')\ndef it():\n    p = start()\n    yield p\n    p.kill(); p.wait()\n"
    with run(fixture + "def test_one(it):\n    assert it.poll() is None\n") as pytest_:
        said = pytest_.stdout.read()
    assert pytest_.returncode == 0, said
    with run(fixture.partition("    p.kill")[0] + "    p.returncode = 0\ndef test_one(it):\n    assert it.poll() is None\n") as pytest_:
        said = pytest_.stdout.read()
    assert "test_one (setup) left process" in said
    assert (pytest_.returncode, run.marked()) == (1, [])


def test_what_a_killed_worker_leaves_is_ended_and_named(run):
    with run("def test_dies():\n    orphan(); os.kill(os.getpid(), 9)\n", "-n", "1", "--max-worker-restart", "0") as pytest_:
        said = pytest_.stdout.read()
    assert pytest_.returncode == 1
    assert "LEFT RUNNING: test_it.py::test_dies (call) left process" in said
    assert run.marked() == []


@pytest.mark.parametrize(("sign", "workers"), [(signal.SIGKILL, "1"), (signal.SIGTERM, "0"), (signal.SIGINT, "1")])
def test_a_killed_run_leaves_nothing(run, sign, workers):
    """However it ends, the watcher ends what the tests had started."""
    with run("def test_waits():\n    start().wait()\n", "-n", workers) as pytest_:
        wait(run.marked)
        pytest_.send_signal(sign)
        pytest_.stdout.close()
        pytest_.wait()
    wait(lambda: run.marked() == [])


def test_memory_over_the_limit_fails_the_run(run):
    tests = "from tests import guard\nguard.MAX_RESIDENT_BYTES = 1000\ndef test_one():\n    pass\n"
    with run(tests) as pytest_:
        said = pytest_.stdout.read()
    assert pytest_.returncode == 1
    assert "the limit is 0 MB" in said
    assert "peak memory: this process" in said
