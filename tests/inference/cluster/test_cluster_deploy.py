"""What `fishserve cluster` says when it cannot start, and what `serve build` writes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest
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


def refused(*words, **settings):
    """The last line of a `fishserve cluster run` that ends by itself."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        own = {"FISHSERVE_DEVICE": "cpu", "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}
        command = [sys.executable, "-m", "inference.cli", "cluster", "run", "--port", str(free_port()), *words]
        done = subprocess.run(command, env=os.environ | own | settings, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 2
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"FISHSERVE_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""}, "device 'cuda' cannot be used: "),
        ({"FISHSERVE_HOST": "127.0.0.1", "FISHSERVE_KEYS_FILE": "/nothing"}, "/nothing cannot be read: "),
        ({"FISHSERVE_KV_GIB": "0.0001"}, "the engines cannot run: 0.0001 GiB for keys and values is too little: "),
        ({"FISHSERVE_VOICES_BUCKET": "nonsense"}, "the doors cannot run: FISHSERVE_VOICES_BUCKET is 'nonsense'; "),
    ],
    ids=str,
)
def test_what_it_cannot_run_with_is_one_sentence_at_the_end(settings, said):
    assert refused(**settings).startswith(f"error: {said}")


def test_it_does_not_wait_for_gpus_that_this_machine_has_not():
    assert refused("--gpus", "100").startswith("error: GPUs that the engines need: 100; ")


def test_serve_build_writes_a_config_file(tmp_path):
    command = [Path(sys.executable).with_name("serve"), "build", "inference.cluster.application:app", "-o", tmp_path / "config.yaml"]
    subprocess.run(command, check=True, timeout=HANG_SECONDS)
    (application,) = yaml.safe_load((tmp_path / "config.yaml").read_text())["applications"]
    assert [deployment["name"] for deployment in application["deployments"]] == ["Engine", "Doors"]
