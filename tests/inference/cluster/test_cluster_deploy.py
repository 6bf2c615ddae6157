"""What `fishserve cluster deploy` says of a Ray cluster that is not there, and what `serve build` writes."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.inference.server.conftest import free_port
from tests.waiting import HANG_SECONDS


def test_it_says_how_to_start_ray():
    """With an address: without one Ray finds any cluster of this machine, such as that of other tests."""
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}
    command = [sys.executable, "-m", "inference.cli", "cluster", "deploy"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 2
    said = f"error: no Ray cluster runs at RAY_ADDRESS={environment['RAY_ADDRESS']}; `ray start --head` starts one"
    assert done.stderr.strip() == said


def test_serve_build_writes_a_config_file(tmp_path):
    command = [Path(sys.executable).with_name("serve"), "build", "inference.cluster.application:app", "-o", tmp_path / "config.yaml"]
    subprocess.run(command, check=True, timeout=HANG_SECONDS)
    (application,) = yaml.safe_load((tmp_path / "config.yaml").read_text())["applications"]
    assert [deployment["name"] for deployment in application["deployments"]] == ["Engine", "Doors"]
