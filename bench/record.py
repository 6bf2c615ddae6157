"""The JSON record of a run: machine, settings and every raw sample. It is written atomically after each step."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.errors import RequestError

if TYPE_CHECKING:
    from inference.model.checkpoint import Checkpoint

SCHEMA = 2
"""Version 1 was the format of the files made before `fishserve bench`."""
DIRECTORY = Path("var/bench")


class Record:
    """One run of a command. `body` becomes the JSON; dataclasses in it are written as objects.

    `measured` is the result of `facts`; `body["runs"]` holds one object per case, in the order of measurement. `complete` is false when
    the command was stopped before its end.
    """

    def __init__(self, path: Path, command: str, settings: dict[str, Any], measured: dict[str, Any]) -> None:
        self.path = path
        self.runs: list[dict[str, Any]] = []
        self.body: dict[str, Any] = {
            "schema": SCHEMA, "command": command, "complete": False, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "settings": settings, **measured, "runs": self.runs,
        }  # fmt: skip

    def write(self) -> None:
        """Write beside the target and rename, so that a reader never sees half a file. Raises RequestError when it cannot be written."""
        self.body["load_average_at_end"] = os.getloadavg()
        draft = self.path.with_name(self.path.name + ".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self.body, default=dataclasses.asdict) + "\n", encoding="utf-8")
            os.replace(draft, self.path)
        except OSError as e:
            raise RequestError(f"cannot write {self.path}: {e.strerror or e}") from None


@contextmanager
def recording(out: Path | None, command: str, settings: dict[str, Any], measured: dict[str, Any]) -> Iterator[Record]:
    """A record that is written however the block ends: after Ctrl-C, too, it keeps the measurements made so far."""
    path = out or DIRECTORY / f"{command}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.json"
    record = Record(path, command, settings, measured)
    record.write()  # fail now rather than after an hour of measuring
    try:
        yield record
        record.body["complete"] = True
    finally:
        record.write()


def read(path: Path) -> dict[str, Any]:
    """The body of a record. Raises RequestError when it is not one."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RequestError(f"cannot read {path}: {e.strerror if isinstance(e, OSError) else 'it is not JSON'}") from None
    found = body.get("schema") if isinstance(body, dict) else None
    if found != SCHEMA:
        raise RequestError(f"{path} has schema {found!r}; this version reads {SCHEMA}, what `fishserve bench` writes")
    return dict(body)


def facts(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Facts about machine and model; without a checkpoint only about the client's machine, since measuring a server does not load torch."""
    machine: dict[str, Any] = {
        "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1), "system": platform.platform(),
        "python": platform.python_version(), "torch": _version("torch"), "fishserve": _version("fishserve"), "revision": _revision(),
        "load_average": os.getloadavg(),
    }  # fmt: skip
    if checkpoint is None:
        return {"machine": machine, "model": None}
    return {"machine": machine | _device(checkpoint), "model": _model(checkpoint)}


def _model(checkpoint: Checkpoint) -> dict[str, Any]:
    """Name, shape and weights. The name is only the directory's last part, so that a record does not reveal its path."""
    from inference.model.card import read_card

    path, files = checkpoint.path.resolve(), checkpoint.files
    read = [files.weights, files.codec, *([files.adapter.file] if files.adapter else [])]
    return {
        "name": path.name, "random": read_card(path).random, "config": dataclasses.asdict(checkpoint.config),
        "codec": dataclasses.asdict(checkpoint.codec.config),
        "sha256": {f.name: _sha256(f) for f in read},
    }  # fmt: skip


def _device(checkpoint: Checkpoint) -> dict[str, Any]:
    import torch

    from inference.cpu_threads import waiting

    facts: dict[str, Any] = {"device": str(checkpoint.device), "threads": torch.get_num_threads(), "waiting": waiting()}
    if checkpoint.device.type == "cuda":
        properties = torch.cuda.get_device_properties(checkpoint.device)
        driver = _words("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
        facts |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": driver}
    return facts


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _revision() -> str | None:
    """The measured commit, with "-dirty" when files differ from it; None outside a checkout."""
    return _words("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _words(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
