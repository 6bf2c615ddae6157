"""What happens when the ingress of a cluster is killed, and when nobody speaks for so long that no engine is left."""

import concurrent.futures
import time

import httpx

from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.cluster.test_cluster_faults import listeners, speak
from tests.waiting import wait


def speaks(cluster):
    """Whether a request is answered with speech; while there is no ingress it may be refused in any way, or wait."""
    try:
        return speak(cluster).status_code == 200
    except httpx.TransportError:
        return False


def is_free(cluster):
    return cluster.metric("fishserve_requests_running") == cluster.metric("fishserve_requests_waiting") == 0


def test_killed_doors_end_their_streams_and_the_engines_notice(cluster):
    """Nobody cancels the requests of doors that were killed."""
    with listeners(cluster, 6) as found:
        (doors,) = cluster.actors("Doors")
        began = time.monotonic()
        doors.kill()
        wait(lambda: all(listener.end for listener in found))
        ended = time.monotonic() - began
        wait(lambda: speaks(cluster))
        again = time.monotonic() - began
        wait(lambda: is_free(cluster))
        free = time.monotonic() - began
    print(f"doors killed: streams ended after {ended:.1f} s, spoke again after {again:.1f} s, slots free after {free:.1f} s")
    assert {listener.end for listener in found} <= {"RemoteProtocolError", "ReadError"}
    assert len(cluster.replicas()) == 3


def test_a_killed_proxy_ends_its_streams_and_comes_back(cluster):
    with listeners(cluster, 6) as found:
        (proxy,) = cluster.actors("ProxyActor")
        began = time.monotonic()
        proxy.kill()
        wait(lambda: all(listener.end for listener in found))
        ended = time.monotonic() - began
        wait(lambda: speaks(cluster))
        again = time.monotonic() - began
        wait(lambda: is_free(cluster))
        free = time.monotonic() - began
    print(f"proxy killed: streams ended after {ended:.1f} s, spoke again after {again:.1f} s, slots free after {free:.1f} s")
    assert {listener.end for listener in found} <= {"RemoteProtocolError", "ReadError"}
    assert len(cluster.replicas()) == 3


def test_a_cluster_without_engines_starts_one_when_somebody_speaks(voices):
    """Ray Serve ends the last replica after five minutes. All who speak then wait for one, and are answered once."""
    with Cluster(EMBEDDED_VOICE, voices, "--min-replicas", "0", "--max-replicas", "1").wait_ready() as sleepy:
        assert speak(sleepy).status_code == 200
        wait(lambda: not sleepy.actors("Engine"))
        assert httpx.get(f"{sleepy.url}/ready").status_code == 200
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda seed: speak(sleepy, seed=seed), range(6)))
        print(f"from no engine: six requests at once were answered after {time.monotonic() - began:.1f} s")
        assert {answer.status_code for answer in answers} == {200}
        assert len(sleepy.actors("Engine")) == 1
        assert sleepy.metric("fishserve_requests_total") == 6
