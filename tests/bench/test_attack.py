"""The quick attacks on a real server: it holds, and a server that does not is found out."""

import asyncio
import contextlib
import socket
import sys
import threading

import pytest

from bench.attack import ATTACKS, QUICK, Target, _descriptors, measure
from bench.process_memory import MemoryOverTime, named
from inference.errors import RequestError
from inference.model import random_checkpoint
from tests.inference.server.conftest import Server
from tests.waiting import wait


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    random_checkpoint.write(folder / "tiny", "tiny", 1)
    with Server(folder / "tiny", folder / "voices").wait_ready() as server:
        yield server


def attacked(url, names):
    shown = []
    speaks = asyncio.run(measure(Target(url, None), names, shown.append))
    return speaks, {row["attack"]: row for row in shown}


def test_what_has_stopped_servers_does_not_stop_this_one(server):
    speaks, rows = attacked(server.url, QUICK)
    assert speaks
    assert list(rows) == list(QUICK)
    for name in ("URL of 50 MB", "8 million headers", "8 million trailers"):
        assert rows[name]["answer"] in ("431", "closed")
        assert rows[name]["memory_grew_mb"] < 30
    assert rows["compressed message"]["answer"] == "not negotiated"
    assert rows["page of another site"]["answer"] == "change 403, own name 403, socket 403"
    assert rows["pings, pongs, empty fragments"]["answer"] == "closed, closed, closed"


def sockets(pid):
    return {link for link in _descriptors(pid) if link.startswith("socket:")}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_told_by_what_each_process_does(server):
    target = Target(server.url, None)
    names = {name: pid for pid, name in named(target.processes()).items()}
    assert names.keys() >= {"parent", "manager", "http", "device", "tracker"}
    assert "other" not in names
    before = {name: sockets(pid) for name, pid in names.items()}

    def more(name):
        return len(sockets(names[name]) - before[name])

    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", target.port))).sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        wait(lambda: more("http") >= 20)
        assert all(more(name) < 20 for name in names if name != "http")
    memory = MemoryOverTime(target.processes)
    for _ in range(4):
        memory.take()
    told = memory.told()
    assert told.keys() >= {"all", *names}
    assert told["device"]["least"][0] > 100
    assert abs(sum(of["after"] for name, of in told.items() if name != "all") - told["all"]["after"]) <= len(told)


def test_a_server_that_does_not_answer_is_found_out(monkeypatch):
    monkeypatch.setattr("bench.attack.LONGEST_SECONDS", 0.5)

    async def hold(target):
        async with target.connection() as (reader, _):
            await reader.read(1)
        return "answered"

    monkeypatch.setitem(ATTACKS, "hold", hold)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections = []

        def accept():
            for _ in range(2):
                connections.append(listening.accept()[0])
            with contextlib.suppress(OSError):  # closed with the test
                while True:  # it speaks no more
                    connections.append(listening.accept()[0])
                    connections[-1].close()

        threading.Thread(target=accept, daemon=True).start()
        speaks, rows = attacked(f"http://127.0.0.1:{listening.getsockname()[1]}", ["hold"])
        for connection in connections:
            connection.close()
    assert not speaks
    assert rows["hold"]["answer"].startswith("not over")
    assert rows["hold"]["health_held_seconds"] > 0.3


@pytest.mark.parametrize("url", ["http://example.com", "https://127.0.0.1:8080", "127.0.0.1:8080", "http://10.0.0.1:8080"])
def test_only_a_server_on_this_machine_is_attacked(url):
    with pytest.raises(RequestError, match="not on this machine"):
        Target(url, None)
