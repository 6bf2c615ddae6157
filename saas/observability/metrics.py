"""Prometheus metrics of the SaaS API. No label holds user input or a user's identity."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
DELIVERIES = Counter(
    "fishserve_saas_webhook_deliveries", "Attempts to deliver customers' webhooks: delivered, retried later, failed for good.", ["outcome"]
)
MAILS = Counter("fishserve_saas_mails", "Attempts to send mail: sent, retried later, failed for good.", ["outcome"])
ALARMS = Counter("fishserve_saas_alarms", "Things that a person must look at, each with a line in the log.")
LIMITED = Counter("fishserve_saas_limited", "Requests refused since there were too many.", ["kind"])
LIMITER_FAILURES = Counter("fishserve_saas_limiter_failures", "Times that Redis did not answer, and this process counted alone.")
FAULTS = Counter(
    "fishserve_saas_speech_faults",
    "Times that speech failed: the backend was unavailable, refused the key, a worker failed, a job was lost, this disk was full.",
    ["backend", "fault"],
)
SERVER_FAULTS = Counter(
    "fishserve_saas_speech_server_faults",
    "Requests that servers at an address of FISHSERVE_URL did not take or broke off.",
    ["server", "fault"],
)
MODERATED = Counter(
    "fishserve_saas_moderated",
    "Texts by what the moderation hook said: allowed, refused; failed: it did not answer; asleep: it was not asked, since it did not answer.",
    ["outcome"],
)
STRIPE_LAG = Histogram(
    "fishserve_saas_stripe_lag_seconds", "Seconds from an event at Stripe until it was booked here.",
    buckets=(1, 2, 5, 10, 30, 60, 300, 1800, 3600, 21_600, 86_400, 259_200),
)  # fmt: skip

SERVERS_UP = Gauge(
    "fishserve_saas_speech_servers_up", "Servers at an address of FISHSERVE_URL that answer and are ready.", ["server"],
    multiprocess_mode="mostrecent",
)  # fmt: skip
SERVER_RUNNING = Gauge(
    "fishserve_saas_speech_server_requests", "Requests that this API has at an address of FISHSERVE_URL.", ["server"],
    multiprocess_mode="livesum",
)  # fmt: skip
DATABASE_UP = Gauge(
    "fishserve_saas_database_up", "Whether the database answered when this page was asked for.", multiprocess_mode="mostrecent"
)
JOBS_NOW = Gauge("fishserve_saas_jobs_unfinished", "Jobs of all processes: queued, running.", ["status"], multiprocess_mode="mostrecent")
OLDEST = Gauge(
    "fishserve_saas_oldest_job_seconds", "Age of the oldest job that is queued, or running.", ["status"], multiprocess_mode="mostrecent"
)
DELETIONS = Gauge(
    "fishserve_saas_deletions_waiting", "Objects and customers that are still to be deleted elsewhere.", multiprocess_mode="mostrecent"
)
PUT_OFF = Gauge(
    "fishserve_saas_put_off",
    "Items of background work that failed and are tried again later: a customer or object to delete, a reservation or credits to end.",
    ["kind"], multiprocess_mode="mostrecent",
)  # fmt: skip
OLDEST_REPORT = Gauge(
    "fishserve_saas_oldest_report_seconds",
    "Age of the oldest report of misuse that is open; 0 without one.",
    multiprocess_mode="mostrecent",
)
OUTSTANDING = Gauge(
    "fishserve_saas_credits_outstanding", "Credits that users have bought or been given, and not spent.", multiprocess_mode="mostrecent"
)
MONEY = Gauge(
    "fishserve_saas_money_cents", "Money since the beginning, in the currency's smallest unit: paid, returned by refunds and disputes.",
    ["kind", "currency"], multiprocess_mode="mostrecent",
)  # fmt: skip
