"""Several processes that train together."""

import sys

import pytest

from tests.guard import runs
from tests.processes import Started
from tests.waiting import wait

WORK = """
import time
from pathlib import Path
from training.machine import Machine, in_processes
from training.recipe import Recipe

def work(recipe, machine, process):
    print("process", process, flush=True)
    time.sleep(3600)

if __name__ == "__main__":
    in_processes(work, Recipe(Path(__file__).parent), Machine(processes=2))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
def test_they_end_when_the_first_is_killed(tmp_path):
    (tmp_path / "trains.py").write_text(WORK)
    first = Started()
    first.start([sys.executable, tmp_path / "trains.py"], lambda: "process 0" in first.words() and "process 1" in first.words())
    with first:
        others = first.family()
        assert len(others) >= 2
        first.process.kill()
        wait(lambda: not any(map(runs, others)))
