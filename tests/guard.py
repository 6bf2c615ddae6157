"""A pytest plugin: no process outlives the test that started it, and no process that runs tests grows without bound.

Children inherit an environment variable that names the run, so the guard finds orphans, too. It looks after each file of tests and at the
end of the run. What it finds it ends, and the run fails with the test and the command line of each. A watcher does the same
when the run itself is killed. Started with `-p tests.guard` it works for any tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from _pytest.unraisableexception import collect_unraisable

RUN, SHARED, WORKER, TEST = "PYTEST_GUARD_RUN", "PYTEST_GUARD_SHARED", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"
MAX_RESIDENT_BYTES = 2_000_000_000
"""Of each process that runs tests, at its peak. What its files of tests import and compile adds up to 1.3 GB; the largest needs 0.5 more."""
END_SECONDS = float(os.environ.get("PYTEST_GUARD_SECONDS", "30"))
"""How long a process that was told to end may take."""
LOOK_SECONDS = 1.0
MEMORY = pytest.StashKey[dict[str, str]]()
LEFT = pytest.StashKey[list[str]]()
WATCHER = pytest.StashKey[subprocess.Popen[bytes]]()


def environment(process: psutil.Process) -> dict[str, str]:
    """What a process was started with; nothing where that cannot be read."""
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()[:300] or process.name()
    except psutil.Error:
        return "a process that has ended meanwhile"


def end(processes: Iterable[psutil.Process]) -> None:
    """Terminate, then kill."""
    left = list(processes)
    for how in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with contextlib.suppress(psutil.Error):
                how(process)
        left = still_running(left)


def still_running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended after END_SECONDS. Does not reap: that belongs to whoever started them."""
    left, deadline = [process for process in processes if runs(process)], time.monotonic() + END_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [process for process in left if runs(process)]
    return left


def peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    status = Path("/proc/self/status")
    if not status.exists():
        return int(psutil.Process().memory_info().rss)
    return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])


class Guard:
    """What one process of pytest knows of the processes that its tests started."""

    def __init__(self, run: str, worker: str | None, everyone: bool, spared: set[int]) -> None:
        self.run, self.worker, self.everyone, self.spared = run, worker, everyone, spared
        self.seen: dict[psutil.Process, str] = {}
        self.looked = 0.0
        self.too_large = False

    def look(self, test: str) -> None:
        """Remember descendants. PostgreSQL and Valkey overwrite their environment: as orphans they are known only from before."""
        if time.monotonic() - self.looked >= LOOK_SECONDS:
            now = dict.fromkeys(psutil.Process().children(recursive=True), f"{test} or one beside it")
            self.seen = now | {process: first for process, first in self.seen.items() if runs(process)}
            self.looked = time.monotonic()

    def left(self, shared: bool) -> dict[psutil.Process, str]:
        """Processes that still run, with the test that started each; those of session fixtures only if `shared`."""
        self.looked = 0.0
        self.look("an unknown test")
        found = {process: environment(process) for process in psutil.process_iter()}
        mine = {process for process, variables in found.items() if self._is_mine(variables)} | self.seen.keys()
        families: dict[psutil.Process, list[dict[str, str]]] = {}
        for process in mine:
            if process.pid != os.getpid() and process.pid not in self.spared and runs(process):
                with contextlib.suppress(psutil.Error):
                    parents = [parent for parent in process.parents() if parent in mine]
                    families[process] = [found.get(member, {}) for member in (process, *parents)]
        return {
            process: next((variables[TEST] for variables in family if TEST in variables), self.seen.get(process, "an unknown test"))
            for process, family in families.items()
            if (shared or not any(SHARED in variables for variables in family))
            and "multiprocessing.resource_tracker" not in command(process)
        }

    def _is_mine(self, variables: dict[str, str]) -> bool:
        return variables.get(RUN, "").startswith(self.run) and (self.everyone or variables.get(WORKER) == self.worker)

    def clear(self, shared: bool) -> list[str]:
        """End what is left, after a moment in which it may end by itself. One sentence for each."""
        left = self.left(shared)
        still = still_running(left)
        told = [f"{left[process]} left process {process.pid}: {command(process)}" for process in still]
        end(still)
        return told

    def check_memory(self) -> list[str]:
        """One sentence, once, when this process took too much."""
        peak = peak_bytes()
        if self.too_large or peak <= MAX_RESIDENT_BYTES:
            return []
        self.too_large = True
        return [f"the process of these tests took {peak / 1e6:,.0f} MB; the limit is {MAX_RESIDENT_BYTES / 1e6:,.0f} MB"]


