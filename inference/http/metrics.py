"""Collects the metrics of every process of a server into one page."""

from __future__ import annotations

import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client keeps values that several processes add to; must be set before it is imported."""


def exposition() -> tuple[bytes, str]:
    """The page and its media type, for all processes when the shared directory is set, else for this one."""
    registry: CollectorRegistry = REGISTRY
    if SHARED_DIRECTORY in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST
