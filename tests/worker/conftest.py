"""RunPod's real worker SDK beside a stand-in of its queue, and a real S3 server."""

import contextlib
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path

import boto3
import httpx
import pytest
from botocore.config import Config
from prometheus_client.parser import text_string_to_metric_families

from inference.model import random_checkpoint
from tests.processes import Started, free_port
from tests.waiting import wait

ROOT = Path(__file__).parents[2]
BUCKET = "speech"


def answers(url):
    try:
        return httpx.get(url, verify=False).status_code < 500
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("worker") / "tiny"
    random_checkpoint.write(directory, "tiny", 1)
    return directory


def port_pairs(count):
    """Ports that are free, as is the one 10,000 above each: SeaweedFS takes that, too. Below 32,768, where the system takes those of clients.

    Each process of tests has some that no other has.
    """
    mine = range(11_000, 21_000)[
        int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ]
    found = []
    while len(found) < count:
        port = random.choice(mine)
        if port in found:
            continue
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + 10_000))
            found.append(port)
    return found


class Bucket(Started):
    """A SeaweedFS server with one bucket."""

    def __init__(self, directory):
        self.key, self.secret = "AKIATEST", "secrettest"
        ports = port_pairs(4)
        self.endpoint = f"http://127.0.0.1:{ports[0]}"
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = {"identities": [{"name": "app", "credentials": [{"accessKey": self.key, "secretKey": self.secret}], "actions": actions}]}
        (directory / "s3.json").write_text(json.dumps(config))
        (directory / "data").mkdir()
        flags = {
            "dir": directory / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "s3.port": ports[0],
            "master.port": ports[1], "volume.port": ports[2], "filer.port": ports[3],
            "s3.config": directory / "s3.json", "s3.port.iceberg": 0, "s3.port.lance": 0, "volume.max": 20, "master.volumeSizeLimitMB": 64,
            "master.telemetry": "false",
        }  # fmt: skip
        weed = Path(sys.executable).with_name("weed")
        self.start([weed, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in flags.items())], cwd=directory)
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1})
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="auto",
            config=config,
        )
        self.wait(self._made)

    def _made(self):
        try:
            self.s3.create_bucket(Bucket=BUCKET)
            self.s3.put_object(Bucket=BUCKET, Key="first", Body=b"x")
        except Exception:
            return False
        return True

    def url(self, what, key, seconds=300, **parameters):
        return self.s3.generate_presigned_url(what, Params={"Bucket": BUCKET, "Key": key} | parameters, ExpiresIn=seconds)

    def get(self, key):
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    @property
    def environment(self):
        return {
            "R2_ENDPOINT": self.endpoint, "R2_ACCESS_KEY_ID": self.key, "R2_SECRET_ACCESS_KEY": self.secret, "R2_BUCKET_NAME": BUCKET,
        }  # fmt: skip

    def kill(self):
        self.s3.close()
        super().kill()

    end = kill  # it would copy its volumes first


@pytest.fixture(scope="session")
def bucket(tmp_path_factory):
    with Bucket(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket


class Queue(Started):
    """The stand-in, as a client of RunPod sees it."""

    def __init__(self):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        ready = lambda: answers(f"{self.url}/openapi.json")  # noqa: E731
        self.start([sys.executable, "-m", "tests.worker.runpod_queue", str(port)], ready, cwd=ROOT)

    def run(self, **given):
        return httpx.post(f"{self.url}/v2/ep/run", json={"input": given}).json()["id"]

    def status(self, job):
        return httpx.get(f"{self.url}/v2/ep/status/{job}").json()

    def done(self, job):
        return wait(lambda: (s := self.status(job))["status"] in ("COMPLETED", "FAILED") and s)

    def result(self, **given):
        done = self.done(self.run(**given))
        assert done["status"] == "COMPLETED", done["error"]
        return done["output"]

    def refusal(self, **given):
        done = self.done(self.run(**given))
        assert done["status"] == "FAILED", done["output"]
        return done["error"]


class Worker(Started):
    """A `python -m worker` process that takes its jobs from a queue."""

    def __init__(self, queue, checkpoint, **environment):
        self.queue, self.name, self.port = queue, f"pod{free_port()}", free_port()
        base = f"{queue.url}/v2/ep"
        self.start(
            [sys.executable, "-m", "worker"], start_new_session=True,
            env=os.environ | {
                "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=x", "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=x",
                "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=x", "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=x",
                "RUNPOD_AI_API_KEY": "key", "RUNPOD_POD_ID": self.name, "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true",
                "FISHSERVE_CHECKPOINT": str(checkpoint), "FISHSERVE_METRICS_PORT": str(self.port), "FISHSERVE_SLOTS": "4", "OMP_NUM_THREADS": "1",
            } | environment,
        )  # fmt: skip

    def ready(self):
        self.wait(lambda: "ready in" in self.words())
        return self

    def metric(self, name, **labels):
        for family in text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{self.port}/metrics", verify=False).text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0

    def kill(self):
        """Its SDK's own process, which would live on, ends with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        super().kill()

    end = kill


@pytest.fixture(scope="module")
def queue():
    with Queue() as queue:
        yield queue


@pytest.fixture(scope="module")
def worker(queue, checkpoint, bucket, tmp_path_factory):
    voices = str(tmp_path_factory.mktemp("voices"))
    with Worker(queue, checkpoint, FISHSERVE_VOICES_DIR=voices, **bucket.environment).ready() as worker:
        yield worker
