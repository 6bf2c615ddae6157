"""A cluster that is full refuses, and grows."""

import concurrent.futures

from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.cluster.test_cluster_faults import Listener, speak
from tests.texts import ENDLESS
from tests.waiting import wait


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
