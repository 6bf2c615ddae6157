"""How `fishserve cluster run` ends: as `fishserve serve` does."""

import concurrent.futures
import contextlib
import os
import signal

import httpx
import ormsgpack
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inference.hub import EMBEDDED_VOICE
from inference.server.shutdown import finishing
from tests.inference.cluster.conftest import Cluster
from tests.inference.cluster.test_cluster_faults import Listener, speak
from tests.texts import ENDLESS, SENTENCE
from tests.waiting import HANG_SECONDS, wait

TEXT = " ".join([SENTENCE] * 10)


@pytest.fixture
def lone(voices):
    """One replica, and what it has written once it is ready."""
    with Cluster(EMBEDDED_VOICE, voices).wait_ready() as cluster:
        cluster.wait(lambda: "ready: " in cluster.words())
        yield cluster


def interrupt(cluster):
    """What Ctrl-C does: SIGINT for the whole group."""
    os.killpg(cluster.process.pid, signal.SIGINT)


def runs(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def said(cluster, before):
    """What it has written since then, without the lines of the request log."""
    return [line for line in cluster.words().removeprefix(before).splitlines() if '"level": "info"' not in line]


@contextlib.contextmanager
def conversation(cluster):
    """A WebSocket of Fish Audio's API; `send` takes events."""
    with connect(f"ws://127.0.0.1:{cluster.port}/v1/tts/live", max_size=None) as socket:
        yield socket, lambda **event: socket.send(ormsgpack.packb(event))


def test_ctrl_c_lets_what_runs_finish_refuses_the_rest_and_leaves_no_process(lone):
    whole = len(speak(lone, input=TEXT).content)
    family, before = lone.family(), lone.words()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        conversation(lone) as (idle, _),
        conversation(lone) as (live, send),
    ):
        send(event="start", request={"text": SENTENCE, "format": "pcm"})
        send(event="flush")
        assert ormsgpack.unpackb(live.recv(HANG_SECONDS))["event"] == "audio"
        listener = Listener(lone, TEXT, pool, seed=1)
        wait(lambda: listener.bytes)
        interrupt(lone)
        lone.wait(lambda: "Finishing" in lone.words())
        assert list(idle) == []  # it ends, and without an error
        refused = speak(lone)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert refused.json()["error"]["message"] == "the server is shutting down; try again in a few seconds"
        assert httpx.get(f"{lone.url}/ready").status_code == 503
        with conversation(lone) as (late, _), pytest.raises(ConnectionClosed) as closed:
            late.recv(HANG_SECONDS)
        assert closed.value.rcvd.code == 1012
        send(event="text", text=SENTENCE)
        send(event="stop")
        *audio, last = map(ormsgpack.unpackb, live)
        assert audio
        assert last == {"event": "finish", "reason": "stop"}
    assert (listener.end, listener.bytes) == ("ended", whole)
    assert lone.process.wait(HANG_SECONDS) == 0
    assert said(lone, before) == [finishing(3)]
    wait(lambda: not any(map(runs, family)))


def test_the_next_ctrl_c_ends_it_at_once(lone):
    family, before = lone.family(), lone.words()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        listener = Listener(lone, ENDLESS, pool)
        wait(lambda: listener.bytes)
        lone.process.send_signal(signal.SIGTERM)
        lone.wait(lambda: "Finishing" in lone.words())
        interrupt(lone)
        assert lone.process.wait(HANG_SECONDS) == 130
    assert listener.end == "RemoteProtocolError"
    assert said(lone, before) == [finishing(1)]
    wait(lambda: not any(map(runs, family)))


def test_a_stream_that_does_not_end_breaks_off_in_the_end(lone):
    family, before = lone.family(), lone.words()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        listener = Listener(lone, ENDLESS, pool)
        wait(lambda: listener.bytes)
        lone.process.send_signal(signal.SIGTERM)
        assert lone.process.wait(HANG_SECONDS) == 0
    assert listener.end == "RemoteProtocolError"
    assert said(lone, before) == [finishing(1)]
    wait(lambda: not any(map(runs, family)))
