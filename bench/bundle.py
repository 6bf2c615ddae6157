"""Packs fishserve for a machine with a GPU, torch and triton, but no network: `python -m bench.bundle FOLDER`.

The folder holds the committed code, the wheels that torch does not bring, and `run.py`, which is `bench/gpu_run.py`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("fishserve", "inference", "bench", "saas/*.py", "tests/inference/engine/eager_step.py", "LICENSE", "NOTICE")
LEFT_OUT = "bench/results"
WHEELS = (
    *("numpy", "safetensors", "tiktoken", "regex", "prometheus-client", "vector-quantize-pytorch", "einops", "einx", "frozendict"),
    *("typer", "annotated-doc", "click", "shellingham", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("pydantic", "pydantic-core", "pydantic-settings", "python-dotenv", "typing-inspection", "typing-extensions", "annotated-types"),
    *("num2words", "babel"),
)
"""What the benches import beside torch. Nothing here decodes files or serves HTTP."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_5_x86_64")
MAX_BYTES = 60_000_000


def pack(folder: Path, python: str) -> int:
    """Write the bundle to `folder`, in place of an earlier one. Returns its size in bytes. Exits with a sentence if it is too large."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "repo").mkdir(parents=True)
    files = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", *CODE], capture_output=True, text=True, check=True).stdout.split("\0")
    for file in filter(None, files):
        if not file.startswith(LEFT_OUT):
            (folder / "repo" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / "repo" / file)
    shutil.copy(ROOT / "bench/gpu_run.py", folder / "run.py")
    abi = f"cp{python.replace('.', '')}"
    platforms = [f"--platform={name}" for name in (*PLATFORMS, "any")]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
         f"--python-version={python}", "--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none", *platforms,
         "--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder / "wheels"), *WHEELS],
        check=True,
    )  # fmt: skip
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if size > MAX_BYTES:
        sys.exit(f"{folder} has {size / 1e6:.0f} MB; a machine that is lent takes {MAX_BYTES / 1e6:.0f} MB")
    return size


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(f"{target}: {pack(target, (sys.argv[2:] or ['3.12'])[0]) / 1e6:.1f} MB; there: python3 run.py prove, then profile, then measure")
