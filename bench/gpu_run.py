"""Proves, profiles and measures fishserve on a GPU, from a folder that `make gpu-bundle` has packed.

    python3 run.py prove | profile | measure [--out FOLDER] [--stand-in]

The machine needs Python, torch and triton, and no network. Each command takes less than ten minutes, writes JSON and a log to FOLDER (or
$OUT, or ./results), and says in words what it found. `--stand-in` tries the whole on a machine without a GPU, with a tiny model and plain
PyTorch in place of the kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
SITE, REPOSITORY = HERE / "site", HERE / "repo"
LIMIT_SECONDS = 560
"""Of a command, all of its steps together."""


class Run:
    """The steps of a command, each a process with its own limit, so that one that hangs or crashes takes none of the others with it.

    A stand-in has no limit: how fast it is says nothing of a GPU.
    """

    def __init__(self, out: Path, stand_in: bool) -> None:
        self.out, self.stand_in, self._until = out, stand_in, time.monotonic() + LIMIT_SECONDS
        self.checkpoint = out / "model"
        self._log = out / "log.txt"
        out.mkdir(parents=True, exist_ok=True)

    def say(self, line: str) -> None:
        """Print a line, and keep it in the log."""
        print(line, flush=True)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def step(self, name: str, *command: str, most: float = 200) -> bool:
        """Run a Python command in the bundle. Returns whether it succeeded in time."""
        limit = None if self.stand_in else min(most, self._until - time.monotonic())
        if limit is not None and limit <= 5:
            self.say(f"-- {name}: no time left")
            return False
        environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{SITE}", "FISHSERVE_VOICES_DIR": str(self.out / "voices")}
        environment["TRITON_CACHE_DIR"] = str(HERE / "kernels")
        if self.stand_in:
            environment |= {"FISHSERVE_THREADS": "1", "TRITON_INTERPRET": "1"}
        started = time.monotonic()
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"\n-- {name}: {' '.join(command)}\n")
            log.flush()
            try:
                code = subprocess.run(
                    [sys.executable, *command], env=environment, stdout=log, stderr=log, timeout=limit, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
        ended = "took too long" if code is None else f"exit code {code}"
        self.say(f"-- {name}: {ended}, {time.monotonic() - started:.0f} s")
        return code == 0

    def inner(self, name: str, *arguments: str, most: float = 200) -> bool:
        """Run one of this file's own steps."""
        return self.step(name, str(HERE / "run.py"), "step", *arguments, *(["--stand-in"] if self.stand_in else []), most=most)

    def bench(self, name: str, *arguments: str, file: str, most: float = 200) -> bool:
        """Run a bench, with its record in `file`."""
        return self.inner(name, "bench", *arguments, "--checkpoint", str(self.checkpoint), "-o", str(self.out / file), most=most)

    def read(self, file: str) -> Any:
        """What a step has written; None if it has not."""
        path = self.out / file
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def main() -> None:
    """Run one of the three commands, or, in a process of theirs, a step."""
    if sys.argv[1:2] == ["step"]:
        _step(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["prove", "profile", "measure"])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "results")))
    parser.add_argument("--stand-in", action="store_true")
    given = parser.parse_args()
    run = Run(given.out.resolve(), given.stand_in)
    _unpack()
    if not run.inner("machine", "machine", str(run.out / "machine.json"), most=60):
        run.say("the machine is not fit for this; the log says why: " + (_last_line(run.out / "log.txt")))
        sys.exit(1)
    if not (run.checkpoint / "config.json").is_file():
        shape = "tiny" if run.stand_in else "full"
        run.inner("a model with random weights", "cli", "random-checkpoint", str(run.checkpoint), "--shape", shape)
    {"prove": _prove, "profile": _profile, "measure": _measure}[given.command](run)


def _unpack() -> None:
    """Wheels are ZIP files of what goes into a folder of packages."""
    tag = f"cp3{sys.version_info.minor}"
    for wheel in sorted((HERE / "wheels").glob("*.whl")):
        if f"-{tag}-" not in wheel.name and "-py3-" not in wheel.name and "-py2.py3-" not in wheel.name and "-abi3-" not in wheel.name:
            sys.exit(
                f"{wheel.name} is not for Python 3.{sys.version_info.minor}: pack the bundle again, with PYTHON_VERSION=3.{sys.version_info.minor}"
            )
        if not (SITE / wheel.name).exists():
            with zipfile.ZipFile(wheel) as content:
                content.extractall(SITE)
            (SITE / wheel.name).touch()


