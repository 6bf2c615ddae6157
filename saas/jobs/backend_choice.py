"""Chooses the speech backend that the settings name."""

from __future__ import annotations

import httpx

from inference.errors import ConfigurationError
from saas.jobs.backend import Queued, Streaming
from saas.jobs.fishserve import Fishserve
from saas.jobs.runpod import RunPod
from saas.settings import Settings
from saas.storage.bucket import Bucket


def backend_of(settings: Settings, http: httpx.AsyncClient, bucket: Bucket) -> Streaming | Queued:
    """RunPod if its endpoint is set, else the fishserve servers. Raises ConfigurationError when neither is configured."""
    if settings.runpod_endpoint_id and settings.runpod_api_key:
        return RunPod(
            bucket, settings.runpod_base_url, settings.runpod_endpoint_id, settings.runpod_api_key.get_secret_value(), settings.public_url,
            by_key=settings.runpod_upload == "key",
        )  # fmt: skip
    if settings.fishserve_urls:
        key = settings.fishserve_key.get_secret_value() if settings.fishserve_key else None
        return Fishserve(http, bucket, settings.fishserve_urls, key)
    raise ConfigurationError("no speech backend is configured: set RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID, or FISHSERVE_URL")
