"""What an operator sees, and what one bad client can do to others."""

import concurrent.futures
import contextlib
import json
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from inference.cpu_threads import SPINS
from tests.inference.server.conftest import Server
from tests.processes import free_port
from tests.raw import UVICORN_KEEPS, kept_connection, status_again
from tests.texts import ENDLESS
from tests.waiting import HANG_SECONDS, wait

SAID = "xylophone"


def speak(server, **body):
    body = {"input": "Hello.", "max_new_tokens": 10, "seed": 1, "response_format": "pcm"} | body
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS, headers={"X-Request-Id": f"from-{len(body)}"})


def lines(server):
    """Those that are written to their end."""
    return [json.loads(line) for line in server.words().rpartition("\n")[0].splitlines() if line.startswith("{")]


def last(server, **wanted):
    """The newest line with these values; it is written when a request has ended, a moment after its client knows."""
    return wait(lambda: [line for line in lines(server) if wanted.items() <= line.items()], f"no line with {wanted}")[-1]


@pytest.fixture(scope="module")
def server(checkpoint, voices):
    with Server(checkpoint, voices, FISHSERVE_CORS_ORIGINS="https://shop.example, https://app.example").wait_ready() as server:
        yield server


def test_each_request_is_one_line_that_says_nothing_of_what_was_said(server):
    response = speak(server, input=f"{SAID}.")
    line = last(server, request_id="from-4", status=200)
    assert response.headers["x-request-id"] == response.headers["request-id"] == "from-4"
    assert line["route"] == "/v1/audio/speech"
    assert line["bytes"] == len(response.content)
    assert 0 < line["first_byte_ms"] <= line["duration_ms"]
    assert not line["client_gone"]
    httpx.get(f"{server.url}/v1/voices/{SAID}?key={SAID}")
    assert last(server, route="/v1/voices/{voice_id}")["status"] == 404
    httpx.get(f"{server.url}/{SAID}?{SAID}")
    assert last(server, route=None)["status"] == 404
    assert speak(server, input=[SAID]).status_code == speak(server, input=f"[pause:{SAID}]").status_code == 400
    assert SAID not in server.words()


@pytest.mark.parametrize("asked", ["", "a b", "x" * 65, "ö", '"'])
def test_an_id_that_could_forge_a_line_is_not_taken(server, asked):
    response = httpx.get(f"{server.url}/v1/models", headers={"X-Request-Id": asked.encode()})
    assert response.headers["x-request-id"] != asked
    assert last(server, request_id=response.headers["x-request-id"])["status"] == 200


def test_probes_need_no_line(server):
    for path in ("/health", "/ready", "/ping", "/metrics"):
        httpx.get(f"{server.url}{path}", headers={"X-Request-Id": "probe"})
    httpx.get(f"{server.url}/v1/models", headers={"X-Request-Id": "after"})
    last(server, request_id="after")
    assert "probe" not in server.words()


def test_a_client_that_goes_is_in_the_log(server):
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json={"input": ENDLESS}, timeout=HANG_SECONDS) as response:
        next(response.iter_bytes())
    assert last(server, client_gone=True)["route"] == "/v1/audio/speech"


def test_pages_of_other_origins_may_ask_only_where_they_are_named(server):
    for origin, allowed in (("https://shop.example", True), ("https://evil.example", False)):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = httpx.options(f"{server.url}/v1/audio/speech", headers=asked)
        assert (preflight.status_code == 200) is allowed
        got = httpx.get(f"{server.url}/v1/models", headers={"Origin": origin})
        assert (got.headers.get("access-control-allow-origin") == origin) is allowed


def raw(server, content):
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(content)
    return connection


def test_a_connection_that_was_idle_for_some_seconds_takes_the_next_request(server):
    """A client that was busy, or froze, reuses what it thinks is open."""
    connection = kept_connection(server.port, "/v1/models")
    time.sleep(UVICORN_KEEPS + 1)
    assert status_again(connection, "/v1/models") == 200


def test_clients_that_never_finish_asking_or_never_read_do_not_stop_others(server):
    body = json.dumps({"input": ENDLESS, "response_format": "pcm"}).encode()
    request = b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    slow = [raw(server, b"GET /health HTTP/1.1\r\nX-Slow: ") for _ in range(60)]
    halves = [raw(server, request + body[:50]) for _ in range(30)]
    deaf = [raw(server, request + body) for _ in range(6)]
    for connection in (*slow, *halves):
        connection.sendall(b"a")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert {r.status_code for r in pool.map(lambda _: speak(server), range(8))} == {200}
    assert httpx.get(f"{server.url}/health").status_code == 200
    for connection in (*slow, *halves, *deaf):
        connection.close()
    wait(lambda: server.metric("fishserve_requests_running") == 0, "requests went on without their clients")


