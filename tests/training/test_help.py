"""That every program of the recipe says what it does, and does nothing else when it is asked."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

import training

PROGRAMS = [f"training.{path.stem}" for path in Path(training.__file__).parent.glob("*.py") if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_it_tells_its_options(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [program, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    said = capsys.readouterr().out
    assert said.startswith("usage: ")
    assert len(said.partition("\n\n")[2].split()) > 10, "no sentence says what it does"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("program", [["training.sound"], ["training.evaluate", "--mos"]], ids=lambda words: words[0])
def test_it_says_before_it_measures_that_a_package_is_missing(program, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "distillmos" else found(name, *rest))
    monkeypatch.setattr(sys, "argv", [*program, "-o", str(tmp_path / "scores.json")])
    with pytest.raises(SystemExit, match="this needs distillmos"):
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
