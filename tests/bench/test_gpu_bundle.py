"""The folder for a machine with a GPU and no network: what its steps find, and, as a drill, the whole of it without either."""

import json
import subprocess
import sys
from unittest.mock import patch

import pytest

from bench import bundle, frame_profile, gpu_run
from inference.engine.runner import Runner
from tests.inference.engine.eager_step import with_graphs
from tests.waiting import HANG_SECONDS


def test_a_frame_is_timed_and_taken_apart(golden, monkeypatch):
    monkeypatch.setattr(frame_profile, "REPLAYS", 2)
    monkeypatch.setattr(frame_profile, "FRAMES", 2)
    assert frame_profile.profiled(golden, 1).keys() == {"rows", "start_seconds", "how", "prefill"}
    monkeypatch.setattr(frame_profile, "Runner", lambda *given: with_graphs(Runner(*given)))
    found = frame_profile.profiled(golden, 2)
    assert len(found["seconds"]) == 2
    assert max(found["seconds"]) > 0
    assert all(count > 0 and seconds >= 0 for _, count, seconds in found["kernels"])


def test_both_kinds_of_fast_layers_are_timed_in_turns(golden, monkeypatch):
    for name in ("REPLAYS", "FRAMES", "TURNS"):
        monkeypatch.setattr(frame_profile, name, 2)
    monkeypatch.setattr(frame_profile, "Runner", lambda *given, fast_layers: with_graphs(Runner(*given)))  # noqa: ARG005
    found = frame_profile.in_turns(golden)
    assert [one["fast_layers"] for one in found] == ["separate", "persistent"]
    assert all(len(one["seconds"]) == 4 and one["behind"] < 0.3 for one in found)


def test_what_is_wrong_is_said_in_words(tmp_path, capsys):
    run = gpu_run.Run(tmp_path, stand_in=True)
    (tmp_path / "cold.json").write_text(json.dumps({"how": "eager; graphs failed: RuntimeError: not supported"}))
    gpu_run._say_graphs(run, run.read("cold.json"))
    gpu_run._say_graphs(run, run.read("warm.json"))
    assert not run.step("broken", "-c", "raise SystemExit(3)")
    said = capsys.readouterr().out
    assert "NOT the fastest way: eager; graphs failed: RuntimeError: not supported" in said
    assert "a step left nothing behind: see the log" in said
    assert "-- broken: exit code 3" in said
    assert (tmp_path / "log.txt").read_text().count("broken") == 2


@pytest.mark.parametrize(("given", "named"), [(("native", "persistent"), {}), ((), {"fast_layers": "persistent"})])
def test_the_stand_in_takes_all_that_a_runner_does(golden, given, named):
    """The engine gives it by position, the profile by name."""
    try:
        gpu_run._stand_in()
        assert Runner(golden, 1, *given, **named).how == "graphs"
    finally:
        patch.stopall()


@pytest.mark.drill
def test_the_whole_is_small_and_runs_without_a_gpu(tmp_path):
    size = bundle.pack(tmp_path / "bundle", f"3.{sys.version_info.minor}")
    assert size < bundle.MAX_BYTES
    for command in ("prove", "profile", "measure"):
        done = subprocess.run(
            [sys.executable, tmp_path / "bundle/run.py", command, "--stand-in", "--out", tmp_path / "out"],
            capture_output=True, text=True, timeout=HANG_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "exit code 0" in done.stdout
        assert not any(words in done.stdout for words in ("exit code 1", "took too long", "NOT the fastest", "WRONG", "left nothing"))
