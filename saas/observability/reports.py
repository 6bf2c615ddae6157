"""Reports unexpected errors to Sentry: where in the code they happened, and nothing a user sent."""

from __future__ import annotations

import logging
from typing import Any

import sentry_sdk

from saas.observability import metrics
from saas.settings import Settings

log = logging.getLogger(__name__)
_KEPT = frozenset(
    ["event_id", "timestamp", "level", "platform", "exception", "message", "tags", "release", "environment", "server_name", "sdk"]
)
STOP_SECONDS = 2.0


def start(settings: Settings) -> None:
    """Report to the project that SENTRY_DSN names, if it is set.

    Sentry collects nothing by itself (no integration, no trace, no breadcrumb): only `report` and `alarm` send anything.
    """
    if settings.sentry_dsn:
        sentry_sdk.init(
            dsn=settings.sentry_dsn, environment=settings.environment, default_integrations=False, auto_enabling_integrations=False,
            include_local_variables=False, max_breadcrumbs=0, traces_sample_rate=None, auto_session_tracking=False,
            before_send=scrubbed,
        )  # fmt: skip


def report(error: BaseException, **tags: str) -> None:
    """Report an unexpected exception. `tags` come from the code, never from a user."""
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        scope.capture_exception(error)


def alarm(message: str, **tags: str) -> None:
    """Report something that a person must look at, though nothing broke, and log and count it. Neither message nor tags hold a user's words."""
    metrics.ALARMS.inc()
    log.error("%s (%s)", message, ", ".join(f"{name} {value}" for name, value in tags.items()))
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        scope.capture_message(message, "error")


def stop() -> None:
    """Send the reports that are still pending; takes up to STOP_SECONDS."""
    sentry_sdk.flush(STOP_SECONDS)


def scrubbed(event: Any, _: Any) -> Any:
    """An event without unknown fields, and without its exceptions' messages, which may quote a text, a key or an address."""
    event = {name: value for name, value in event.items() if name in _KEPT}
    for exception in event.get("exception", {}).get("values", ()):
        exception["value"] = "(not sent)"
        exception.pop("mechanism", None)
        for frame in exception.get("stacktrace", {}).get("frames", ()):
            frame.pop("vars", None)
    return event
