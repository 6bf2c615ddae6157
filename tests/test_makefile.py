"""What the Makefile promises: help that can be read, a text as it was typed, and an install that repairs itself."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[1]


def make(*arguments, **environment):
    done = subprocess.run(
        ["make", "--silent", "--no-print-directory", *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def fake(tmp_path):
    """An environment whose command prints its arguments, one a line; nothing real is touched."""
    for name in ("fishserve", "pip"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "server").touch()
    os.utime(tmp_path / "server", (2**32, 2**32))  # newer than whatever it is made of
    return [f"BIN={tmp_path}", f"SERVER={tmp_path / 'server'}"]


@pytest.mark.parametrize("text", ["It costs $5", 'a, b (c) $$ #d "e" $(shell echo no) `f`', "it's"])
def test_a_text_is_spoken_as_it_was_typed(fake, text):
    assert make("say", *fake, f"TEXT={text}").splitlines() == ["say", text]
    assert make("say", *fake, TEXT=text).splitlines() == ["say", text]


def test_without_a_text_there_is_one(fake):
    assert make("say", *fake).splitlines() == ["say", "Hello from fishserve."]


def test_help_is_aligned():
    lines = make("help").splitlines()
    assert len(lines) > 10
    assert {len(line) - len(line.split(None, 1)[1]) for line in lines} == {11}


def test_an_interrupted_environment_is_repaired():
    """`python -m venv` leaves a python and no pip when it is interrupted. It is never cleared: .venv may be a link to one that others use."""
    text = (ROOT / "Makefile").read_text()
    assert "$(SERVER): pyproject.toml constraints.txt | $(BIN)/pip" in text
    assert "--clear" not in text


@pytest.mark.parametrize(("target", "needs_them"), [("drill", "pytest -m drill"), ("clients", "tests/clients/install.sh")])
def test_system_packages_are_installed_before_they_are_needed(target, needs_them):
    commands = make("--dry-run", target)
    assert commands.index("tests/system.sh") < commands.index(needs_them)