@pytest.mark.drill
def test_headers_and_bodies_that_never_end_are_ended(server):
    connections = [
        raw(server, b"GET /health HTTP/1.1\r\nX-Slow: "),
        raw(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX-"),
        raw(server, b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"),
    ]
    for connection in connections:
        connection.settimeout(HANG_SECONDS)
        while connection.recv(4096):
            pass
        connection.close()


def test_stopped_and_continued_it_goes_on(server):
    """As by Ctrl-Z and `fg`, for longer than any of its waits for a signal."""
    for sent in (signal.SIGSTOP, signal.SIGCONT):
        for process in server.members():
            process.send_signal(sent)
        time.sleep(0.7)
    assert speak(server).status_code == 200
    assert server.process.poll() is None


@pytest.fixture(scope="module")
def narrow(checkpoint, voices):
    """Two are served, four wait, the others are refused."""
    with Server(checkpoint, voices, FISHSERVE_SLOTS="2", FISHSERVE_QUEUE="4").wait_ready() as server:
        yield server


def test_a_full_queue_answers_429_and_goes_on(narrow):
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda s: speak(narrow, seed=s, max_new_tokens=60), range(12)))
    refused = [r for r in responses if r.status_code == 429]
    assert 1 <= len(refused) < 12
    assert {r.status_code for r in responses} == {200, 429}
    assert all(int(r.headers["retry-after"]) >= 1 and r.json()["error"]["type"] == "rate_limit_error" for r in refused)
    assert narrow.metric("fishserve_requests_refused_total") == len(refused)
    assert speak(narrow).status_code == 200


def test_health_answers_while_everything_is_full(narrow):
    """Thirty answers before one of those that are spoken is over."""
    enough = threading.Event()

    def listen():
        body = {"input": ENDLESS, "stream_format": "sse"}
        with httpx.stream("POST", f"{narrow.url}/v1/audio/speech", json=body) as response:
            for _ in response.iter_bytes():
                if enough.is_set():
                    return response.status_code, "left"
        return response.status_code, "ended"

    with concurrent.futures.ThreadPoolExecutor(12) as pool, httpx.Client() as client:
        crowd = [pool.submit(listen) for _ in range(12)]
        try:
            wait(lambda: narrow.metric("fishserve_requests_waiting") >= 4)
            assert {client.get(f"{narrow.url}/health").status_code for _ in range(30)} == {200}
        finally:
            enough.set()
        ends = {r.result() for r in crowd}
    assert {status for status, _ in ends} == {200, 429}
    assert (200, "ended") not in ends


def test_runpods_load_balancer_hears_when_it_can_send_work(held, tmp_path):
    """On the port it names, and on another one for its pings."""
    other = free_port()
    directory, let_go = held
    with Server(directory, tmp_path / "voices", PORT_HEALTH=str(other)) as server:
        seen = set()

        def ping(port):
            with contextlib.suppress(httpx.TransportError):
                seen.add(httpx.get(f"http://127.0.0.1:{port}/ping").status_code)
            return seen

        wait(lambda: 204 in ping(server.port) | ping(other))
        let_go()
        wait(lambda: 200 in ping(server.port) | ping(other))
        server.wait_ready()
        assert seen == {204, 200}
        assert [httpx.get(f"http://127.0.0.1:{port}/ping").status_code for port in (server.port, other)] == [200, 200]
        assert httpx.get(f"http://127.0.0.1:{other}/v1/models").status_code == 404


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's environment and libraries in /proc")
def test_the_process_that_computes_was_told_how_to_wait_before_it_began(checkpoint, voices):
    unset = dict.fromkeys(("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "FISHSERVE_PREPARED"), "")
    with Server(checkpoint, voices, FISHSERVE_THREADS="3", **unset).wait_ready() as server:
        process = Path(f"/proc/{server.engine().pid}")
        assert "libtorch_cpu" in (process / "maps").read_text()
        environment = dict(word.split("=", 1) for word in (process / "environ").read_text().split("\0") if word)
        expected = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS), "OMP_NUM_THREADS": "3"}
        assert {name: environment[name] for name in expected} == expected
