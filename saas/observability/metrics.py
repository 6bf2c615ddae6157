"""Prometheus metrics of the SaaS API. No label holds user input or a user's identity."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("fishserve_saas_requests", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram(
    "fishserve_saas_request_seconds", "Seconds until the last byte of an answer.", ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)  # fmt: skip
DATABASE_SECONDS = Histogram(
    "fishserve_saas_database_seconds", "Seconds of a call of the database.", ["function"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 10),
)  # fmt: skip
JOBS = Counter("fishserve_saas_jobs", "Jobs that came to a state: queued, running, succeeded, failed, cancelled, expired.", ["status"])
CREDITS = Counter("fishserve_saas_credits", "Credits that were purchased, reserved, charged and returned.", ["kind"])
WEBHOOKS = Counter("fishserve_saas_webhooks", "Deliveries of webhooks, by what came of them.", ["source", "outcome"])
ALARMS = Counter("fishserve_saas_alarms", "Things that a person must look at, each with a line in the log.")
LIMITED = Counter("fishserve_saas_limited", "Requests refused since there were too many.", ["kind"])
LIMITER_FAILURES = Counter("fishserve_saas_limiter_failures", "Times that Redis did not answer, and this process counted alone.")
