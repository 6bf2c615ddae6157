"""Processes that end with the one that started them, even when that is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """From now on this process gets the signal `number` when its parent, the process `parent`, ends, and at once if it has ended already.

    For the child to call. The kernel sends the signal, which only Linux does; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os.kill(os.getpid(), number)


def forks_end_with_parent() -> None:
    """From now on every process that this one, or a fork of it, forks is killed when its parent ends."""
    parent = os.getpid()

    def remember() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=remember, after_in_child=lambda: end_with_parent(parent))
