"""Each command as it is used, on a tiny random checkpoint."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from bench.busy import spinning
from bench.compare import REFERENCE
from bench.record import read
from bench.soak import FLAT, _growth
from inference import cli
from inference.engine.scheduler import Scheduler
from inference.model import random_checkpoint
from tests.guard import command as words_of
from tests.guard import runs
from tests.inference.server.conftest import Server
from tests.processes import Started
from tests.waiting import HANG_SECONDS

QUICK = ("--seconds", "0.4", "--buckets", "short", "--concurrency", "1,2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bench") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Run `fishserve bench` in this process: exit code, standard output, and the record."""

    def bench(command, *arguments):
        out = tmp_path / f"{command}.json"
        where = () if command in ("report", "cost") else ("-o", out)
        monkeypatch.setattr(sys, "argv", ["fishserve", "bench", command, *map(str, (*arguments, *where))])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        words = capsys.readouterr()
        return exit_.value.code, words.out if exit_.value.code == 0 else " ".join(words.err.split()), read(out) if out.exists() else None

    return bench


def test_latency_then_its_report_and_its_cost(bench, tiny, tmp_path):
    code, words, body = bench("latency", "--checkpoint", tiny, *QUICK)
    assert code == 0
    assert "The load generator alone" in words
    assert [run["clients"] for run in body["runs"]] == [1, 2]
    assert all(s["error"] is None and s["queued"] is not None for run in body["runs"] for s in run["samples"])
    assert len(body["warmup"]) == 2
    assert body["complete"]
    page = tmp_path / "r" / "report.html"
    code, words, _ = bench("report", tmp_path / "latency.json", tmp_path / "latency.json", "-o", page)
    assert code == 0
    assert words.strip() == page.with_suffix(".md").read_text().strip()
    assert page.read_text().count("<svg") == 6
    assert "An hour of speech at 2 an hour" in bench("cost", tmp_path / "latency.json", "--price", 2)[1]


def test_throughput_goes_on_with_open_loops(bench, tiny):
    code, words, body = bench("throughput", "--checkpoint", tiny, *QUICK, "--rate", 2, "--first-audio", 0.001)
    assert code == 0
    assert [(run["loop"], run.get("rate"), run.get("met")) for run in body["runs"][2:]] == [("open", 2, False)]
    assert "2.00 requests/s" in words


def test_a_soak_sees_faults_and_finds_all_well(bench, tiny):
    code, words, body = bench("soak", "--checkpoint", tiny, "--minutes", 0.05, "--faults", 2, "--clients", 2, "--slots", 2)
    assert code == 0
    (run,) = body["runs"]
    assert run["well"]
    assert run["accepted"] == sum(run["outcomes"].values()) >= 2
    assert sum(run["faults"].values()) >= 2
    assert set(run["faults"]) <= {"poisoned row", "failed device"}
    assert "yes |" in words


def test_a_soak_fails_when_a_request_ends_twice(bench, tiny, monkeypatch):
    end = Scheduler._end
    monkeypatch.setattr(Scheduler, "_end", lambda self, job, *how: (end(self, job, *how), job.handle.deliver(None)))
    code, _, body = bench("soak", "--checkpoint", tiny, "--minutes", 0.05, "--clients", 2, "--slots", 2)
    assert code == 1
    assert body["runs"][0]["ended_not_once"] > 0


INTERRUPTIBLE = """
import signal
from inference import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests begun with & would hand down that it is ignored
cli.main()
"""


def spinners(parent):
    return [p for p in psutil.Process(parent).children() if runs(p) and "getppid" in words_of(p)]


