"""What is said of a driver: real libraries of that name, compiled here, which answer as drivers of several ages do."""

import os
import shutil
import subprocess
import sys

import pytest

from inference import cuda_driver
from inference.cuda_driver import Driver, problem
from tests.waiting import HANG_SECONDS

LIBRARY = """
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
"""
ASK = "from inference.cuda_driver import find, problem; d = find(); print(d and d.gpus); print(problem('2.13.0', '13.0', d))"


def ask(folder, command=ASK, **variables):
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True, timeout=HANG_SECONDS
    )
    return done.stdout.splitlines()


@pytest.fixture
def library(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("stand-ins of NVIDIA's libcuda are compiled here, and this machine has no C compiler (`cc`)")

    def build(version, init=0, count=1):
        (tmp_path / "cuda.c").write_text(LIBRARY)
        flags = [f"-DVERSION={version}", f"-DINIT={init}", f"-DCOUNT={count}"]
        subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", tmp_path / "libcuda.so.1", tmp_path / "cuda.c"], check=True)
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((13000, 0, 2), "None"),
        ((13020,), "None"),
        ((12040,), "for CUDA 12.4 and older, and torch 2.13.0, built for CUDA 13.0, needs driver 580 or newer: update the driver, or use a torch for CUDA 12: build the image with `--build-arg TORCH_CUDA=cu126`"),
        ((12080,), "`--build-arg TORCH_CUDA=cu129`"),
        ((11080,), "no torch that fishserve takes runs on this driver"),
        ((13000, 100), "it shows no GPU to this process (it sees no GPU, CUDA error 100)"),
        ((13000, 803), "(its library and its kernel module have different versions, CUDA error 803)"),
        ((13000, 719), "(an error that fishserve does not know, CUDA error 719)"),
        ((13000, 0, 0), "(it counts none)"),
    ],
    ids=str,
)  # fmt: skip
def test_a_driver_is_found_and_judged(library, given, words):
    gpus, said = ask(library(*given))
    assert words in said
    assert int(gpus) == (0 if given[1:] and given[1:] != (0, 2) else given[2] if given[1:] else 1)


def test_hidden_gpus_and_no_driver_at_all(library, tmp_path):
    assert "CUDA_VISIBLE_DEVICES='' hides them all" in ask(library(13000, 100), CUDA_VISIBLE_DEVICES="")[1]
    (tmp_path / "libcuda.so.1").write_text("not a library")
    none, said = ask(tmp_path)
    assert none == "None"
    assert (
        "there is no NVIDIA driver (libcuda.so.1 was not found), and torch 2.13.0, built for CUDA 13.0, needs driver 580 or newer" in said
    )


def test_a_torch_for_cpus_and_one_that_is_too_old_are_named():
    driver = Driver(13000, "580.65.06", 1)
    assert problem("2.13.0+cpu", None, driver) == (
        "torch 2.13.0+cpu was built without CUDA: install one for CUDA, as `make clean install TORCH=cuda` does"
    )
    assert problem("2.7.1+cu128", "12.8", driver) == "torch 2.7.1+cu128 is too old for CUDA: torch 2.8 (with Triton 3.4) or newer is needed"
    assert problem("2.8.0", "12.8", driver) is None


@pytest.mark.parametrize(
    ("line", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build", "580.95.05"),
        ("", None),
    ],
)
def test_the_release_is_the_kernel_modules(line, release, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_driver, "KERNEL_MODULE", tmp_path / "version")
    (tmp_path / "version").write_text(line)
    assert cuda_driver._release() == release


def test_a_device_and_the_doctor_say_it_too(library):
    """This torch is built without CUDA, or has no GPU that answers: either way a driver is there and the CPU computes."""
    command = (
        "import io, logging, sys\nlogging.basicConfig(stream=sys.stdout)\nfrom rich.console import Console\n"
        "from inference.doctor import examine\nfrom inference.engine.device import pick_device\nfrom inference.settings import Settings\n"
        "console = Console(file=io.StringIO(), width=400)\nprint(pick_device('auto'))\nprint(examine(Settings(device='cuda'), console))\n"
        "print(' '.join(console.file.getvalue().split()))"
    )
    warning, device, healthy, table = ask(library(12040), command)
    assert warning.startswith("WARNING:fishserve:the CPU computes, although there is an NVIDIA driver: ")
    assert (device, healthy) == ("cpu", "False")
    assert "wrong device device 'cuda' cannot be used: " in table
