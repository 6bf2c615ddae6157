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


KOKORO = ("kokoro.int8.onnx", "vocab.json", "voices/af_heart.bin")


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Runs a program, in a folder with the names of Kokoro's files, to whom all packages are there but one; returns its last word."""

    def run(command, missing=None):
        found = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else found(name, *rest) or True)
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return ended.value.code

    monkeypatch.chdir(tmp_path)
    (tmp_path / "voices").mkdir()
    for name in KOKORO:
        (tmp_path / name).touch()
    return run


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("program", "package"),
    [
        ("training.sound -o scores.json", "distillmos"),
        ("training.evaluate --mos -o scores.json", "distillmos"),
        ("training.word_times -o times.json", "pocketsphinx"),
        ("training.cloning --kokoro . -o cloning.json", "resemblyzer"),
        ("training.cloning --kokoro . -o cloning.json", "pkg_resources"),
        ("training.speakers --kokoro . --checkpoint . --out scores.json", "resemblyzer"),
    ],
)
def test_it_says_before_it_measures_that_a_package_is_missing(program, package, said):
    assert said(program, missing=package) == f"this needs {package}: --help and training/README.md tell how to install it"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("training.sound -o scores.json", "var/minnow has no held_test.pt"),
        ("training.speakers --kokoro . --checkpoint . --out scores.json", "var/minnow has no held_validation.pt"),
    ],
)
def test_it_says_that_no_stage_has_run_and_which_must(program, missing, said):
    message = said(program)
    assert message.startswith(missing)
    assert "`python -m training speech" in message


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("program", ["training.cloning -o cloning.json", "training.speakers --checkpoint . --out scores.json"])
def test_it_says_which_of_kokoros_files_is_missing(program, said, tmp_path, capsys):
    (tmp_path / "vocab.json").unlink()
    assert said(f"{program} --kokoro .") == 2
    assert "--kokoro: there is no file vocab.json" in capsys.readouterr().err