def test_beside_neighbours_in_turns(bench, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.busy.MAX_FRAMES", 6)
    code, words, body = bench("busy", "--checkpoint", tiny, "--neighbours", 1, "--rounds", 2, "--seconds", 0.2)
    assert code == 0
    assert [(run["round"], run["neighbours"]) for run in body["runs"]] == [(0, 0), (0, 1), (1, 1), (1, 0)]
    assert len({run["audio"] for run in body["runs"]}) == 1
    assert all((run["neighbour_cpu_seconds"] > 0) == (run["neighbours"] > 0) for run in body["runs"])
    assert "1 neighbours" in words
    assert "Beside neighbours over alone" in words
    assert body["machine"]["waiting"]
    code, words, _ = bench("report", tmp_path / "busy.json", tmp_path / "busy.json", "-o", tmp_path / "r.html")
    assert code == 0
    assert "beside neighbours: times real time" in words
    assert not spinners(os.getpid())


def test_neighbours_end_when_speaking_fails():
    def fail():
        with spinning(2):
            assert len(spinners(os.getpid())) == 2
            raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError, match="broke"):
        fail()
    assert not spinners(os.getpid())


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.drill)])
def test_neighbours_end_with_the_command(tiny, tmp_path, how):
    options = ["--checkpoint", tiny, "--neighbours", 1, "--seconds", 1, "--rounds", 1000, "-o", tmp_path / "a.json"]
    command = Started()
    command.start(
        [sys.executable, "-c", INTERRUPTIBLE, "bench", "busy", *map(str, options)],
        lambda: spinners(command.process.pid), start_new_session=True,
    )  # fmt: skip
    with command:
        found = spinners(command.process.pid)
        command.process.send_signal(how)
        assert command.process.wait(HANG_SECONDS) == (130 if how == signal.SIGINT else -how)
        assert "Traceback" not in command.words()
        assert psutil.wait_procs(found, timeout=HANG_SECONDS)[1] == []


def test_memory_that_grows_is_not_flat():
    def samples(slope):
        return [{"at": float(t), "resident": 1000 + slope * t, "device": 0.0} for t in range(100)]

    assert _growth(samples(0), 100) == 1
    assert _growth(samples(1), 100) > FLAT
    assert _growth(samples(1)[:20], 100) is None


def test_codec_roofline_and_rounding(bench, tiny, monkeypatch):
    monkeypatch.setattr("bench.codec.DECODES", [(1, 8, "whole"), (2, 4, "stream")])
    for module in ("codec", "roofline"):
        monkeypatch.setattr(f"bench.{module}.timed", lambda work, _: (work(), [0.1])[1])
    monkeypatch.setattr("bench.roofline.COPIED", {"cpu": 1 << 20})
    monkeypatch.setattr("bench.roofline.MULTIPLIED", {"cpu": 64})
    assert "decode, 2 streams, chunks of 4" in bench("codec", "--checkpoint", tiny)[1]
    code, words, body = bench("roofline", "--checkpoint", tiny, "--streams", "1,2")
    assert code == 0
    assert len(body["runs"]) == 9
    assert "Measured here:" in words
    code, words, body = bench("rounding", "--checkpoint", tiny, "--texts", "1", "--frames", "3")
    assert code == 0
    assert [(run["weights"], len(run["same"])) for run in body["runs"]] == [
        (kind, 3) for kind in ("FP16", "int8 on a GPU", "int8 on a CPU")
    ]
    assert "int8 on a GPU" in words
    monkeypatch.setattr("bench.frames.SECONDS", 0.05)
    code, words, body = bench("frames", "--checkpoint", tiny, "--streams", "1,3")
    assert code == 0
    assert [(run["streams"], run["graphs"], run["proof"]) for run in body["runs"]] == [(1, False, {}), (3, False, {})]
    assert all(len(run["seconds"]) >= 5 and run["limit_seconds"] > 0 for run in body["runs"])
    assert "frame, 3 streams" in words
    monkeypatch.setattr("bench.host.ROUNDS", 20)
    code, words, body = bench("host", "--checkpoint", tiny, "--rows", "1,3")
    assert code == 0
    assert [(run["rows"], len(run["seconds"])) for run in body["runs"]] == [(1, 20), (3, 20)]
    assert "3 rows" in words


