"""Reports unexpected errors to Sentry: where in the code they happened, and nothing a user sent."""

from __future__ import annotations

from typing import Any

import sentry_sdk

from saas.settings import Settings

_KEPT = frozenset(
    ["event_id", "timestamp", "level", "platform", "exception", "message", "tags", "release", "environment", "server_name", "sdk"]
)
STOP_SECONDS = 2.0


def start(settings: Settings) -> None:
    """Report to the project that SENTRY_DSN names, where it names one.

    Nothing is collected by itself (no integration, no trace, no breadcrumb): `report` and `alarm` are the only ways there.
    """
    if settings.sentry_dsn:
        sentry_sdk.init(
            dsn=settings.sentry_dsn, environment=settings.environment, default_integrations=False, auto_enabling_integrations=False,
            include_local_variables=False, max_breadcrumbs=0, traces_sample_rate=None, auto_session_tracking=False,
            before_send=scrubbed,
        )  # fmt: skip


def report(error: BaseException, **tags: str) -> None:
    """An exception that nobody expected. `tags` are words of the code, never of a user."""
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        scope.capture_exception(error)


def alarm(message: str, **tags: str) -> None:
    """Something that a person must look at, though nothing broke. Neither message nor tags hold what a user said."""
    with sentry_sdk.new_scope() as scope:
        scope.set_tags(tags)
        scope.capture_message(message, "error")


def stop() -> None:
    """Send what is still here; takes up to STOP_SECONDS."""
    sentry_sdk.flush(STOP_SECONDS)


def scrubbed(event: Any, _: Any) -> Any:
    """An event without the words of its exceptions, which may quote a text, a key or an address, and without what we do not know."""
    event = {name: value for name, value in event.items() if name in _KEPT}
    for exception in event.get("exception", {}).get("values", ()):
        exception["value"] = "(not sent)"
        exception.pop("mechanism", None)
        for frame in exception.get("stacktrace", {}).get("frames", ()):
            frame.pop("vars", None)
    return event
