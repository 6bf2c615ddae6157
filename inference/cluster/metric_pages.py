"""The metrics of several replicas as one page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class _Pages(Collector):
    """The families of several pages as one page."""

    def __init__(self, pages: list[tuple[str, str]]) -> None:
        self._families: dict[str, Metric] = {}
        for name, text in pages:
            for family in text_string_to_metric_families(text):
                into = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    into.add_sample(sample.name, sample.labels | {"replica": name}, sample.value)

    def collect(self) -> list[Metric]:
        return list(self._families.values())


def merged(pages: list[tuple[str, str]]) -> bytes:
    """Prometheus' text format for pages of several replicas, (name, text) each: every sample gets the label `replica`."""
    registry = CollectorRegistry()
    registry.register(_Pages(pages))
    return generate_latest(registry)
