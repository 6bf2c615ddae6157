"""What one client, one page or one process can do to a server and to everybody else who uses it."""

import concurrent.futures
import contextlib
import io
import signal
import socket
import threading
import time
import uuid

import httpx
import ormsgpack
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from inference.server.remote_engine import HANGING_SECONDS
from tests.inference.server.conftest import Server
from tests.processes import free_port
from tests.texts import SENTENCE
from tests.waiting import HANG_SECONDS, wait

LONG = " ".join([SENTENCE] * 120)


def speak(server, **body):
    body = {"input": "Hello.", "max_new_tokens": 10, "seed": 1, "response_format": "pcm"} | body
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


def http_process(server):
    """The process that has the most connections' descriptors: the one that answers."""
    return next(p for p in server.members() if any(c.status == "LISTEN" for c in p.net_connections()) and p.pid != server.process.pid)


def test_a_short_text_is_spoken_while_forty_long_ones_wait_for_their_next_segments(server):
    enough = threading.Event()

    def listen(seed):
        body = {"input": LONG, "response_format": "pcm", "seed": seed, "chunk_length": 40}
        with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS) as response:
            for _ in response.iter_bytes():
                if enough.is_set():
                    return "left"
        return "ended"

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        crowd = [pool.submit(listen, seed) for seed in range(40)]
        try:
            wait(lambda: server.metric("fishserve_requests_waiting") >= 30)
            assert [speak(server, seed=seed).status_code for seed in range(3)] == [200] * 3
            assert server.metric("fishserve_requests_waiting") >= 30
        finally:
            enough.set()
        assert "ended" not in {listener.result() for listener in crowd}
    wait(lambda: server.metric("fishserve_requests_running") == 0)


def test_a_whole_reply_is_not_kept_in_memory(server):
    process = http_process(server)
    speak(server, response_format="wav", stream=False, speed=0.5)
    before = process.memory_info().rss
    text = " ".join(["Hello. [pause:10s]"] * 12)
    response = speak(server, input=text, response_format="wav", stream=False, speed=0.25)
    assert len(response.content) > 40_000_000
    assert process.memory_info().rss - before < 20_000_000
    assert soundfile.info(io.BytesIO(response.content)).frames * 2 == len(response.content) - 44


@pytest.mark.parametrize(
    ("path", "content", "kind", "status"),
    [
        ("/v1/tts", b"[" + b"[]," * 1_000_000 + b"[]]", "application/json", 413),
        ("/v1/audio/speech", b'{"input": [' + b"[]," * 300_000 + b"[]]}", "application/json", 413),
        ("/v1/text-to-speech/default", b'{"text": [' + b"{}," * 300_000 + b"{}]}", "application/json", 413),
        ("/v1/audio/speech", b"[" * 100_000, "application/json", 400),
        ("/v1/tts", b"\xdd\x01\x00\x00\x00" + b"\x90" * 20_000_000, "application/msgpack", 400),
        ("/v1/references/add", b"&" * 20_000_000, "application/x-www-form-urlencoded", 413),
        ("/v1/tts", b"\xdf\x01\x00\x00\x00" + b"\x80" * 20_000_000, "application/msgpack", 400),
    ],
    ids=["fish", "openai", "elevenlabs", "deep", "msgpack", "form", "maps"],
)
def test_a_body_of_nothing_but_values_is_refused_before_they_are_made(server, path, content, kind, status):
    process = http_process(server)
    before = process.memory_info().rss
    response = httpx.post(f"{server.url}{path}", content=content, headers={"Content-Type": kind}, timeout=HANG_SECONDS)
    assert response.status_code == status
    assert process.memory_info().rss - before < 120_000_000


def test_sockets_take_nothing_compressed_and_no_more_values_than_an_event_has(server):
    with connect(f"ws://127.0.0.1:{server.port}/v1/tts/live") as client:
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        client.send(b"\xdc\xff\xff" + b"\x90" * 65_535)
        last = ormsgpack.unpackb(client.recv())
    assert last["event"] == "error"
    assert "more than 10,000 values" in last["error"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_other_sites_pages_cannot_use_it(server, origin):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}/v1/tts/live", origin=origin)
    assert refused.value.response.status_code == 403
    body = b'{"old_reference_id": "anna", "new_reference_id": "eve"}'
    for kind in ("text/plain", "application/json", "application/x-www-form-urlencoded"):
        response = httpx.post(f"{server.url}/v1/references/update", content=body, headers={"Origin": origin, "Content-Type": kind})
        assert response.status_code == 403
        assert "FISHSERVE_CORS_ORIGINS" in response.json()["message"]
    assert "anna" in httpx.get(f"{server.url}/v1/references/list").json()["reference_ids"]


