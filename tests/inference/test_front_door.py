"""`import fishserve` and `python -m fishserve`, which a stranger tries first."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import fishserve
import inference


def test_it_has_the_names_of_the_engine():
    assert fishserve.__all__ == inference.__all__
    assert all(getattr(fishserve, name) is getattr(inference, name) for name in fishserve.__all__)
    assert "SpeechEngine" in dir(fishserve)
    with pytest.raises(AttributeError, match="fishserve"):
        _ = fishserve.nothing


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "fishserve", *arguments], capture_output=True, text=True, check=False)


def test_the_module_is_the_command():
    assert run("--version").stdout == f"fishserve {version('fishserve')}\n"


@pytest.mark.parametrize("command", [[], ["say"], ["voices", "add"], ["bench", "http"], ["saas", "check"]])
def test_h_is_help(command):
    done = run(*command, "-h")
    assert done.returncode == 0
    assert "Usage" in done.stdout
