"""A cluster that is full refuses, and grows; one that nobody asks ends its last replica. Its processes send traces together."""

import concurrent.futures
import shutil
import time
from pathlib import Path

import httpx
import pytest

from inference import tracing
from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.cluster.test_cluster_faults import Listener, speak
from tests.inference.cluster.test_cluster_ingress import speaks
from tests.otlp import PARENT, TRACE, TRACEPARENT, Receiver
from tests.texts import ENDLESS
from tests.waiting import HANG_SECONDS, wait


def test_what_is_too_much_is_refused_until_another_replica_has_started(voices):
    """A replica speaks with one and keeps one waiting."""
    options = ("--min-replicas", "1", "--max-replicas", "2", "--slots", "1")
    with (
        Cluster(EMBEDDED_VOICE, voices, *options, FISHSERVE_QUEUE="1").wait_ready() as narrow,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        found = [Listener(narrow, ENDLESS, pool) for _ in range(6)]
        try:
            wait(lambda: [listener.end for listener in found].count(429) == 4)
            wait(lambda: len(narrow.replicas()) == 2)
            assert speak(narrow).status_code == 200
            assert [listener.end for listener in found].count(None) == 2
        finally:
            for listener in found:
                listener.leave()


@pytest.fixture(scope="module")
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """minnow in a folder that may be moved away."""
    return Path(shutil.copytree(EMBEDDED_VOICE, tmp_path_factory.mktemp("models") / "minnow"))


@pytest.fixture(scope="module")
def sleepy(model, voices, receiver):
    """It in one replica, which ends when nobody asks for anything."""
    options = ("--min-replicas", "0", "--idle-seconds", "2")
    with Cluster(model, voices, *options, **{tracing.ENDPOINT: receiver.url}).wait_ready() as cluster:
        yield cluster


def is_asleep(cluster):
    return cluster.actors("Engine") == []


def test_a_span_of_the_doors_has_those_of_a_replica_that_ends(sleepy, receiver):
    body = {"input": "A private text.", "response_format": "wav"}
    headers = {"traceparent": TRACEPARENT}
    assert httpx.post(f"{sleepy.url}/v1/audio/speech", json=body, headers=headers, timeout=HANG_SECONDS).status_code == 200
    found = receiver.of(TRACE, 6)
    request = found.pop("POST /v1/audio/speech")
    assert request.parent == PARENT
    assert {span.parent for span in found.values()} == {request.id}
    assert found["queue"].resource["process.pid"] != found["encode"].resource["process.pid"] == request.resource["process.pid"]
    assert not any(b"private" in sent for sent in receiver.bodies)


def test_when_the_last_replica_has_ended_all_requests_wait_for_the_next(sleepy):
    assert speak(sleepy).status_code == 200
    wait(lambda: is_asleep(sleepy))
    assert httpx.get(f"{sleepy.url}/ready").status_code == 200
    assert is_asleep(sleepy)  # to ask whether it is ready starts none
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: speak(sleepy, stream=False), range(6)))
    print(f"six requests to a cluster without a replica: the last was answered after {time.monotonic() - began:.1f} s")
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_doors_that_start_anew_while_no_replica_runs_wake_one(sleepy):
    """They do not know the model, and refuse requests until it is loaded."""
    wait(lambda: is_asleep(sleepy))
    (doors,) = sleepy.actors("Doors")
    doors.kill()
    began = time.monotonic()
    wait(lambda: speaks(sleepy))
    print(f"doors killed while no replica ran: spoke again after {time.monotonic() - began:.1f} s")


def test_a_request_that_waits_for_a_replica_that_cannot_start_is_told_so(sleepy, model):
    wait(lambda: is_asleep(sleepy))
    away = model.rename(model.with_name("away"))
    began = time.monotonic()
    answer = speak(sleepy, stream=False)
    print(f"a replica that cannot start: refused after {time.monotonic() - began:.1f} s: {answer.text}")
    assert answer.status_code == 503
    assert "the engines cannot run" in answer.text
    away.rename(model)
    wait(lambda: speaks(sleepy))
