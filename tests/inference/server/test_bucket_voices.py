"""Two real servers with one bucket of voices."""

import contextlib
import io
import time

import httpx
import numpy as np
import pytest
import soundfile

from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import BUCKET, bucket  # noqa: F401 - a fixture: a real S3 server

pytestmark = pytest.mark.drill


def sound():
    """A clip of two seconds."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(np.arange(32_000) * 0.2), 16_000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def servers(checkpoint, bucket, tmp_path):  # noqa: F811 - a fixture
    settings = {
        "FISHSERVE_VOICES_BUCKET": f"s3://{BUCKET}/two servers".replace(" ", "-"), "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": bucket.key, "AWS_SECRET_ACCESS_KEY": bucket.secret, "AWS_DEFAULT_REGION": "auto",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(Server(checkpoint, tmp_path, **settings)) for _ in range(2)]
        yield [server.wait_ready() for server in started]


def speaks(server, voice):
    """The status of speech in a voice."""
    return httpx.post(f"{server.url}/v1/audio/speech", json={"input": "Hello.", "voice": voice}, timeout=HANG_SECONDS).status_code


def test_a_voice_that_one_server_adds_renames_and_deletes_is_so_for_the_other(servers):
    one, other = servers
    took = []
    for number in range(5):
        name, new = f"voice {number}", f"new {number}"
        form = {"id": name, "text": "What is said in the clip."}
        assert httpx.post(f"{one.url}/v1/references/add", data=form, files={"audio": sound()}, timeout=HANG_SECONDS).status_code == 200
        began = time.monotonic()
        wait(lambda name=name: name in httpx.get(f"{other.url}/v1/references/list").json()["reference_ids"])
        took.append(time.monotonic() - began)
        assert speaks(other, name) == 200
        assert speaks(one, name) == 200
        body = {"old_reference_id": name, "new_reference_id": new}
        assert httpx.post(f"{other.url}/v1/references/update", json=body).status_code == 200
        assert httpx.post(f"{other.url}/v1/references/update", json=body).status_code == 404
        wait(lambda name=name: speaks(one, name) == 404)
        assert speaks(one, new) == 200
        assert httpx.request("DELETE", f"{one.url}/v1/references/delete", json={"reference_id": new}).status_code == 200
        wait(lambda new=new: speaks(other, new) == 404)
    print(f"the other server knew a voice after {', '.join(f'{seconds:.2f}' for seconds in took)} s")
