"""Reads named tensors from the files of torch.save and safetensors, whoever made them.

No code in them runs, and memory stays bounded. Tensors are mapped into memory, not read; what a training checkpoint
holds besides its weights is never touched.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.errors import CheckpointError
from inference.model import pickle_data
from inference.model.pickle_data import MAX_PICKLE_BYTES, Foreign, StorageRef, TensorRef

MAX_HEADER_BYTES = 8 << 20
"""Largest header of a safetensors file, and largest table of contents of an archive; FishSpeech 1.5's take less than 0.1 MiB."""

MAX_NAME = 200

Place = tuple[int, int, int]
"""Offset and size in bytes, and CRC-32, of a part of an archive."""


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file by name. `besides` names what else a training checkpoint holds; `metadata` is that of safetensors."""

    format: str
    tensors: dict[str, Tensor]
    besides: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)


def read(file: Path, *, checked: bool = True) -> TensorFile:
    """Map the tensors of a `.pth`, `.ckpt` or `.safetensors` file. `checked=False` leaves out the checksums, for a quick look.

    Raises CheckpointError, in one sentence, when the file is not readable or holds something other than named tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with file.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        value, place = _open_archive(file, mapped)
        return _named(value, _Storages(mapped, place, checked), len(mapped))
    except (OSError, ValueError, OverflowError) as e:
        reason = "".join(c if c.isprintable() else "?" for c in str(e)[:300]) or type(e).__name__
        raise CheckpointError(f"{file} is not a readable torch checkpoint ({reason}); download it again, or save it again") from None


class _Storages:
    """Bytes of a mapped file as tensors."""

    def __init__(self, mapped: mmap.mmap, place: Callable[[StorageRef], Place], checked: bool) -> None:
        self._mapped, self._place, self._checked = mapped, place, checked
        self._known: dict[str, Tensor] = {}

    def tensor(self, reference: TensorRef) -> Tensor:
        storage = reference.storage
        if math.prod(reference.shape) == 0:
            return torch.empty(reference.shape, dtype=storage.dtype)
        if storage.key not in self._known:
            self._known[storage.key] = self._flat(storage)
        flat = self._known[storage.key]
        if flat.dtype != storage.dtype or flat.numel() != storage.count:
            raise ValueError(f"its storage {storage.key} is described in two ways")
        return flat.as_strided(reference.shape, reference.stride, reference.offset)

    def _flat(self, storage: StorageRef) -> Tensor:
        offset, size, checksum = self._place(storage)
        if size != storage.count * storage.dtype.itemsize or offset < 0 or offset + size > len(self._mapped):
            raise ValueError(f"its storage {storage.key} should have {storage.count * storage.dtype.itemsize} bytes, but is cut off")
        if self._checked:
            with memoryview(self._mapped) as view, view[offset : offset + size] as part:
                if zlib.crc32(part) != checksum:
                    raise ValueError(f"its storage {storage.key} fails its checksum")
        return torch.frombuffer(self._mapped, dtype=storage.dtype, count=storage.count, offset=offset)


class _BoundedFile(io.FileIO):
    """A file of which at most MAX_HEADER_BYTES are read at once: zipfile reads a table of contents of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        if (left if size is None or size < 0 else min(size, left)) > MAX_HEADER_BYTES:
            raise ValueError(f"its table of contents is larger than {MAX_HEADER_BYTES >> 20} MiB")
        return super().read(-1 if size is None else size)


def _open_archive(file: Path, mapped: mmap.mmap) -> tuple[Any, Callable[[StorageRef], Place]]:
    """The pickled value of a zip archive, and where its storages lie."""
    if mapped[:4] != b"PK\x03\x04":
        old = mapped[:1] == b"\x80"
        raise ValueError("PyTorch before 1.6 wrote it; load and save it with a newer one" if old else f"it begins with {mapped[:12]!r}")
    try:
        with _BoundedFile(file) as opened, zipfile.ZipFile(opened) as archive:
            parts = archive.NameToInfo
    except (zipfile.BadZipFile, struct.error, NotImplementedError, IndexError):  # the third: of a zip version that Python does not know
        raise ValueError("it is cut off or damaged") from None

    def place(name: str) -> Place:
        part = parts.get(name)
        if part is None:
            raise ValueError(f"its part {name[-80:]} is missing")
        if part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 or part.compress_size != part.file_size:
            raise ValueError(f"its part {name[-80:]} is compressed or encrypted, which torch.save never does")
        header = mapped[part.header_offset : part.header_offset + 30]
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ValueError(f"its part {name[-80:]} is damaged")
        names, extra = struct.unpack("<HH", header[26:])
        return part.header_offset + 30 + names + extra, part.file_size, part.CRC

    pickles = [name for name in parts if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("it is an archive, but torch.save did not make it")
    prefix = pickles[0].removesuffix("data.pkl")
    start, size, checksum = place(pickles[0])
    if size > MAX_PICKLE_BYTES:
        raise ValueError(f"its part data.pkl has {size} bytes; at most {MAX_PICKLE_BYTES} are read")
    content = mapped[start : start + size]
    if zlib.crc32(content) != checksum:
        raise ValueError("its part data.pkl fails its checksum")
    if prefix + "byteorder" in parts:
        start, size, _ = place(prefix + "byteorder")
        if mapped[start : start + min(size, 9)] != b"little":
            raise ValueError("its numbers are big-endian; save it again on a little-endian machine")
    return pickle_data.read(io.BytesIO(content)), lambda storage: place(f"{prefix}data/{storage.key}")


def _named(value: Any, storages: _Storages, size: int) -> TensorFile:
    besides: tuple[str, ...] = ()
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        besides = tuple(name for name in value if isinstance(name, str) and _is_name(name) and name != "state_dict")
        value = value["state_dict"]
    if not isinstance(value, dict) or not value:
        raise ValueError("it does not hold a dictionary of named tensors")
    for name, tensor in value.items():
        if not isinstance(name, str) or not _is_name(name):
            raise ValueError(f"it names a tensor {str(name)[:60]!r}")
        if not isinstance(tensor, TensorRef):
            what = f"an object of {tensor.name}" if isinstance(tensor, Foreign) else f"a {type(tensor).__name__}"
            raise ValueError(f"it does not hold a dictionary of named tensors: {name} is {what[:100]}")
    total = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in value.values())
    if total > 2 * size:  # tensors may share their memory, as the two ends of a model do, but not all with all
        raise ValueError(f"its tensors would take {total} bytes, but it has {size}")
    return TensorFile("PyTorch archive", {name: storages.tensor(t) for name, t in value.items()}, besides)


def _is_name(name: str) -> bool:
    """Whether a name can stand in an error."""
    return 0 < len(name) <= MAX_NAME and name.isprintable()


def _read_safetensors(file: Path) -> TensorFile:
    try:
        with file.open("rb") as opened:
            header = int.from_bytes(opened.read(8), "little")
        if header > MAX_HEADER_BYTES:
            raise ValueError(f"its header would have {header} bytes; at most {MAX_HEADER_BYTES} are read")
        with safe_open(file, framework="pt") as f:
            names = list(f.keys())
            if odd := [name for name in names if not _is_name(name)]:
                raise ValueError(f"it names a tensor {odd[0][:60]!r}")
            return TensorFile("safetensors", {name: f.get_tensor(name) for name in names}, (), f.metadata() or {})
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{file} is not a readable safetensors file: {e}") from None
