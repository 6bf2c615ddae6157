"""What the image's RUN lines call, in a plain directory, and what its other files say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from inference.settings import Settings
from saas.settings import Settings as SaasSettings
from saas.settings import variable
from tests.waiting import HANG_SECONDS
from worker.job import parse

ROOT = Path(__file__).parents[2]


@pytest.mark.drill
@pytest.mark.parametrize("extra", ["server", "cluster", "worker", "saas"])
def test_an_environment_is_installed_with_what_it_needs_alone(extra, tmp_path):
    for what in ("packages", "fishserve"):
        subprocess.run([ROOT / "docker/install.sh", what, extra, tmp_path / "env"], check=True, timeout=2 * HANG_SECONDS)
    has = {p.name for p in next((tmp_path / "env/lib").glob("python*/site-packages")).iterdir()}
    assert ("torch" in has) is (extra != "saas")
    assert ("runpod" in has) is (extra == "worker")
    assert ("ray" in has) is (extra == "cluster")


def test_nothing_is_baked_in_unless_a_model_is_named():
    """And a name that is none is one clear sentence."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert subprocess.run([ROOT / "docker/bake.sh", ""], env=environment, check=False).returncode == 0
    done = subprocess.run([ROOT / "docker/bake.sh", "nonsense"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a repository name" in " ".join(done.stderr.split())


def test_the_dockerfile_is_as_hadolint_wants_it():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_dockerfile_copies_what_is_there_and_sets_what_is_known():
    text = (ROOT / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE):
        assert (ROOT / source).exists()
    for script in re.findall(r"/src/(docker/\S+)", text):
        assert os.access(ROOT / script, os.X_OK)
    known = {f"FISHSERVE_{name.upper()}" for name in Settings.model_fields} | {variable(name) for name in SaasSettings.model_fields}
    assert set(re.findall(r"\b(FISHSERVE_\w+)=", text)) <= known


@pytest.mark.parametrize("target", ["server", "cluster", "worker"])
def test_an_image_with_torch_never_uses_the_cpu_in_silence_and_holds_model_and_kernels(target):
    """And whoever publishes the port of one that listens reaches it."""
    stage = re.search(rf"^FROM gpu AS {target}\n(.*?)^CMD ", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.DOTALL)[1]
    settings = dict(pair.split("=") for line in re.findall("^ENV (.+)", stage, re.MULTILINE) for pair in line.split())
    assert (settings["FISHSERVE_DEVICE"], settings["FISHSERVE_CHECKPOINT"]) == ("cuda", "${MODEL}")
    assert settings.get("FISHSERVE_HOST") == ("0.0.0.0" if "EXPOSE" in stage else None)
    assert stage.index("ARG MODEL=") < stage.index("USER 10001") < stage.index('bake "${MODEL}"')


def test_an_edit_of_the_code_reinstalls_no_package():
    text = (ROOT / "Dockerfile").read_text()
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE):
        if "COPY . /src" in stage:
            assert stage.index("install.sh packages") < stage.index("COPY . /src") < stage.index("install.sh fishserve")


def test_nothing_private_goes_into_an_image():
    assert {"voices", "keys", "*.env", "var", ".git"} <= set((ROOT / ".dockerignore").read_text().split())


@pytest.mark.parametrize(
    ("set_", "port"),
    [({}, "8080"), ({"PORT": "1"}, "1"), ({"FISHSERVE_PORT": "2"}, "2"), ({"FISHSERVE_PORT": "2", "PORT": "1"}, "2")],
    ids=str,
)
def test_the_health_check_asks_the_port_that_the_server_has(set_, port):
    (script,) = re.findall(r'CMD \["sh", "-c", "curl -fs (http://127\.0\.0\.1:\S+/ready)"\]', (ROOT / "Dockerfile").read_text())
    asked = subprocess.run(["sh", "-c", f"echo {script}"], env=set_, capture_output=True, text=True, check=True).stdout
    assert asked == f"http://127.0.0.1:{port}/ready\n"


def test_runpods_hub_offers_settings_that_are_known_and_jobs_that_are_right():
    offered = [e["key"] for e in json.loads((ROOT / ".runpod/hub.json").read_text())["config"]["env"]]
    known = {f"FISHSERVE_{name.upper()}" for name in Settings.model_fields}
    r2 = {"HF_TOKEN", "R2_ENDPOINT", "R2_BUCKET_NAME", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"}
    assert set(offered) <= known | r2
    for test in json.loads((ROOT / ".runpod/tests.json").read_text())["tests"]:
        parse(test["input"])
