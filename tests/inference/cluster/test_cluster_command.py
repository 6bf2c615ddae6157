"""`fishserve cluster` where Ray need not be installed: the config file, and what it says when something is wrong."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from inference.cli import app
from inference.cluster.options import Options, missing
from inference.errors import ConfigurationError, MissingExtra
from inference.settings import KEEP_ALIVE_SECONDS, read


def run(*words):
    return CliRunner().invoke(app, ["cluster", *words])


def test_the_config_holds_what_was_asked_for():
    written = json.loads(run("config", "--checkpoint", "/models/fish", "--min-replicas", "2", "--max-replicas", "8", "--gpus", "1").stdout)
    (application,) = written["applications"]
    assert application["import_path"] == "inference.cluster.application:build"
    assert Options(**application["args"]) == Options(settings={"checkpoint": "/models/fish"}, min_replicas=2, max_replicas=8, gpus=1)
    assert written["http_options"] == {"host": "0.0.0.0", "port": 8000, "keep_alive_timeout_s": KEEP_ALIVE_SECONDS}


def test_the_config_keeps_connections_as_long_as_one_server_would(monkeypatch):
    monkeypatch.setenv("FISHSERVE_KEEP_ALIVE_SECONDS", "620")
    assert json.loads(run("config").stdout)["http_options"]["keep_alive_timeout_s"] == 620


def test_the_last_replica_may_end_after_a_while():
    (application,) = json.loads(run("config", "--min-replicas", "0", "--idle-seconds", "60").stdout)["applications"]
    assert Options(**application["args"]) == Options(min_replicas=0, idle_seconds=60)


@pytest.mark.parametrize(
    ("words", "gpus"), [((), 0), (("--device", "cpu"), 0), (("--device", "cuda"), 1), (("--device", "cuda", "--gpus", "0.5"), 0.5)]
)
def test_an_engine_on_cuda_asks_for_a_gpu(words, gpus):
    """Ray hides all of them from a replica that asks for none."""
    (application,) = json.loads(run("config", *words).stdout)["applications"]
    assert Options(**application["args"]).engine_gpus == gpus


def test_an_engine_whose_node_says_cuda_asks_for_a_gpu(monkeypatch):
    """The image of a cluster does: a config file that names no device must not leave its engines without one."""
    monkeypatch.setenv("FISHSERVE_DEVICE", "cuda")
    (application,) = json.loads(run("config").stdout)["applications"]
    assert Options(**application["args"]).engine_gpus == 1
    assert Options(settings={"device": "cpu"}).engine_gpus == 0


def test_the_manifest_for_kuberay_asks_for_what_there_is():
    manifest = yaml.safe_load((Path(__file__).parents[3] / "docker/kubernetes/kuberay.yml").read_text(encoding="utf-8"))
    config, ours = yaml.safe_load(manifest["spec"]["serveConfigV2"]), json.loads(run("config").stdout)
    assert config.keys() == ours.keys()
    assert config["http_options"] == ours["http_options"]
    (application,), (own,) = config["applications"], ours["applications"]
    assert application | {"args": {}} == own | {"args": {}}
    read(**Options(**application["args"]).settings)
    (group,) = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == application["args"]["max_replicas"]


def test_what_a_ray_cluster_lacks_is_named():
    options = Options(min_replicas=3, max_replicas=3, gpus=1)
    assert list(missing(options, {"CPU": 4.0, "GPU": 3.0})) == []
    too_few = "the Ray cluster has {}, and {} are needed; `ray start {}` says how many a machine has"
    assert list(missing(options, {"CPU": 2.0})) == [too_few.format("2 CPUs", 4, "--num-cpus"), too_few.format("0 GPUs", 3, "--num-gpus")]


def test_engines_that_share_a_gpu_fit_on_it_as_a_whole():
    def needed(engines, gpus):
        return Options(min_replicas=engines, max_replicas=max(1, engines), gpus=gpus).all_gpus

    assert [needed(engines, 0.6) for engines in (1, 2, 3)] == [1, 2, 3]
    assert [needed(engines, 0.4) for engines in (1, 2, 3)] == [0.4, 1, 1.4]
    assert (needed(3, 0), needed(3, 2), needed(0, 1)) == (0, 6, 1)


def test_more_than_a_gpu_is_a_whole_number_of_them():
    done = run("config", "--gpus", "1.5")
    assert isinstance(done.exception, ConfigurationError)
    assert str(done.exception) == "gpus is 1.5; it can be a part of one GPU or a whole number of them"


def test_fewer_than_the_fewest_are_refused():
    done = run("config", "--min-replicas", "3", "--max-replicas", "2")
    assert isinstance(done.exception, ConfigurationError)
    assert "min_replicas is 3 and max_replicas 2" in str(done.exception)


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="it is about an environment without Ray, and `make cluster` has installed it here"
)
def test_without_ray_it_says_what_to_install():
    done = run("run", "--port", "1")
    assert isinstance(done.exception, MissingExtra)
    assert "[cluster]" in str(done.exception)
