"""`fishserve cluster` where Ray need not be installed: the config file, and what it says when something is wrong."""

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from inference.cli import app
from inference.cluster.options import Options
from inference.errors import ConfigurationError, MissingExtra


def run(*words):
    return CliRunner().invoke(app, ["cluster", *words])


def test_the_config_holds_what_was_asked_for():
    written = json.loads(run("config", "--checkpoint", "/models/fish", "--min-replicas", "2", "--max-replicas", "8", "--gpus", "1").stdout)
    (application,) = written["applications"]
    assert application["import_path"] == "inference.cluster.application:build"
    assert Options(**application["args"]) == Options(settings={"checkpoint": "/models/fish"}, min_replicas=2, max_replicas=8, gpus=1)
    assert written["http_options"] == {"host": "0.0.0.0", "port": 8000}


def test_fewer_than_the_fewest_are_refused():
    done = run("config", "--min-replicas", "3", "--max-replicas", "2")
    assert isinstance(done.exception, ConfigurationError)
    assert "min_replicas is 3 and max_replicas 2" in str(done.exception)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install():
    done = run("run", "--port", "1")
    assert isinstance(done.exception, MissingExtra)
    assert "[cluster]" in str(done.exception)
