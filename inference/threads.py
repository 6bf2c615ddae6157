"""Runs work in a short-lived thread, so that its OpenMP helper threads end with it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def run_in_short_lived_thread(work: Callable[P, T]) -> Callable[P, T]:
    """Have a function run in a thread of its own, which then ends.

    OpenMP gives every thread that computes helpers of its own, one a core, which stay as long as it does. When there are more of them than cores it puts
    each to sleep at every wait, and a frame of the engine takes three times as long; so whoever else computes may not stay.
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with ThreadPoolExecutor(1, thread_name_prefix="fishserve-aside") as pool:
            return pool.submit(work, *args, **kwargs).result()

    return run
