"""What happens to streams when parts of a cluster end: killed by the kernel, or replaced by an upgrade."""

import concurrent.futures
import contextlib
import signal
import threading
import time

import httpx

from tests.texts import ENDLESS, SENTENCE
from tests.waiting import HANG_SECONDS, wait

BYTES_ENOUGH = 20_000


class Listener:
    """A client that reads a stream in a thread. `bytes` is what it has; `end` is how the stream ended: "ended", "left" or an error's name."""

    def __init__(self, cluster, text, pool, **body):
        self.bytes, self.end, self._enough = 0, None, threading.Event()
        self._url, self._body = cluster.url, {"input": text, "response_format": "pcm"} | body
        self._done = pool.submit(self._listen)

    def _listen(self):
        try:
            with httpx.stream("POST", f"{self._url}/v1/audio/speech", json=self._body, timeout=HANG_SECONDS) as response:
                if response.status_code != 200:
                    self.end = response.status_code
                    return
                for piece in response.iter_bytes():
                    self.bytes += len(piece)
                    if self._enough.is_set():
                        self.end = "left"
                        return
            self.end = "ended"
        except httpx.HTTPError as e:
            self.end = type(e).__name__

    def leave(self):
        self._enough.set()
        self._done.result(HANG_SECONDS)
        return self.end


@contextlib.contextmanager
def listeners(cluster, count, text=ENDLESS, **body):
    """So many streams, each of which has begun to sound. They end with the block."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        found = [Listener(cluster, text, pool, **body) for _ in range(count)]
        try:
            wait(lambda: all(listener.bytes or listener.end for listener in found))
            yield found
        finally:
            for listener in found:
                listener.leave()
    wait(lambda: cluster.metric("fishserve_requests_running") == cluster.metric("fishserve_requests_waiting") == 0)


def speak(cluster, **body):
    body = {"input": "Hello.", "seed": 1, "response_format": "pcm"} | body
    return httpx.post(f"{cluster.url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)


def goes_on(found):
    """Wait until each of these streams has sounded for another while."""
    had = [listener.bytes for listener in found]
    wait(lambda: all(f.end or f.bytes > before + BYTES_ENOUGH for f, before in zip(found, had, strict=True)))
    assert [listener.end for listener in found if listener.end] == []


def test_a_killed_replica_ends_its_streams_with_an_error_and_no_others(cluster):
    with listeners(cluster, 6) as found:
        began = time.monotonic()
        cluster.actors("Engine")[0].kill()
        wait(lambda: any(listener.end for listener in found))
        broken = time.monotonic() - began
        assert speak(cluster).status_code == 200
        goes_on([listener for listener in found if not listener.end])
        ended = [listener.end for listener in found if listener.end]
    assert 1 <= len(ended) < 6
    assert set(ended) == {"RemoteProtocolError"}
    wait(lambda: len(cluster.replicas()) == 3)
    print(f"a replica killed: {len(ended)} of 6 streams broke off, the first after {broken:.1f} s;", end=" ")
    print(f"three replicas again after {time.monotonic() - began:.1f} s")


def test_a_request_that_has_not_sounded_yet_is_spoken_by_another_replica(cluster):
    """Requests wait on a stopped replica; it is killed; all are answered."""
    stopped = cluster.actors("Engine")[0]
    stopped.send_signal(signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(speak, cluster, seed=seed) for seed in range(9)]
        wait(lambda: sum(future.done() for future in waiting) >= 3)
        held, began = sum(not future.done() for future in waiting), time.monotonic()
        stopped.kill()
        assert {future.result(HANG_SECONDS).status_code for future in waiting} == {200}
        print(f"a replica that held {held} of 9 requests killed: all answered after {time.monotonic() - began:.1f} s")
    wait(lambda: len(cluster.replicas()) == 3)


def test_nothing_notices_that_the_controller_was_killed(cluster):
    with listeners(cluster, 3) as found:
        (controller,) = cluster.actors("ServeController")
        began = time.monotonic()
        controller.kill()
        goes_on(found)
        assert speak(cluster).status_code == 200
        wait(lambda: [p for p in cluster.actors("ServeController") if p.pid != controller.pid])
        print(f"the controller killed: another one after {time.monotonic() - began:.1f} s")
        goes_on(found)
    assert speak(cluster).status_code == 200


def test_a_client_that_leaves_ends_its_request(cluster):
    with listeners(cluster, 3) as found:
        wait(lambda: cluster.metric("fishserve_requests_running") == 3)  # between two segments a stream does not run
        assert found[0].leave() == "left"
        wait(lambda: cluster.metric("fishserve_requests_running") == 2)
    assert cluster.metric("fishserve_requests_total", reason="cancelled") >= 3


def test_an_upgrade_loses_no_stream(cluster):
    """Fifty streams, most of which wait for a slot when it begins."""
    text = " ".join([SENTENCE] * 4)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        began = time.monotonic()
        found = [Listener(cluster, text, pool, seed=1) for _ in range(50)]
        wait(lambda: sum(bool(listener.bytes) for listener in found) >= 20)
        before = cluster.replicas()
        answers = []
        with cluster.deploy("--slots", "4", "--min-replicas", "3") as upgrade:
            while upgrade.poll() is None:
                asked = time.monotonic()
                answers.append((speak(cluster).status_code, time.monotonic() - asked))
            assert upgrade.returncode == 0, upgrade.stdout.read().decode()
        upgraded = time.monotonic() - began
        wait(lambda: all(listener.end for listener in found))
    print(f"50 streams ended after {time.monotonic() - began:.1f} s, the upgrade after {upgraded:.1f} s;", end=" ")
    print(f"{len(answers)} requests beside it, the slowest of which took {max(took for _, took in answers):.1f} s")
    assert [listener.end for listener in found] == ["ended"] * 50
    assert len({listener.bytes for listener in found}) == 1
    assert {status for status, _ in answers} == {200}
    assert not before & cluster.replicas()
