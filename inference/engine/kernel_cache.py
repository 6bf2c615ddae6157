"""Compiles the kernels of a frame before they are needed: several at a time when an engine starts, and without a GPU for Triton's cache."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from inference import cpu_threads
from inference.engine import launching

T = TypeVar("T")


def compile_at_once(
    run: Callable[[T], None], sizes: Sequence[T], capability: tuple[int, int], launches: list[launching.Launch] | None = None
) -> None:
    """Compile what work of these sizes needs, as many kernels at a time as there are CPUs. `run` is then called without kernels.

    `launches` gets each kernel of it.
    """

    def compile_all() -> None:
        with launching.compiling_for(capability, launches), _in_parallel():
            for size in sizes:
                run(size)

    contextvars.copy_context().run(compile_all)  # Triton's mode of compiling stays on after an error, but in this copy alone


@contextmanager
def _in_parallel() -> Iterator[None]:
    mode = getattr(triton, "AsyncCompileMode", None)
    if mode is None:  # before Triton 3.5
        yield
        return
    with _parsing_in_turn(), ThreadPoolExecutor(cpu_threads.available().threads) as threads, mode(threads):
        yield


@contextmanager
def _parsing_in_turn() -> Iterator[None]:
    """In this block threads parse kernels one after the other: where two do at once, Python 3.11 may count the depth of a tree wrongly, and
    raise SystemError (github.com/python/cpython/issues/106905).
    """
    parse, turn = triton.JITFunction.parse, threading.Lock()

    def parse_alone(kernel: Any) -> Any:
        with turn:
            return parse(kernel)

    triton.JITFunction.parse = parse_alone
    try:
        yield
    finally:
        triton.JITFunction.parse = parse


class _Compiler:
    """In the place of Triton's driver: it names a GPU and has none."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._number = 10 * capability[0] + capability[1]

    def get_current_device(self) -> int:
        return self._number  # Triton keeps one target for each number

    def get_current_stream(self, device: int) -> int:  # noqa: ARG002 - Triton's signature
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._number, 32)


@contextmanager
def without_gpu(capability: tuple[int, int]) -> Iterator[None]:
    """In this block Triton takes this machine's GPU, which need not be there, for one of that compute capability."""
    driver.set_active(_Compiler(capability))
    try:
        yield
    finally:
        driver.set_active(None)
