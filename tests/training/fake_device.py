"""A second device for a machine that has none.

Its tensors say that they are on `meta`; what they hold is computed on the CPU. Like a GPU's, they refuse to be put together with
tensors that were left behind on the CPU, numbers excepted.
"""

from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

ELSEWHERE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(torch.Tensor):
    """A tensor that is elsewhere. `held` is what it holds, on the CPU."""

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype, "device": ELSEWHERE}
        made = torch.Tensor._make_wrapper_subclass(cls, held.shape, **layout, requires_grad=held.requires_grad)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kwargs=None):
        return compute(f, args, kwargs or {})


class Border(TorchDispatchMode):
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        return compute(f, args, kwargs or {})


def compute(f, args, kwargs):
    given, form = tree_flatten((args, kwargs))
    there = [x for x in given if isinstance(x, There)]
    here = [x for x in given if isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim()]
    assert not (there and here) or f in MOVES, f"{f} was given tensors of both devices"
    device = kwargs.get("device")
    stays_there = bool(there) if device is None else torch.device(device) == ELSEWHERE
    held = [x.held if isinstance(x, There) else torch.device("cpu") if isinstance(x, torch.device) else x for x in given]
    args, kwargs = tree_unflatten(held, form)
    known = {id(x.held): x for x in there}  # what was changed in place is still the same tensor
    made = f(*args, **kwargs)
    return tree_map(lambda x: known[id(x)] if id(x) in known else There(x) if stays_there and isinstance(x, torch.Tensor) else x, made)


@contextmanager
def second_device():
    """Inside, tensors can be made on or moved to ELSEWHERE. Three things of torch know devices by name or change shapes in place."""
    autocast, adamw = torch.autocast, torch.optim.AdamW
    with (
        mock.patch.object(torch, "autocast", lambda _, *args, **kwargs: autocast("cpu", *args, **kwargs)),
        mock.patch.object(torch.optim, "AdamW", lambda *args, **kwargs: adamw(*args, **kwargs | {"fused": None})),
        mock.patch.object(torch, "stft", lambda x, n, hop, window, **_: torch.fft.rfft(x.unfold(-1, n, hop) * window).transpose(-1, -2)),
        Border(),
    ):
        yield
