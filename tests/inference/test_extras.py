"""A command whose packages are not installed says which extra brings them, in one sentence."""

import os
import subprocess
import sys

import pytest

from inference.extras import install_command
from tests.waiting import HANG_SECONDS

BASE = {"typer", "rich", "click", "pydantic", "pydantic_core", "pydantic_settings"}
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
sys.argv = {arguments!r}
import runpy
runpy.run_module({module!r}, run_name="__main__", alter_sys=True)
"""
ENGINE = ("torch", "numpy", "av", "safetensors", "tiktoken", "huggingface_hub")
SERVER = (*ENGINE, "litserve", "fastapi", "starlette", "uvicorn")
ALL = (*SERVER, "httpx", "psutil", "runpod", "boto3", "psycopg", "jwt", "stripe", "prometheus_client")


def run(module, *arguments, without):
    code = BLOCK.format(names=set(without), arguments=[module, *arguments], module=module)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        env=os.environ | {"FISHSERVE_KEYS_FILE": "no-such-file", "DATABASE_URL": "postgresql://nowhere"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "without", "extra"),
    [
        ("say Hello.", ALL, "engine"), ("say Hello. --voice anna", ALL, "engine"), ("encode a.wav", ALL, "engine"), ("decode a.npy", ALL, "engine"),
        ("doctor", ALL, "engine"), ("random-checkpoint x", ALL, "engine"), ("voices list", ALL, "engine"),
        ("voices add anna a.wav --text b", ALL, "engine"), ("download", ("huggingface_hub",), "engine"),
        ("serve", ALL, "server"), ("serve", ("litserve",), "server"), ("keys list", ALL, "server"), ("keys add a", ALL, "server"),
        ("serve --plugin saas --port 47123", ("psycopg", "jwt"), "saas,server"),
        ("bench latency", ALL, "bench"), ("bench http http://127.0.0.1:1", ("httpx",), "bench"), ("bench report a.json", ALL, "bench"),
        ("saas", ALL, "saas"), ("saas check", ALL, "saas"), ("saas bucket", ALL, "saas"), ("saas --embedded", ALL, "embedded"),
    ],
    ids=str,
)  # fmt: skip
def test_each_command_names_its_extra(command, without, extra):
    done = run("fishserve", *command.split(), without=without)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert f"[{extra}]'` installs it" in line


def test_the_worker_names_its_extra():
    done = run("worker", without=["runpod"])
    assert done.returncode == 1
    assert "`python -m worker` needs the package runpod" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("module", "arguments", "package"), [("saas.schema", ["migrate"], "psycopg"), ("saas.openapi", [], "fastapi")])
def test_the_services_own_modules_name_their_extra(module, arguments, package):
    done = run(module, *arguments, without=[package])
    assert done.returncode == 1
    assert f"needs the package {package}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_of_ours_that_is_missing_is_no_missing_extra():
    done = run("fishserve", "doctor", without=["inference.doctor"])
    assert "Traceback" in done.stderr
    assert "installs it" not in done.stderr


def test_importing_the_engine_without_its_packages_says_what_to_install():
    code = "import sys; sys.modules['numpy'] = None; import fishserve; fishserve.SpeechEngine"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: inference.SpeechEngine needs the package numpy" in done.stderr


def test_in_an_images_root_directory_the_command_names_whole_paths(monkeypatch):
    monkeypatch.chdir("/")
    assert install_command("engine").startswith(f"`{sys.prefix}/bin/pip install ")