def test_a_name_that_a_stranger_made_lead_here_is_refused(server):
    for path in ("/v1/references/list", "/", "/docs", "/metrics"):
        assert httpx.get(f"{server.url}{path}", headers={"Host": f"evil.example:{server.port}"}).status_code == 403
    assert httpx.get(f"{server.url}/ready", headers={"Host": "evil.example"}).status_code == 200


def test_no_client_makes_a_metric(server):
    """Not by methods, paths, voices, models, formats or ids of its own."""

    def series():
        families = text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text)
        return {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}

    def try_all():
        odd = uuid.uuid4().hex
        for method, path in ((f"M{odd}", "/health"), ("GET", f"/{odd}"), ("GET", f"/v1/models/{odd}"), ("GET", f"/model/{odd}")):
            httpx.request(method, server.url + path, headers={"X-Request-Id": odd})
        for body in ({"voice": odd}, {"model": odd}, {"response_format": odd}, {"seed": odd}):
            speak(server, **body)

    try_all()
    series()
    known = series()
    for _ in range(5):
        try_all()
    assert series() == known


def test_a_client_that_leaves_while_it_sends_is_no_error(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/tts HTTP/1.1\r\nHost: x\r\nX-Request-Id: left-early\r\nContent-Length: 100\r\n\r\n{")
    line = wait(lambda: next((line for line in server.words().splitlines() if "left-early" in line), None))
    assert '"client_gone": true' in line
    assert '"level": "info"' in line


@pytest.fixture(scope="module")
def health_port():
    return free_port()


@pytest.fixture(scope="module")
def own(checkpoint, voices, health_port):
    """A server that is ready again after each test that stops a process of it."""
    with Server(checkpoint, voices, PORT_HEALTH=str(health_port)).wait_ready() as server:
        yield server


def test_a_process_that_computes_and_hangs_is_not_ready_and_may_come_back(own):
    engine = own.engine()
    engine.send_signal(signal.SIGSTOP)
    response = wait(lambda: next((r for r in [httpx.get(f"{own.url}/ready")] if r.status_code == 503), None))
    assert "has not answered" in response.json()["error"]
    assert speak(own).status_code == 503
    assert httpx.get(f"{own.url}/health").status_code == 200
    engine.send_signal(signal.SIGCONT)
    own.wait_ready()
    assert speak(own).status_code == 200


def test_a_manager_that_hangs_holds_no_request_and_may_come_back(own):
    manager, _ = own.forks()
    manager.send_signal(signal.SIGSTOP)
    with contextlib.suppress(httpx.RemoteProtocolError):  # once the reply has begun it breaks off
        assert speak(own).status_code == 503
    assert httpx.get(f"{own.url}/ready").status_code == 503
    manager.send_signal(signal.SIGCONT)
    own.wait_ready()
    assert speak(own).status_code == 200


def test_a_machine_that_is_paused_breaks_no_stream(own):
    """As by `docker pause` or a virtual machine that moves: the processes go on in any order, here the engine's last."""
    *others, engine = sorted(own.members(), key=lambda process: process == own.engine())
    body = {"input": LONG, "response_format": "pcm", "seed": 1}
    with httpx.stream("POST", f"{own.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS) as response:
        chunks = response.iter_bytes()
        next(chunks)
        for process in (engine, *others):
            process.send_signal(signal.SIGSTOP)
        time.sleep(HANGING_SECONDS + 2)
        for process in (*others, engine):
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        assert list(chunks)  # to the end of the reply, or it raises
    assert httpx.get(f"{own.url}/ready").status_code == 200


def test_a_server_whose_engine_is_killed_while_it_loads_ends_and_says_why(held, tmp_path):
    directory, _ = held
    with Server(directory, tmp_path / "voices") as server:
        server.engine().kill()
        assert server.process.wait(HANG_SECONDS) == 2
        assert "the engine's process ended with exit code -9" in server.words()


def test_idle_connections_to_the_health_port_end(own, health_port):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", health_port)))
        wait(lambda: _answers(health_port))
        assert max(p.num_threads() for p in own.members()) < 100


def _answers(port):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200
    return False
