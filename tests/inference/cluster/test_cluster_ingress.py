"""What happens when the ingress of a cluster is killed."""

import time

import httpx
import pytest

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


@pytest.mark.parametrize("name", ["Doors", "ProxyActor"])
def test_a_killed_ingress_ends_its_streams_comes_back_and_frees_the_engines(cluster, name):
    """Nobody cancels the requests of doors that were killed."""
    with listeners(cluster, 6) as found:
        (actor,) = cluster.actors(name)
        began = time.monotonic()
        actor.kill()
        wait(lambda: all(listener.end for listener in found))
        ended = time.monotonic() - began
        wait(lambda: speaks(cluster))
        again = time.monotonic() - began
        wait(lambda: is_free(cluster))
        free = time.monotonic() - began
    print(f"{name} killed: streams ended after {ended:.1f} s, spoke again after {again:.1f} s, slots free after {free:.1f} s")
    assert {listener.end for listener in found} <= {"RemoteProtocolError", "ReadError"}
    assert len(cluster.replicas()) == 3
