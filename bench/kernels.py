"""Compiles the kernels of a frame for GPUs that need not be there, and says what the compiler made of each and how long it should take:
`python -m bench.kernels`.

The prediction is arithmetic, not a measurement: see `PREDICTION`.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import triton
import typer

from bench.record import Record, facts, recording
from bench.tables import tables
from inference.engine.kernel_cache import compile_at_once, without_gpu
from inference.engine.launching import NARROW
from inference.engine.prefill import SIZES
from inference.engine.weight_layouts import Weights
from inference.errors import RequestError
from inference.warm_cli import capability_of, codec_of, fill_vocoder, model_of, stand_in

if TYPE_CHECKING:
    from inference.engine.graphs import Graphs
    from inference.engine.launching import Launch
    from inference.engine.prefill import PrefillGraphs
    from inference.model.config import DualARConfig

LENGTH = 256
"""Positions that a row holds in the prediction."""
LAUNCH_SECONDS = 1.56e-6
"""A kernel of a CUDA graph whose beginning overlaps the last one's end, on an H100: github.com/msaroufim/megakernels-vs-cuda-graphs."""
BYTES_PER_SECOND, CLOCK, SCHEDULERS = 3.0e12, 1.755e9, 4
"""An H100's memory as it is read in practice, its clock, and the instructions that a multiprocessor begins in each cycle."""
PREDICTION = (
    f"predicted for an H100: {LAUNCH_SECONDS * 1e6:g} µs a kernel, and the longer of its bytes at {BYTES_PER_SECOND / 1e12:g} TB/s "
    f"and its instructions at {CLOCK / 1e9:g} GHz, {SCHEDULERS} a cycle; rows hold {LENGTH} positions"
)
FIGURES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
VOCODER = -1
ROWS_OF = {"prompts": 0, "vocoder": VOCODER}
"""In the place of a number of rows."""
VOCODER_PASS = (4, 32)
"""Streams and frames of the pass whose kernels are listed."""
LAYERS = ((1, 1), (2, 1), (1, 2))
"""Slow and fast layers of the stand-ins whose launches are counted: each more layer takes the same again."""


def main(
    of: Annotated[str, typer.Option(help="Whose kernels: frames of so many rows, `prompts`, `vocoder`.")] = "1,8,64,prompts,vocoder",
    architectures: Annotated[str, typer.Option(help="GPUs to compile for.")] = "sm_80,sm_89,sm_90,sm_100",
    weights: Annotated[str, typer.Option(help="Kinds of weights.")] = ",".join(get_args(Weights)),
    out: Annotated[Path, typer.Option("-o", "--out", help="JSON file to write.")] = Path("bench/results/kernels.json"),
) -> None:
    """The kernels of FishSpeech 1.5's shape: a JSON file, and its tables."""
    levels = [_level(name) for name in of.split(",")]
    names, kinds = architectures.split(","), weights.split(",")
    with recording(out, "kernels", {"rows": levels, "architectures": names, "weights": kinds}, facts(None)) as record:
        measure(*model_of(None), levels, names, kinds, record)
    typer.echo("\n".join(table.markdown() for table in tables(record.body)))


def _level(name: str) -> int:
    if name in ROWS_OF:
        return ROWS_OF[name]
    if name.isdecimal() and int(name):
        return int(name)
    raise typer.BadParameter(f"{name!r} is no number of rows from 1 on, nor {' or '.join(ROWS_OF)}", param_hint="--of")


def measure(
    config: DualARConfig, im_end: int, semantic_begin: int, rows: list[int], architectures: list[str], kinds: list[str], record: Record
) -> None:
    """One run for each kind of weights, architecture, number of rows and kernel. 8-bit weights have kernels for few rows alone."""
    record.body["prediction"] = PREDICTION
    record.body["machine"]["device"] = "none: kernels are compiled, not run"
    for weights in (kind for kind in get_args(Weights) if kind in kinds):
        levels = [n for n in rows if n != VOCODER and (weights == "native" or 0 < n <= NARROW)]
        if not levels:
            continue
        most = max(1, *levels)
        stand_ins = [stand_in(replace(config, n_layer=n, n_fast_layer=fast), im_end, semantic_begin, most, weights) for n, fast in LAYERS]
        for name, n in product(architectures, levels):
            record.runs += [run | {"weights": weights} for run in _runs(stand_ins, config, name, n)]
            record.write()
        del stand_ins  # some GB
        if weights == "native" and 1 in levels:
            in_one = stand_in(replace(config, n_layer=1), im_end, semantic_begin, 1, fast_layers="persistent")
            for name in architectures:
                runs = (run for run in _runs([in_one] * 3, config, name, 1) if run["kernel"] == "fast_layers")
                record.runs += [run | {"weights": weights, "seconds": None} for run in runs]  # nobody knows what its barriers take
                record.write()
    for name in architectures if VOCODER in rows else ():
        record.runs += _vocoder_runs(name)
        record.write()


def _vocoder_runs(architecture: str) -> list[dict[str, Any]]:
    """A run for each kernel of the vocoder's largest pass, without a prediction."""
    launches: list[Launch] = []
    fill_vocoder(codec_of(None), capability_of(architecture), [VOCODER_PASS], launches)
    counts, seen = Counter(map(title_of, launches)), {title_of(launch): launch for launch in launches}
    return [_run(architecture, VOCODER, launch, counts[title]) | {"weights": "native"} for title, launch in seen.items()]