def _prove(run: Run) -> None:
    run.inner("cold start, one row", "profile", "1", str(run.checkpoint), str(run.out / "cold.json"))
    run.inner("start with compiled kernels, one row", "profile", "1", str(run.checkpoint), str(run.out / "warm.json"))
    run.bench("frames of 1 and 8 streams, and their proof", "frames", "--streams", "1,8", file="frames-1-8.json")
    cold, warm, frames = run.read("cold.json"), run.read("warm.json"), run.read("frames-1-8.json")
    _say_graphs(run, cold)
    if cold and warm:
        run.say(
            f"an engine of one row starts in {cold['start_seconds']:.1f} s cold, and {warm['start_seconds']:.1f} s with its kernels compiled"
        )
    for one in (frames or {}).get("runs", []):
        if proof := one.get("proof"):
            good = proof["behind"] < 0.3 and proof["as_again"] == 1 and proof["draws"] > 0.999
            run.say(f"{one['streams']} streams: {'right' if good else 'WRONG'}: " + ", ".join(f"{k} {v:.3f}" for k, v in proof.items()))
    _say_frames(run, frames)


def _profile(run: Run) -> None:
    run.inner("fast layers in separate kernels and in one, in turns", "in-turns", str(run.checkpoint), str(run.out / "fast-layers.json"))
    for one in run.read("fast-layers.json") or ():
        _say_graphs(run, one)
        if one["seconds"]:
            run.say(
                f"fast layers {one['fast_layers']}: a frame on the device {1e6 * statistics.median(one['seconds']):.0f} µs, "
                f"{len(one['seconds'])} times; choices at most {one['behind']:.3f} behind"
            )
    for rows in (8, 64):
        run.inner(f"profile of {rows} rows", "profile", str(rows), str(run.checkpoint), str(run.out / f"profile-{rows}.json"))
    run.inner("kernels that do not overlap", "profile", "1", str(run.checkpoint), str(run.out / "no-overlap.json"), "overlap=0")
    run.inner("own products up to 2 rows", "profile", "8", str(run.checkpoint), str(run.out / "narrow-2.json"), "narrow=2")
    streams = "2,4" if run.stand_in else "32,64,128"
    run.bench("frames of many streams", "frames", "--streams", streams, file="frames-many.json", most=300)
    for file in ("profile-8.json", "profile-64.json", "no-overlap.json", "narrow-2.json"):
        found = run.read(file)
        _say_graphs(run, found)
        if found and "seconds" in found:
            middle = statistics.median(found["seconds"])
            run.say(f"{file}: {found['rows']} rows, a frame on the device {1e6 * middle:.0f} µs, {found['rows'] / middle:.0f} frames/s")
            for name, count, seconds in found["kernels"][:8]:
                run.say(f"    {1e6 * seconds:8.1f} µs  {count:5.1f} x  {name[:80]}")
    _say_frames(run, run.read("frames-many.json"))


def _measure(run: Run) -> None:
    levels, seconds = ("1,4", "2") if run.stand_in else ("1,8,64,128", "15")
    run.bench("latency", "latency", "--concurrency", levels, "--seconds", seconds, file="latency.json", most=420)
    run.bench("codec", "codec", file="codec.json", most=100)
    if latency := run.read("latency.json"):
        run.say(f"kernels: {latency.get('graphs') or 'of a CPU'}")
    run.step("tables", "-m", "inference.cli", "bench", "report", *(str(run.out / f) for f in ("latency.json", "codec.json")))


def _say_graphs(run: Run, found: Any) -> None:
    if found is None:
        run.say("a step left nothing behind: see the log")
        return
    for part in ("how", "prefill"):
        if found.get(part, "graphs") != "graphs":
            run.say(f"NOT the fastest way: {found[part]}")


