"""What a process has freed goes back to the system."""

import asyncio
import subprocess
import sys

import pytest

from inference import memory
from inference.memory import Keeper, giving_back, resident
from tests.waiting import HANG_SECONDS

PIECES = 20_000
SCRIPT = f"""
from inference.memory import give_back, resident
pieces = [bytearray(5000) for _ in range({PIECES})]  # one by one on the heap
last = bytearray(5000)  # keeps the heap from shrinking by itself
del pieces
held = resident()
give_back()
print(held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc has malloc_trim")
def test_free_memory_goes_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) > PIECES * 5000 / 2


def test_memory_is_given_back_when_the_process_has_grown(monkeypatch):
    given, size = [], 100 << 20
    monkeypatch.setattr(memory, "resident", lambda: size)
    monkeypatch.setattr(memory, "give_back", lambda: given.append(size))
    keeper = Keeper()
    keeper.look()
    assert not given
    size += memory.GROWTH_BYTES + 1
    keeper.look()
    keeper.look()  # what was in use may be free by now
    assert given == [size] * 2
    keeper.look(settled=True)
    keeper.look()
    keeper.look(settled=True)
    assert given == [size] * 3


def test_a_task_looks_as_long_as_the_server_lives(monkeypatch):
    looks = []
    monkeypatch.setattr(memory, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(Keeper, "look", lambda _, **__: looks.append(resident()))

    async def serve():
        async with giving_back(), asyncio.timeout(HANG_SECONDS):
            while len(looks) < 2:
                await asyncio.sleep(0.001)

    asyncio.run(serve())
    assert len(looks) >= 2