def _runs(stand_ins: list[tuple[Graphs, PrefillGraphs]], config: DualARConfig, architecture: str, rows: int) -> list[dict[str, Any]]:
    capability, counts = capability_of(architecture), []
    seen: dict[str, Launch] = {}
    for frames, prompts in stand_ins:
        launches: list[Launch] = []
        run, sizes = (frames.run_eagerly, (rows,)) if rows else (prompts.run_eagerly, SIZES[:1])
        with without_gpu(capability):
            compile_at_once(run, sizes, capability, launches)
        counts.append(Counter(map(title_of, launches)))
        seen |= {title_of(launch): launch for launch in launches}
    one_each, slow, fast = counts
    found: list[dict[str, Any]] = []
    for title, launch in seen.items():
        more = (config.n_layer - 1) * (slow[title] - one_each[title]) + (config.n_fast_layer - 1) * (fast[title] - one_each[title])
        one = _run(architecture, rows, launch, one_each[title] + more)
        read = bytes_read(launch, config.num_codebooks, config.n_fast_layer)
        issuing = one["instructions"] * one["warps"] / SCHEDULERS / CLOCK  # as if each ran once
        seconds = LAUNCH_SECONDS + max(read / BYTES_PER_SECOND, issuing)
        found.append(one | {"bytes": read, "seconds": seconds if architecture == "sm_90" else None})
    return found


def _run(architecture: str, rows: int, launch: Launch, launches: int) -> dict[str, Any]:
    compiled = launch.compiled
    return {
        "architecture": architecture, "rows": rows, "kernel": launch.kernel, "title": title_of(launch), "launches": launches,
        "grid": launch.grid, "warps": compiled.metadata.num_warps, "shared": compiled.metadata.shared, **_examined(compiled),
        "bytes": 0, "seconds": None,
    }  # fmt: skip


def title_of(launch: Launch) -> str:
    """A kernel's name with what tells it from others of that name."""
    c = launch.constants
    if launch.kernel in ("linear", "dot"):
        extras = (
            word for key, word in (("SCALED", "int8"), ("NORM", "norm"), ("GATED", "gate"), ("BIAS", "bias"), ("ADD", "add")) if c[key]
        )
        together = f" of {c['ROWS'] * launch.grid[1]} rows" if launch.kernel != "linear" else ""
        return " ".join((f"product {c['N']} x {c['K']}", *extras)) + together
    if launch.kernel == "convolve":
        extras = (word for key, word in (("ADD", "add"), ("MORE", "add"), ("OUT", "sum"), ("ACTIVE", "silu")) if c[key])
        return " ".join((f"convolution {c['CHANNELS']} to {c['N']}", *extras)) + f", {c['READERS']} readers"
    if launch.kernel == "attend":
        return "attention, slow layer" if c["RAGGED"] else f"attention, fast layer, {c['TIME']} position{'s'[: c['TIME'] > 1]}"
    if launch.kernel == "draw":
        return "first draw" if c["FIRST"] else "later draw"
    names = {
        "attend_and_add": "attention and output, fast layer" + " int8" * c.get("SCALED", False),
        "fast_layers": "all fast layers in one kernel",
        "write": "keys and values of prompts",
        "attend_prompts": "attention of prompts",
    }
    return names.get(launch.kernel, launch.kernel)


def _examined(compiled: Any) -> dict[str, int]:
    """What a compiled kernel takes: registers of a thread, bytes of it that are spilled, instructions, barriers, and shuffles."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", "-sass", file.name]
        words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return figures(words)


def figures(words: str) -> dict[str, int]:
    """The figures in what `cuobjdump -res-usage -sass` says of one kernel."""
    found = FIGURES.search(words)
    assert found is not None
    registers, stack, _, local = map(int, found.groups())
    codes = [m[1] for m in map(INSTRUCTION.match, words.splitlines()) if m and m[1] != "NOP"]
    return {
        "registers": registers, "spilled": stack + local, "instructions": len(codes),
        "barriers": sum(code.startswith("BAR.") for code in codes), "shuffles": sum(code.startswith("SHFL") for code in codes),
    }  # fmt: skip


def bytes_read(launch: Launch, codebooks: int, fast_layers: int) -> int:
    """Bytes that a kernel reads from memory: weights and earlier keys and values. What the last kernels wrote is in the cache."""
    c, half = launch.constants, 2
    weight = 1 if c.get("SCALED") else half
    match launch.kernel:
        case "linear" | "dot":
            return int(weight * c["N"] * c["K"] * (1 + c["GATED"]))
        case "attend_and_add":
            return int(weight * c["N"] * c["KV"] * c["HEADS"] * c["D"])
        case "fast_layers":
            heads = c["KV"] * c["HEADS"] * c["D"]
            layer = c["DIM"] * ((heads + 2 * c["KV"] * c["D"]) + heads + 3 * c["WIDE"])
            return int(half * (fast_layers * layer + c["CODES"] * c["DIM"]))
        case "attend" if c["RAGGED"]:
            return half * launch.grid[0] * 2 * c["KV"] * LENGTH * c["D"]
        case "embed":
            return int(half * launch.grid[0] * (1 + codebooks) * c["DIM"])
        case _:
            return 0


if __name__ == "__main__":
    try:
        typer.run(main)
    except RequestError as e:
        raise SystemExit(str(e)) from None