class Plugin:
    """The hooks of one process of pytest: a worker of xdist, its controller, or the only one."""

    def __init__(self, guard: Guard, controller: bool) -> None:
        self.guard, self.controller = guard, controller

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Processes of a session fixture live longer than the file that first asked for it."""
        before = os.environ.pop(SHARED, None)
        if fixturedef.scope in ("session", "package"):
            os.environ[SHARED] = "1"
        try:
            return (yield)
        finally:
            os.environ.pop(SHARED, None)
            if before is not None:
                os.environ[SHARED] = before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.guard.look(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
        try:
            return (yield)
        finally:
            if nextitem is None or nextitem.path != item.path:
                gc.collect()  # a socket that nobody closed is this file's error, and not that of a test which runs when it is found
                gc.freeze()  # later collections pass over what lives now, modules above all: they would cost the run half a minute
                collect_unraisable(item.config)
                before = psutil.Process().memory_info().rss
                trim()
                _log_memory(item.path.name, before)
                told = self.guard.clear(shared=nextitem is None)
                if item.get_closest_marker("drill") is None:  # a drill may load the full shape
                    told += self.guard.check_memory()
                if told:
                    pytest.fail("\n".join(told), pytrace=False)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        output = getattr(node, "workeroutput", {})
        if "guard" in output:
            left, memory = output["guard"]
            node.config.stash[LEFT].extend(left)
            node.config.stash[MEMORY][node.gateway.id] = memory

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, Any, Any]:
        result = yield
        config = session.config
        config.stash[LEFT].extend(self.guard.clear(shared=True))
        if not self.controller:
            config.stash[MEMORY]["this process"] = f"{peak_bytes() / 1e6:,.0f} MB"
        if hasattr(config, "workeroutput"):
            config.workeroutput["guard"] = (config.stash[LEFT], config.stash[MEMORY]["this process"])
        elif config.stash[LEFT]:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        for sentence in config.stash[LEFT]:
            terminalreporter.write_line(f"LEFT RUNNING: {sentence}", red=True)
        if config.stash[MEMORY]:
            peaks = ", ".join(f"{name} {peak}" for name, peak in sorted(config.stash[MEMORY].items()))
            terminalreporter.write_line(f"peak memory: {peaks}")


def trim() -> None:
    """Have glibc give back what was freed: each of its arenas, one a thread, keeps that for itself."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _log_memory(name: str, before: int) -> None:
    """With PYTEST_GUARD_LOG=file a line for each file of tests: memory after it, and once that was trimmed, and at its peak so far."""
    if path := os.environ.get("PYTEST_GUARD_LOG"):
        now = psutil.Process().memory_info().rss
        with Path(path).open("a") as log:
            log.write(f"{os.environ.get(WORKER, '-')} {before / 1e6:.0f} -> {now / 1e6:.0f} MB, peak {peak_bytes() / 1e6:.0f} MB: {name}\n")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT], config.stash[MEMORY] = [], {}
    spared = set()
    is_worker = hasattr(config, "workerinput")
    if not is_worker:
        before = os.environ.get(RUN)
        os.environ[RUN] = f"{before or ''}/{uuid4().hex}"
        config.stash[WATCHER] = watch(os.environ[RUN])
        spared = {config.stash[WATCHER].pid}

        def restore() -> None:
            config.stash[WATCHER].kill()  # the run ended by itself, and looked after everything
            config.stash[WATCHER].wait()
            os.environ.pop(RUN)
            if before is not None:
                os.environ[RUN] = before

        config.add_cleanup(restore)
    controller = not is_worker and bool(config.getoption("numprocesses", None) or config.getoption("tx", None))
    guard = Guard(os.environ[RUN], os.environ.get(WORKER), controller, spared)
    config.pluginmanager.register(Plugin(guard, controller), "guard-of-processes")


def watch(run: str) -> subprocess.Popen[bytes]:
    """Start a process that ends what this one leaves when it is killed."""
    variables = {name: value for name, value in os.environ.items() if name != RUN}
    return subprocess.Popen(
        [sys.executable, __file__, str(os.getpid()), run], env=variables, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def main(parent: int, run: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(parent).wait()
    while left := [process for process in psutil.process_iter() if environment(process).get(RUN, "").startswith(run) and runs(process)]:
        end(left)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
