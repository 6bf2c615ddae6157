"""Runs work in a short-lived thread, so that its OpenMP helper threads end with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

SWITCH_SECONDS = 0.0005
"""How long a thread that works in Python may hold up another each time that it wakes, in the processes that speak: ten times less than usual."""
P = ParamSpec("P")
T = TypeVar("T")


def run_in_short_lived_thread(work: Callable[P, T]) -> Callable[P, T]:
    """Make a function run in its own thread, which then ends.

    OpenMP gives every computing thread its own helper threads, one for each core, which live as long as that thread. When there are more
    helpers than cores, OpenMP puts each to sleep at every wait, and a frame of the engine takes three times as long. So other computing
    threads must end.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1, thread_name_prefix="fishserve-aside") as pool:
            return pool.submit(work, *args, **kwargs).result()

    return run
