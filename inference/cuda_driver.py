"""The NVIDIA driver of this machine, and whether this torch can use it. It asks the driver itself, without torch.

CUDA of one major version runs on every driver of that version or a later one (docs.nvidia.com/deploy/cuda-compatibility).
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""The first driver for each major version of CUDA."""
OLDEST_TORCH = (2, 8)
"""It brings Triton 3.4, the first with the instructions by which a kernel waits for the one before; 2.6 and 2.7 have 3.2 and 3.3."""
KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_NO_DEVICE, _SUCCESS = 100, 0
_ERRORS = {
    3: "it is not initialised",
    100: "it sees no GPU",
    101: "a GPU's number is wrong",
    802: "the fabric manager of the GPUs is not running",
    803: "its library and its kernel module have different versions",
    804: "it cannot run this version of CUDA on this GPU",
    999: "an unknown error",
}


@dataclass(frozen=True)
class Driver:
    """`cuda` is the newest CUDA that the driver runs, 12040 for 12.4. `release` is its own number, such as 550.54.14, where it is known.

    `gpus` is how many GPUs it shows to this process; `error` says why it shows none.
    """

    cuda: int
    release: str | None
    gpus: int
    error: str | None = None

    def __str__(self) -> str:
        return f"NVIDIA driver{f' {self.release}' if self.release else ''}, for CUDA {_version(self.cuda)} and older"


def find() -> Driver | None:
    """The driver, or None where there is none. Never raises."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    number = ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(number))
    cuda = number.value
    began = library.cuInit(0)
    if began == _SUCCESS:
        counted = library.cuDeviceGetCount(ctypes.byref(number))
        return Driver(cuda, _release(), number.value if counted == _SUCCESS else 0, None if counted == _SUCCESS else _error(counted))
    return Driver(cuda, _release(), 0, _error(began))


def problem(torch_version: str, torch_cuda: str | None, driver: Driver | None) -> str | None:
    """Why torch cannot compute on a GPU, and what to do, in one sentence; None when it can.

    `torch_cuda` is `torch.version.cuda`: the CUDA that torch was built for, such as "13.0", or None.
    """
    if torch_cuda is None:
        return f"torch {torch_version} was built without CUDA: install one for CUDA, as `make clean install TORCH=cuda` does"
    if tuple(map(int, re.findall(r"\d+", torch_version)[:2])) < OLDEST_TORCH:
        return f"torch {torch_version} is too old for CUDA: torch 2.8 (with Triton 3.4) or newer is needed"
    major = int(torch_cuda.split(".")[0])
    oldest = OLDEST_DRIVERS.get(major)
    needed = f"torch {torch_version}, built for CUDA {torch_cuda}, needs " + (f"driver {oldest} or newer" if oldest else "a newer driver")
    if driver is None:
        return (
            f"there is no NVIDIA driver (libcuda.so.1 was not found), and {needed}: install it; "
            "start a container with `--gpus all` and NVIDIA's container toolkit"
        )
    if driver.cuda // 1000 < major:
        return f"found {driver}, and {needed}: update the driver, or {_other_wheel(driver)}"
    if driver.gpus == 0:
        hidden, why = os.environ.get("CUDA_VISIBLE_DEVICES"), driver.error or "it counts none"
        if hidden is not None and why.startswith(_ERRORS[_NO_DEVICE]):
            why = f"CUDA_VISIBLE_DEVICES={hidden!r} hides them all"
        return f"found {driver}, but it shows no GPU to this process ({why}); `nvidia-smi` must list one here"
    return None


def _other_wheel(driver: Driver) -> str:
    """A torch that this driver can run."""
    if driver.cuda // 1000 == 12:
        wheel = "cu129" if driver.cuda >= 12080 else "cu126"
        return f"use a torch for CUDA 12: build the image with `--build-arg TORCH_CUDA={wheel}`"
    return "use another machine: no torch that fishserve takes runs on this driver"


def _error(code: int) -> str:
    return f"{_ERRORS.get(code, 'an error that fishserve does not know')}, CUDA error {code}"


def _release() -> str | None:
    """The release that the kernel module says, the same in a container."""
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", KERNEL_MODULE.read_text().splitlines()[0])
    except (OSError, IndexError):
        return None
    return found[0] if found else None


def _version(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
