"""OpenAI's client for Node, as npm has it."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.npm import packages
from tests.waiting import HANG_SECONDS

HERE = Path(__file__).parent / "node"
pytestmark = [pytest.mark.system("/usr/bin/node", "nodejs"), pytest.mark.system("/usr/bin/npm", "npm")]


@pytest.fixture(scope="module")
def heard(server):
    packages(HERE)
    done = subprocess.run(["node", "speak.mjs", server.url], cwd=HERE, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_hears_the_same_streamed_and_whole(heard, server):
    body = {"input": "Hello.", "response_format": "pcm", "seed": 1, "max_new_tokens": 60}
    assert heard["whole"] == len(httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS).content)
    assert heard["same"]
    assert heard["pieces"] > 1


def test_it_lists_the_model(heard, server):
    assert heard["models"] == [httpx.get(f"{server.url}/ready").json()["model"]]


def test_refusals_are_its_own_errors(heard):
    assert heard["empty"]["kind"] == "BadRequestError"
    assert heard["empty"]["param"] == "input"
    assert "nothing to speak" in heard["empty"]["message"]
    assert heard["stranger"]["kind"] == "NotFoundError"
    assert "no voice 'nobody'" in heard["stranger"]["message"]
