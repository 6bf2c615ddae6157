"""Compares our decoding with another implementation: same weights, prompts and machine, in alternation within one run.

All are loaded once and measured alternately, so that other load on the machine affects all of them. The comparison uses each round's ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.prompts import prompts
from bench.record import Record
from bench.serving import Step
from inference.cpu_threads import unprepared
from inference.errors import FishserveError, RequestError
from inference.model.config import DualARConfig
from inference.model.prompt import PromptBuilder
from inference.model.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / ".venv-reference" / "bin" / "python"
BASELINES = ("reference", "compiled", "self", "short")
OURS = ("ours", "self", "short")
SHORT = 1024
"""Positions of the cache in the baseline `short`: our engine, to show that a larger cache costs nothing."""
FRAMES, DECODED, ROWS = 16, 64, 8


class Subject:
    """A process that runs measurements on request."""

    def __init__(self, name: str, command: Sequence[str | Path], threads: int) -> None:
        environment = (dict(os.environ) if name in OURS else unprepared(os.environ)) | {
            "OMP_NUM_THREADS": str(threads),
            "LOGURU_LEVEL": "WARNING",
            "TQDM_DISABLE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self._name = name
        # A separate session: only this process gets Ctrl-C, and it ends the others by closing their input.
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """The process's answer. Raises FishserveError when the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise FishserveError(f"the process of {self._name} ended; its own words are above") from None
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def compare(
    checkpoint: Path, device: torch.device, baselines: Sequence[str], rounds: int, threads: int, record: Record, step: Step
) -> None:
    """Run one round that does not count, then `rounds`.

    Every other round runs the cases in reverse, so no case always follows the same one.
    """
    cases = _cases(baselines, device)
    record.runs += cases
    texts = _prompts(checkpoint)
    with ExitStack() as stack:
        subjects = {}
        for who in dict.fromkeys(c["who"] for c in cases):
            where = stack.enter_context(_shortened(checkpoint)) if who == "short" else checkpoint
            subjects[who] = Subject(who, _command(who, where, threads, device), threads)
            stack.callback(subjects[who].close)
        for n in range(-1, rounds):
            round_prompts = list(islice(texts, ROWS))
            with step("warm-up" if n < 0 else f"round {n + 1} of {rounds}", None):
                for case in reversed(cases) if n % 2 else cases:
                    request = dict(case["request"])
                    if request["what"] == "frames":
                        request |= {"prompts": round_prompts[: case["rows"]], "frames": FRAMES}
                    case["warmup" if n < 0 else "rounds"].append(subjects[case["who"]].measure(request))
            record.write()


def _cases(baselines: Sequence[str], device: torch.device) -> list[dict[str, Any]]:
    """The measurements of each subject; our engine also has cases that the others cannot run.

    The reference compiles its language model, not its codec.
    """
    for name in baselines:
        if name not in BASELINES:
            raise RequestError(f"baseline {name!r} is not one of {', '.join(BASELINES)}", "baseline")
        if name not in OURS and not REFERENCE.exists():
            raise RequestError(f"{REFERENCE.relative_to(ROOT)} is missing; `make reference` makes it")
    kinds = ["native"] if device.type != "cpu" else ["native", "int8"]
    found = [_case(who, "1 stream", 1, what="frames") for who in baselines]
    found += [
        _case("ours", f"{rows} stream{'s'[: rows > 1]}{', int8' * (kind == 'int8')}", rows, what="frames", weights=kind)
        for rows in (1, ROWS)
        for kind in kinds
    ]
    return found + [_case(who, "codec decode", 1, what="decode", frames=DECODED) for who in (*baselines, "ours") if who != "compiled"]


def _case(who: str, name: str, rows: int, **request: Any) -> dict[str, Any]:
    return {"who": who, "case": name, "rows": rows, "request": request, "warmup": [], "rounds": []}


def _command(who: str, checkpoint: Path, threads: int, device: torch.device) -> list[str | Path]:
    arguments = [str(checkpoint.resolve()), str(threads), str(device)]
    if who in OURS:
        return [sys.executable, "-m", "bench.subject", *arguments]
    if not list(checkpoint.glob("model.pth")):
        raise RequestError(
            f"{checkpoint} has no model.pth, which the reference implementation reads; give a checkpoint in the official format"
        )
    return [REFERENCE, "-m", "bench.reference.subject", *arguments, "compiled" if who == "compiled" else "eager"]


@contextmanager
def _shortened(checkpoint: Path) -> Iterator[Path]:
    """The same checkpoint with a context of SHORT positions."""
    with TemporaryDirectory() as directory:
        for file in checkpoint.iterdir():
            (Path(directory) / file.name).symlink_to(file.resolve())
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        (Path(directory) / "config.json").unlink()
        (Path(directory) / "config.json").write_text(json.dumps(config | {"max_seq_len": SHORT}), encoding="utf-8")
        yield Path(directory)


def _prompts(checkpoint: Path) -> Iterator[list[list[int]]]:
    """Columns (1 + codebooks, time) of prompts, for ours and the reference implementation alike."""
    codebooks = DualARConfig.from_file(checkpoint / "config.json").num_codebooks
    builder = PromptBuilder(Tokenizer.from_file(checkpoint / "tokenizer.tiktoken"), codebooks)
    for prompt in prompts(["long"]):
        yield torch.cat((builder.system(), builder.segment(prompt.text)), dim=1).tolist()
