"""How many threads compute on this machine's CPUs, and how they wait for each other.

The OpenMP runtime reads its environment once, when torch loads it, so `prepare` must run before the first `import torch`.
This module therefore imports neither torch nor any third-party package.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

THREADS = "FISHSERVE_THREADS"
OMP_THREADS = "OMP_NUM_THREADS"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Each of these decides how an idle OpenMP thread waits. A user who set one of them has chosen."""
SPINS = 1_000
"""How often an idle thread of libgomp looks for work before it sleeps: less than a millisecond. docs/performance.md says what others cost."""
COUNTS = (OMP_THREADS, "MKL_NUM_THREADS")
"""Each of these decides with how many threads torch starts."""
PREPARED = "FISHSERVE_PREPARED"
"""What `prepare` set, as `NAME=VALUE NAME=VALUE`, so that a child process does not take it for the user's choice."""
SMALL_MODEL_BYTES = 64 << 20
"""A language model below this size computes with one thread.

Its matrices stay in a cache and each product takes microseconds, less than waking a second thread costs.
minnow has 23 MB of FP32 weights, FishSpeech 1.5 has 2.5 GB.
"""

_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True)
class Choice:
    """A number of threads, and the reason for it."""

    threads: int
    reason: str


def prepare(root: Path = Path("/")) -> None:
    """Set the OpenMP variables that the user has not set. Child processes inherit them.

    By default an idle thread spins: libgomp, which torch ships on Linux, spins 300,000 times (milliseconds) before it sleeps.
    When another program needs the core, the spinning thread uses up its own time slice, then the thread it waits for does not run either,
    and speech took ten times as long. A thread that sleeps at once is slower to wake than most operations are long: at the released shape that
    cost a tenth of the speed of an idle machine. `SPINS` turns are enough for those, and few enough for the neighbours.

    GOMP_SPINCOUNT is libgomp's own variable and takes precedence there. LLVM's libomp (macOS) and Intel's libiomp5 (Windows) know only the
    standard `OMP_WAIT_POLICY`. MKL and oneDNN in torch's wheels compute on the same runtime.
    """
    chosen: dict[str, str] = {}
    if not any(_users(name) for name in WAITING):
        chosen |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
    if not any(_users(name) for name in COUNTS):
        chosen[OMP_THREADS] = str(available(root).threads)
    os.environ.update(chosen)
    if chosen:
        os.environ[PREPARED] = " ".join(f"{name}={value}" for name, value in chosen.items())


def unprepared(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what `prepare` set, for a program that is not ours."""
    return {name: value for name, value in environment.items() if name != PREPARED and _users(name) == value}


def available(root: Path = Path("/")) -> Choice:
    """The most threads that can compute at once: the user's number, else the machine's limit."""
    if (said := users_choice()) is not None:
        return said
    allowed = allowed_cpus()
    cores = physical_cores(allowed, root)
    reason = f"this process may use {_count(len(allowed), 'CPU')} of {os.cpu_count()}"
    if cores < len(allowed):
        reason += f", which are {_count(cores, 'physical core')}"
    quota = cpu_quota(root)
    if quota is not None and quota < cores:
        cores = max(1, int(quota))  # one thread more would stall all threads for the rest of each period
        reason += f"; the cgroup's quota is {quota:g} CPUs"
    return Choice(cores, reason)


def choose(weight_bytes: int, root: Path = Path("/")) -> Choice:
    """The number of threads for a language model with `weight_bytes` of weights."""
    most = available(root)
    if users_choice() or most.threads == 1 or weight_bytes >= SMALL_MODEL_BYTES:
        return most
    return Choice(1, f"a model of {weight_bytes / 1e6:.0f} MB stays in a cache, where one thread is fastest")


def users_choice() -> Choice | None:
    """The number of threads that the user set in the environment: `FISHSERVE_THREADS`, else OpenMP's or MKL's variable."""
    for name in (THREADS, *COUNTS):
        first = _users(name).split(",")[0].strip()  # OpenMP takes a list, one number for each nesting level
        if first.isdecimal() and int(first):
            return Choice(int(first), f"{name} is {first}")
    return None


def waiting() -> str:
    """How idle threads wait, in words."""
    found = [f"{name}={os.environ[name]}" for name in WAITING if os.environ.get(name)]
    if not found:
        return "OpenMP's default: spin for a while, then sleep"
    return f"{', '.join(found)}, {'set by the user' if any(map(_users, WAITING)) else 'so that idle threads soon sleep'}"


def allowed_cpus() -> set[int]:
    """The CPUs of this process's affinity mask; all of them where the system has no masks (macOS, Windows)."""
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: set[int], root: Path = Path("/")) -> int:
    """The number of physical cores behind these CPUs: hyperthreads share one core's arithmetic units.

    If unknown, each CPU counts as a core.
    """
    return len({_text(root / _CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in cpus})


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The CPUs that this process's cgroups (v1 and v2) allow: the smallest quota of all levels. None: no quota."""
    found = []
    for version, directory, top in _cgroups(root):
        for level in (directory, *directory.parents):
            if not level.is_relative_to(top):
                break
            if version == 2:
                quota, _, period = _text(level / "cpu.max").partition(" ")
            else:
                quota, period = _text(level / "cpu.cfs_quota_us"), _text(level / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # no quota reads as "max" in v2, -1 in v1
                found.append(int(quota) / int(period))
    return min(found, default=None)


def _cgroups(root: Path) -> list[tuple[int, Path, Path]]:
    """(version, this process's directory, the topmost that is mounted) of each hierarchy that may limit CPU time.

    In a container the mount often begins below the host's root; then the directory's path omits that part of the process's path.
    """
    paths: dict[int, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            paths[2] = path
        elif "cpu" in controllers.split(","):
            paths[1] = path
    found = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, *_, options = filesystem.split(" ")
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "cpu" in options.split(",") else 0
        if version not in paths:
            continue
        _, _, _, base, point, *_ = (_unescaped(word) for word in mount.split(" "))
        top = root / point.lstrip("/")
        own = Path(paths[version])
        below = own.relative_to(base) if own.is_relative_to(base) and ".." not in own.parts else Path()
        found.append((version, top / below, top))
    return found


def _unescaped(word: str) -> str:
    """A word of mountinfo with its octal escapes for blanks decoded."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), word)


def _users(name: str) -> str:
    """The variable's value, unless it is the one that `prepare` set."""
    value = os.environ.get(name, "")
    return "" if f"{name}={value}" in os.environ.get(PREPARED, "").split() else value


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s'[: number != 1]}"
