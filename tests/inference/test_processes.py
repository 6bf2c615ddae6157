"""A child ends with its parent: killed when that ends, and at once when that had ended before."""

import subprocess
import sys

import pytest

from tests.guard import runs
from tests.processes import Started
from tests.waiting import wait

FORKED = """
import os, signal, time
from inference.processes import forks_end_with_parent
forks_end_with_parent()
if not os.fork() and not os.fork():
    print("all there", flush=True)
time.sleep(3600)
"""
TOO_LATE = """
import os
from inference.processes import end_with_parent
end_with_parent(os.getppid() + 1)
print("still here")
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")


def test_a_fork_and_a_forks_fork_end_when_the_first_is_killed():
    first = Started()
    first.start([sys.executable, "-c", FORKED], lambda: "all there" in first.words())
    with first:
        children = first.family()
        assert len(children) == 2
        first.process.kill()
        wait(lambda: not any(map(runs, children)))


def test_a_child_whose_parent_has_ended_before_ends_at_once():
    done = subprocess.run([sys.executable, "-c", TOO_LATE], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert done.stdout == ""