@pytest.mark.drill
def test_a_thing_beside_itself_is_compared_in_turns(bench, tiny):
    code, words, body = bench("compare", "--baseline", "short", "--rounds", 1, "--threads", 1, "--checkpoint", tiny)
    assert code == 0
    assert {case["who"] for case in body["runs"]} == {"short", "ours"}
    assert all(len(case["rounds"]) == 1 and len(case["warmup"]) == 1 for case in body["runs"])
    assert "8 streams, int8" in words


@pytest.mark.drill
def test_the_reference_eager_and_compiled_is_compared(bench, tiny):
    assert REFERENCE.exists(), "run `make reference` first"
    code, _, body = bench(
        "compare", "--baseline", "reference", "--baseline", "compiled", "--rounds", 1, "--threads", 1, "--checkpoint", tiny
    )
    assert code == 0
    assert {case["who"] for case in body["runs"]} == {"reference", "compiled", "ours"}


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    with Server(tiny, tmp_path_factory.mktemp("voices")).wait_ready() as server:
        yield server.url


def test_our_own_server_is_measured_as_any_other_and_secrets_are_not_kept(bench, server, monkeypatch):
    monkeypatch.setenv("FISHSERVE_BENCH_KEY", "sk-secret")
    code, words, body = bench("http", server.replace("://", "://anna:pass@"), *QUICK, "--rate", 2, "--first-audio", 0.001)
    assert code == 0
    assert body["model"] is None
    assert [run["loop"] for run in body["runs"]] == ["closed", "closed", "open"]
    assert all(s["error"] is None for run in body["runs"] for s in run["samples"])
    assert "The load generator alone" in words
    assert body["settings"]["url"] == server
    assert not any(secret in json.dumps(body) for secret in ("sk-secret", "anna", "pass@"))


INTERRUPTED = """
import json, os, pathlib, signal, sys
from bench import load
from inference import cli
out, measured, take = pathlib.Path(sys.argv[-1]), 0, load._take

async def taken(*arguments):
    global measured
    await take(*arguments)
    measured += out.exists() and bool(json.loads(out.read_text()).get("warmup"))
    if measured == 3:  # it is in the first level, which lasts an hour
        signal.raise_signal(signal.SIGINT)

load._take = taken
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests begun with & would hand down that it is ignored
cli.main()
"""


def test_ctrl_c_keeps_what_was_measured(tiny, tmp_path):
    out = tmp_path / "a.json"
    options = ["--checkpoint", tiny, "--seconds", "3600", "--concurrency", "1", "--buckets", "short", "-o", out]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "bench", "latency", *options], capture_output=True, text=True, check=False,
        timeout=HANG_SECONDS, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    body = read(out)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "stopped" in done.stderr
    assert not body["complete"]
    assert len(body["runs"][0]["samples"]) == 3
    assert 0 < body["runs"][0]["window"] < 3600
    assert "1 client" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latency", "--concurrency", "1,x"], "list of whole numbers"),
        (["latency", "--concurrency", "0"], "list of whole numbers"),
        (["latency", "--buckets", "huge"], "'huge' is not one of"),
        (["latency", "--checkpoint", "nowhere"], "nowhere is not a directory"),
        (["http", "http://127.0.0.1:9"], "no request of the warm-up was answered"),
        (["http", "http://127.0.0.1:9", "--api", "soap"], "openai and fish"),
        (["http", "http://127.0.0.1:9", "--what", "all"], "latency and throughput"),
        (["compare", "--baseline", "other"], "'other' is not one of reference, compiled, self"),
        (["cost", "nothing.json", "--price", "1"], "cannot read nothing.json"),
        (["report", "nothing.json"], "cannot read nothing.json"),
    ],
    ids=lambda a: " ".join(a) if isinstance(a, list) else "",
)
def test_bad_input_is_one_sentence(bench, tiny, arguments, words):
    local = arguments[0] in ("latency", "compare") and "--checkpoint" not in arguments
    code, said, _ = bench(*arguments, *(["--checkpoint", tiny] if local else []))
    assert code == 2
    assert words in said
    assert "Traceback" not in said
