"""Reads a pickle as data: numbers, texts, containers, and where tensors are stored. No name in it is imported or called.

Only what torch.save writes for tensors in dictionaries is understood (PyTorch's `torch/_utils.py`, Python's `pickletools`);
any other object becomes a `Foreign`, which does nothing.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

MAX_PICKLE_BYTES = 4 << 20
"""The pickle of a training checkpoint with its optimiser takes less than 1 MiB: tensors are stored beside it."""

_DTYPES = {
    "torch.FloatStorage": torch.float32, "torch.HalfStorage": torch.float16, "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.ShortStorage": torch.int16, "torch.IntStorage": torch.int32, "torch.LongStorage": torch.int64,
    "torch.BoolStorage": torch.bool, "torch.ComplexFloatStorage": torch.complex64, "torch.ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_TENSOR = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor")
_PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_CONTAINERS: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_MARKED: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "FROZENSET": list}
_SINGLE: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_REMEMBERED = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET")
_SHUFFLED = ("MARK", "POP", "DUP", "POP_MARK")
_FILLING = ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "DICT", "BUILD")
_REFERRING = ("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BINPERSID")


@dataclass(frozen=True)
class Symbol:
    """The name of a class or function. It is compared, never looked up."""

    name: str


@dataclass(frozen=True)
class Foreign:
    """An object of a class or function that is not read."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """A one-dimensional run of `count` numbers that lies outside of the pickle, under `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A view of a storage; `offset` and `stride` count numbers. It lies inside the storage, and is no larger."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read(stream: io.BytesIO) -> Any:
    """The next pickle of a stream, as data; the stream is left after it. Raises ValueError when it is damaged."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.do(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as e:  # of a stack that does not hold what it should
        raise ValueError(f"its pickle is damaged: {type(e).__name__}") from None
    raise ValueError("its pickle has no end")


class _Machine:
    """Python's pickle machine without its two instructions that call something."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        """Carry out one instruction. Those that carry a value push it."""
        stack = self.stack
        if name in _SINGLE:
            stack.append(_SINGLE[name])
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name in _MARKED:
            stack.append(_MARKED[name](self._pop_marked()))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in _REMEMBERED:
            self._remember(name, argument)
        elif name in _SHUFFLED:
            self._shuffle(name)
        elif name in _FILLING:
            self._fill(name)
        elif name in _REFERRING:
            self._refer(name, argument)
        elif argument is not None and not name.startswith(("EXT", "PERSID", "PROTO", "FRAME")):
            stack.append(argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle uses {name}, which torch.save never writes")

    def _remember(self, name: str, argument: Any) -> None:
        if name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        else:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]

    def _pop_marked(self) -> list[Any]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _shuffle(self, name: str) -> None:
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "POP_MARK":
            self._pop_marked()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        else:
            self.stack.pop()

    def _fill(self, name: str) -> None:
        """Add to a container. What is added to another object, or is the state of an object, is dropped."""
        if name == "BUILD":
            self.stack.pop()
            return
        if name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            values = self.stack[-count:]
            del self.stack[-count:]
        else:
            values = self._pop_marked()
        if name == "DICT":
            self.stack.append({})
        target = self.stack[-1]
        if isinstance(target, list) and name in ("APPEND", "APPENDS", "ADDITEMS"):
            target.extend(values)
        elif isinstance(target, dict) and name in ("SETITEM", "SETITEMS", "DICT"):
            # Other keys could take for ever to hash, such as tuples of tuples.
            target.update((k, v) for k, v in zip(values[::2], values[1::2], strict=True) if isinstance(k, str | int))

    def _refer(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Symbol(argument.replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            module, attribute = stack[-2:]
            stack[-2:] = [Symbol(f"{module}.{attribute}")]
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            function, arguments = stack[-2:]
            stack[-2:] = [_rebuilt(function, arguments)]
        elif name == "INST":
            self._pop_marked()
            stack.append(Foreign(argument.replace(" ", ".")))
        elif name == "OBJ":
            stack.append(_foreign(self._pop_marked()[0]))
        else:
            count = 2 if name == "NEWOBJ" else 3
            stack[-count:] = [_foreign(stack[-count])]


def _foreign(function: Any) -> Foreign:
    return Foreign(function.name if isinstance(function, Symbol | Foreign) else type(function).__name__)


def _rebuilt(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, Symbol) else ""
    if name == "collections.OrderedDict" and arguments == ():
        return {}
    if name in _PARAMETER and arguments:
        return arguments[0]
    if name in _TENSOR:
        return _tensor(*arguments[:4])
    return _foreign(function)


def _storage(reference: Any) -> Any:
    """What `("storage", type, key, location, count, ...)` names."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage" or not isinstance(reference[1], Symbol):
        return Foreign("a persistent id")
    kind, key, count = reference[1].name, reference[2], reference[4]
    if kind not in _DTYPES:
        return Foreign(kind)
    if not isinstance(key, str) or not _is_count(count):
        raise ValueError("its pickle names a storage in no way that torch does")
    return StorageRef(key, _DTYPES[kind], count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Any:
    if not isinstance(storage, StorageRef):
        return _foreign(storage)
    if not _are_counts(shape) or not _are_counts(stride) or len(shape) != len(stride) or not _is_count(offset):
        raise ValueError("its pickle holds a tensor without a shape")
    numbers = math.prod(shape)
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if numbers > storage.count or (numbers and last >= storage.count):
        raise ValueError(f"a tensor of shape {shape} is larger than the {storage.count} numbers stored for it")
    return TensorRef(storage, offset, shape, stride)


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= 8 and all(map(_is_count, values))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48
