"""The pages of several replicas become one page that Prometheus can read."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference.cluster.metric_pages import merged


def page(requests):
    registry = CollectorRegistry()
    Counter("made_requests", "Requests.", ["reason"], registry=registry).labels("stop").inc(requests)
    Histogram("made_seconds", "Seconds.", registry=registry, buckets=(1, 2)).observe(1.5)
    return generate_latest(registry).decode()


def test_each_sample_says_which_replica_it_is_of():
    found = merged([("a", page(3)), ("b", page(4))]).decode()
    families = {family.name: family for family in text_string_to_metric_families(found)}
    totals = {s.labels["replica"]: s.value for s in families["made_requests"].samples if s.name == "made_requests_total"}
    assert totals == {"a": 3, "b": 4}
    assert families["made_seconds"].type == "histogram"
    assert sum(s.value for s in families["made_seconds"].samples if s.name == "made_seconds_count") == 2
    assert found.count("# TYPE made_requests_total counter") == 1


def test_without_replicas_the_page_is_empty():
    assert merged([]) == b""
