"""Python runs this file at its start, when its folder is in PYTHONPATH. It breaks the device of an engine, which has none to break.

Once the file that DEVICE_FAULT names is there, the next frame fails for good ("lost"), or never comes ("hangs").
"""

import importlib.util
import os
import sys
import threading
from pathlib import Path


def broken(step, file):
    def replaced(self, only=None):
        if file.exists():
            if file.read_text() == "hangs":
                sys.modules["inference.engine.engine"].HANGING_SECONDS = 1
                sys.modules["inference.engine.watchdog"].GIVE_UP_LOOKS = 2
                threading.Event().wait()
            sys.modules["inference.engine.scheduler"].is_lost = lambda _: True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        step(self, only)

    return replaced


class Breaker:
    """Finds the runner as usual, and breaks it when it has been loaded."""

    def find_spec(self, name, _path=None, _target=None):
        if name != "inference.engine.runner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_break(module):
            execute(module)
            module.Runner.step = broken(module.Runner.step, Path(os.environ["DEVICE_FAULT"]))

        spec.loader.exec_module = execute_and_break
        return spec


if "DEVICE_FAULT" in os.environ:
    sys.meta_path.insert(0, Breaker())
