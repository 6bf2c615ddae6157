"""FishSpeech 1.5's own shape, with random weights, on a small machine."""

import subprocess
import sys

import pytest
import soundfile

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]
GIB = 1 << 30


def run(*arguments):
    """Run the command; return its peak resident memory in bytes."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, "-m", "inference.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


def test_it_is_written_loaded_and_speaks_within_6_gib(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    peaks = {"write": run("random-checkpoint", tmp_path / "full", "--shape", "full", "--seed", 0)}
    say = ("say", "Hello.", "--checkpoint", tmp_path / "full", "--seed", 1, "--max-new-tokens", 20, "-o", tmp_path / "o.wav")
    peaks["first say"] = run(*say)  # makes the memory-mapped copy
    peaks["second say"] = run(*say)
    print({name: f"{peak / GIB:.2f} GiB" for name, peak in peaks.items()})
    assert max(peaks.values()) < 6 * GIB
    assert soundfile.info(tmp_path / "o.wav").frames > 0
