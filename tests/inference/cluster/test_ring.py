"""Consistent hashing with bounded loads: voices stay where they are, and no replica is overrun."""

from collections import Counter

from inference.cluster.ring import BOUND, Ring, bounded, most

REPLICAS = [f"replica-{i}" for i in range(10)]
VOICES = [f"voice-{i}" for i in range(2000)]


def first(ring):
    return {voice: next(ring.order(voice)) for voice in VOICES}


def test_the_order_holds_every_replica_once_and_depends_on_the_voice_alone():
    ring, again = Ring(REPLICAS), Ring(reversed(REPLICAS))
    for voice in VOICES[:50]:
        assert sorted(ring.order(voice)) == sorted(REPLICAS)
        assert list(ring.order(voice)) == list(again.order(voice))


def test_voices_are_spread_over_all_replicas():
    shares = Counter(first(Ring(REPLICAS)).values())
    assert set(shares) == set(REPLICAS)
    assert max(shares.values()) < 2 * len(VOICES) / len(REPLICAS)


def test_a_replica_that_leaves_takes_only_its_own_voices_along():
    before, after = first(Ring(REPLICAS)), first(Ring(REPLICAS[1:]))
    assert all(after[voice] == replica for voice, replica in before.items() if replica != REPLICAS[0])


def offered(order, loads, keep=1):
    return bounded(order, loads, most(sum(loads.values()), len(loads), keep))


def test_a_voice_stays_with_its_replica_until_that_has_more_than_its_share():
    order, others = ["a", "b", "c"], {"b": 4, "c": 4}
    loads = [load for load in range(20) if offered(order, others | {"a": load})[0] == "a"]
    assert loads == list(range(7))  # with 7 and one more the mean is 5.3, of which a bound of 1.25 allows 6.7, rounded up
    assert offered(order, others | {"a": 19}) == ["b", "c", "a"]


def test_a_replica_with_few_requests_keeps_its_voices():
    assert offered(["a", "b", "c"], {"a": 3, "b": 0, "c": 0}, keep=4)[0] == "a"


def test_no_replica_has_more_than_its_bound_however_popular_a_voice_is():
    ring, loads = Ring(REPLICAS), dict.fromkeys(REPLICAS, 0)
    for _ in range(1000):
        loads[offered(ring.order("everybody's"), loads)[0]] += 1
    assert max(loads.values()) <= BOUND * 1000 / len(REPLICAS) + 1
