"""Shared pieces: the golden data, the golden checkpoint, and an engine on it."""

import atexit
import functools
import gc
import inspect
import json
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import pytest
from playwright.sync_api import expect
from websockets.sync.client import connect

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="fishserve-tests-")  # copies of weights never leave the test run
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["HF_HUB_OFFLINE"] = "0"
os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the CPU; it must be known before anything imports them
for name in [n for n in os.environ if n.startswith("FISHSERVE_") and not n.startswith("FISHSERVE_TEST_")]:
    del os.environ[name]

from inference import cpu_threads

cpu_threads.prepare()  # before torch is loaded

import torch
from safetensors.torch import load_file

from inference import Reference, SpeechEngine, Voice
from inference.engine import collector
from inference.model import checkpoint as checkpoints
from inference.model.checkpoint import Checkpoint
from tests.waiting import HANG_SECONDS

pytest_plugins = ["tests.guard"]
torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "fishserve", max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
hypothesis.settings.load_profile("fishserve")

# Each call of httpx.get makes a TLS context of its own, which takes 30 ms of a core to read all certificates. They share one.
ssl.create_default_context = functools.cache(ssl.create_default_context)

for phase in ("connect", "read", "write", "pool"):  # what is asked without a word of how long may take so long
    setattr(inspect.signature(httpx.get).parameters["timeout"].default, phase, HANG_SECONDS)
connect.__kwdefaults__["open_timeout"] = HANG_SECONDS
expect.set_options(timeout=1000 * HANG_SECONDS)

ABSENT = pytest.StashKey[dict[str, Path]]()
GOLDEN = Path(__file__).parent / "golden"
CODEC_FILE = "firefly-gan-vq-fsq-8x1024-21hz-generator.pth"


def golden_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def golden_tensors(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / name)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started this in the background, and the tests' programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = (
    "saas/jobs/test_death", "saas/test_end_to_end", "training/test_smoke", "bench/test_commands", "saas/jobs/test_runpod", "saas/web/test_app",
    "test_minnow", "inference/server/test_page", "worker/test_worker",
)  # fmt: skip
"""Files that take minutes: they begin first, so that none of them runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Order the files, and skip what needs a system package that is not here, and remember it; in CI nothing may be missing."""
    first = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    absent = {}
    for item in items:
        for marker in item.iter_markers("system"):
            path, package = marker.args
            if not Path(path).exists():
                absent[package] = item.path.relative_to(config.rootpath).parent
                item.add_marker(pytest.mark.skip(reason=f"needs Debian's {package}"))
    config.stash[ABSENT] = absent


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Python's collector would walk through thousands of modules and tests, again and again, for nothing: it rests meanwhile.

    Then they are frozen as by an engine that never ends. Otherwise each test's engine would collect, freeze and unfreeze all of them,
    which takes half a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        collector.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for package, group in config.stash.get(ABSENT, {}).items():
        terminalreporter.write_line(f"NOT RUN: some of {group}, for want of Debian's {package}", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if os.environ.get("CI") == "true" and session.config.stash.get(ABSENT, {}):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Torch and NumPy draw the same numbers in a test, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def golden_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden language model and codec side by side, as a released checkpoint has them."""
    directory = tmp_path_factory.mktemp("golden")
    for name in ("config.json", "model.pth", "tokenizer.tiktoken", "special_tokens.json"):
        (directory / name).symlink_to(GOLDEN / "lm_tiny" / name)
    (directory / CODEC_FILE).symlink_to(GOLDEN / "codec_tiny" / CODEC_FILE)
    return directory


@pytest.fixture(scope="session")
def golden(golden_directory: Path) -> Checkpoint:
    return checkpoints.load(golden_directory, torch.device("cpu"))


@pytest.fixture(scope="session")
def engine(golden: Checkpoint) -> Iterator[SpeechEngine]:
    with SpeechEngine(golden, slots=4) as engine:
        yield engine


@pytest.fixture(scope="session")
def prompts() -> dict[str, dict[str, Any]]:
    return {p["name"]: p for p in golden_json("lm_tiny/prompts.json")}


def voice_of(prompt: dict[str, Any]) -> Voice:
    return Voice(tuple(Reference(np.array(r["codes"]), r["text"]) for r in prompt["refs"] or ()))