def _say_frames(run: Run, frames: Any) -> None:
    for one in (frames or {}).get("runs", []):
        if one["seconds"]:
            host = one["frames"] / statistics.median(one["seconds"])
            device = (
                f", the device alone {one['frames'] / statistics.median(one['device_seconds']):.0f}" if one.get("device_seconds") else ""
            )
            run.say(
                f"{one['case']}, {one['streams']} streams: {host:.0f} frames/s{device}, {host / 21.533:.0f} s of sound a second; {one.get('how', 'graphs')}"
            )


def _last_line(file: Path) -> str:
    return next((line for line in reversed(file.read_text(encoding="utf-8").splitlines()) if line and not line.startswith("--")), "")


# -- steps, each in its own process with the bundle's packages ------------------------------------------------------------


def _step(arguments: list[str]) -> None:
    stand_in = "--stand-in" in arguments
    what, *rest = [a for a in arguments if a != "--stand-in"]
    if what == "machine":
        _machine(Path(rest[0]), stand_in)
        return
    from inference.cpu_threads import prepare

    prepare()
    if stand_in:
        _stand_in()
    device = "cpu" if stand_in else "cuda"
    if what == "in-turns":
        _in_turns(Path(rest[0]), Path(rest[1]), device)
        return
    if what == "profile":
        _profile_rows(int(rest[0]), Path(rest[1]), Path(rest[2]), dict(flag.split("=") for flag in rest[3:]), device)
        return
    sys.argv = ["fishserve", *rest] if what == "cli" else ["fishserve", "bench", *rest, "--device", device]
    runpy.run_module("inference.cli", run_name="__main__")


def _machine(out: Path, stand_in: bool) -> None:
    import torch

    found: dict[str, Any] = {"python": sys.version, "torch": torch.__version__, "cuda": torch.version.cuda, "cpus": os.cpu_count()}
    from inference import cuda_driver

    driver = cuda_driver.find()
    found["driver"] = str(driver)
    if not stand_in:
        if problem := cuda_driver.problem(torch.__version__, torch.version.cuda, driver):
            sys.exit(problem)
        import triton

        properties = torch.cuda.get_device_properties(0)
        found |= {
            "triton": triton.__version__,
            "gpu": properties.name,
            "memory": properties.total_memory,
            "sms": properties.multi_processor_count,
        }
        found["nvidia_smi"] = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False).stdout
    print(found)
    out.write_text(json.dumps(found), encoding="utf-8")


def _profile_rows(rows: int, checkpoint: Path, out: Path, flags: dict[str, str], device: str) -> None:
    import torch

    from bench.frame_profile import profiled
    from inference.model import checkpoint as checkpoints

    if device == "cuda":
        from inference.engine import cuda_decode_step, launching

        if "narrow" in flags:
            for module in (launching, cuda_decode_step):  # which imports it by name
                patch.object(module, "NARROW", int(flags["narrow"])).start()
        if flags.get("overlap") == "0":
            launching.overlap = lambda allowed: None  # noqa: ARG005 - the engine must not allow it again
            launching._overlap = False
    started = time.perf_counter()
    loaded = checkpoints.load(checkpoint, torch.device(device))
    found = {"flags": flags, "load_seconds": time.perf_counter() - started, **profiled(loaded, rows)}
    out.write_text(json.dumps(found), encoding="utf-8")


def _in_turns(checkpoint: Path, out: Path, device: str) -> None:
    import torch

    from bench.frame_profile import in_turns
    from inference.model import checkpoint as checkpoints

    out.write_text(json.dumps(in_turns(checkpoints.load(checkpoint, torch.device(device)))), encoding="utf-8")


def _stand_in() -> None:
    """Every runner goes the way it goes on CUDA, with plain PyTorch in place of kernels and graphs."""
    from inference.engine.runner import Runner
    from tests.inference.engine.eager_step import with_graphs

    make = Runner.__init__

    def made(self: Runner, *arguments: Any, **named: Any) -> None:
        named.pop("fast_layers", None)  # a CPU refuses one kernel for them
        make(self, *arguments[:3], **named)
        with_graphs(self)
        self.how = self.prefill_how = "graphs"

    patch.object(Runner, "__init__", made).start()


if __name__ == "__main__":
    main()
