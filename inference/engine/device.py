"""What a device offers: its type, how many slots fit, which weights it may use, how many threads compute."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from inference import cpu_threads, cuda_driver
from inference.cpu_threads import Choice
from inference.engine.kv_cache import KEPT_SHARE
from inference.engine.weight_layouts import Weights
from inference.errors import RequestError
from inference.model import checkpoint as checkpoints
from inference.model.checkpoint import Checkpoint

USUAL_SLOTS = {"cpu": 8, "cuda": 64}
"""A GPU reads its weights once for all slots, and has arithmetic to spare for that many; two or more CPU cores do not."""

FastLayerKernels = Literal["separate", "persistent"]
"""How the fast layers of one row run on CUDA: each product a kernel, or all of them one (`inference.engine.fast_layers_kernels`)."""
HIGH_PRIORITY = -1
"""Of a CUDA stream. The default stream and others have 0, the lowest: their kernels get what the first leave."""
log = logging.getLogger("fishserve")

_threads: int | None = None
"""The number that `use_threads` last set in torch. Torch, too, has one number for the whole process."""


def use_threads(checkpoint: Checkpoint) -> Choice:
    """Have torch compute with the number of threads that pays off for this model. Threads that start later, such as the engine's, inherit
    it.

    A program that called `torch.set_num_threads` keeps its number. Only the number reveals such a call: it differs from those that torch
    may start with. `FISHSERVE_THREADS` and OpenMP's variables override both. On CUDA nothing changes.
    """
    global _threads  # noqa: PLW0603
    now = torch.get_num_threads()
    if checkpoint.device.type != "cpu":
        return Choice(now, "the model computes on a GPU")
    cpus = cpu_threads.allowed_cpus()
    if not cpu_threads.users_choice() and now not in (
        _threads,
        len(cpus),
        cpu_threads.physical_cores(cpus),
        cpu_threads.available().threads,
    ):
        return Choice(now, "torch.set_num_threads was called")
    choice = cpu_threads.choose(sum(p.nbytes for p in checkpoint.lm.parameters()))
    _threads = choice.threads
    if choice.threads != now:  # the call itself starts a thread pool for a library that nothing here uses
        torch.set_num_threads(choice.threads)
    return choice


def affordable_slots(checkpoint: Checkpoint, slots: int | None, budget: int | None) -> int:
    """The number of slots that fit in `budget` bytes, at most `slots` (None: the usual number for the device).

    A slot holds the whole context. The budget also covers one more slot to compute prompts in, and the prefixes that cached voices and
    waiting requests may keep.
    """
    c = checkpoint.config
    slots = slots or USUAL_SLOTS[checkpoint.device.type]
    if budget is None:
        budget = usual_kv_bytes(checkpoint.device)
    if budget is None:
        return slots
    slot = 2 * c.n_layer * c.n_local_heads * c.max_seq_len * c.head_dim * checkpoints.precision(checkpoint.device).itemsize
    slot += 2 * slot // KEPT_SHARE
    if budget < 2 * slot:
        raise RequestError(
            f"{budget / 2**30:.3g} GiB for keys and values is too little: one request and one prompt take {2 * slot / 2**30:.3g} GiB",
            "kv_gib",
        )
    return min(slots, budget // slot - 1)


def usual_kv_bytes(device: torch.device, replicas: int = 1) -> int | None:
    """The bytes for keys and values of each of `replicas` engines on a GPU: half of what is free, shared. None on a CPU."""
    return torch.cuda.mem_get_info(device)[0] // 2 // replicas if device.type == "cuda" else None


def allowed_weights(weights: Weights) -> Weights:
    """The weights asked for. Raises RequestError when there are none of that name."""
    if weights not in (known := get_args(Weights)):
        raise RequestError(f"weights {weights!r} are not one of {', '.join(known)}", "weights")
    return weights


def allowed_fast_layers(kernels: FastLayerKernels, weights: Weights, device: torch.device) -> FastLayerKernels:
    """The kernels asked for. Raises RequestError when there are none of that name, or not for this device and these weights."""
    if kernels not in (known := get_args(FastLayerKernels)):
        raise RequestError(f"fast_layers {kernels!r} is not one of {', '.join(known)}", "fast_layers")
    if kernels == "persistent" and (device.type != "cuda" or weights != "native"):
        raise RequestError(
            f"fast_layers 'persistent' needs CUDA and native weights, not {device.type} and {weights}: unset FISHSERVE_FAST_LAYERS",
            "fast_layers",
        )
    return kernels


@contextmanager
def frames_first(device: torch.device) -> Iterator[None]:
    """In this block this thread's work on a GPU goes before that of other streams: the vocoder's, and the default one, where clips are."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device, priority=HIGH_PRIORITY)
    stream.wait_stream(torch.cuda.default_stream(device))  # which loaded the weights and captured the graphs
    with torch.cuda.stream(stream):
        yield


def is_lost(device: torch.device) -> bool:
    """Whether the device can do nothing any more. After a kernel's fault CUDA refuses every call of the process; after other errors, as when
    memory runs out, it does not.
    """
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return True
    return False


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" -> a device of this machine. Raises RequestError when there is no such device.

    "auto" is the CPU where no GPU can be used. If there is one all the same, a warning says why it is not used.
    """
    if name == "auto":
        why = why_no_gpu()
        if why and cuda_driver.find():
            log.warning("the CPU computes, although there is an NVIDIA driver: %s", why)
        return torch.device("cpu" if why else "cuda")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"device {name!r} is not one of auto, cpu, cuda, cuda:N", "device") from None
    if device.type not in ("cpu", "cuda"):
        raise RequestError(f"device {name!r} is not supported; use auto, cpu or cuda", "device")
    if device.type == "cuda":
        if why := why_no_gpu():
            raise RequestError(f"device {name!r} cannot be used: {why}", "device")
        if (device.index or 0) >= torch.cuda.device_count():
            raise RequestError(f"device {name!r} is not there: this process sees {torch.cuda.device_count()} GPUs", "device")
    return device


def why_no_gpu() -> str | None:
    """Why torch cannot compute on an NVIDIA GPU here, and what to do, in one sentence; None when it can."""
    driver = cuda_driver.find()
    if problem := cuda_driver.problem(torch.__version__, torch.version.cuda, driver):
        return problem
    return None if torch.cuda.is_available() else f"found {driver}, but torch {torch.__version__} finds no GPU"
