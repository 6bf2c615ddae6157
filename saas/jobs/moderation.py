"""The operator's own check of texts, asked before anything is reserved: an HTTP service, or a Python function.

It knows nothing of jobs and credits. No text is in a log, a metric or an error of the hook.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx

from inference.errors import ConfigurationError
from saas.errors import ApiError
from saas.observability import metrics, reports
from saas.settings import Settings

log = logging.getLogger(__name__)
Verdict = str | None
"""Why a text is refused, in a word or a sentence for its user; None for a text that may be spoken."""
MAX_FAILURES, PAUSE = 5, 5.0
"""After so many failures in a row the hook is not asked for so many seconds: it does not answer, and everybody would wait for it."""
MAX_REASON = 200
MAX_THREADS = 16
"""Calls of a function at once. One that never returns keeps its place until this process ends."""


class HookFailed(Exception):
    """The hook gave no answer that can be understood."""


class Moderation:
    """Asks the hook. `open`: a text is spoken when the hook fails; otherwise it is refused until the hook answers again."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        """Raises ConfigurationError when there is no such function."""
        self._seconds, self._open = settings.moderation_seconds, settings.moderation_failure == "open"
        hook, key = settings.moderation, settings.moderation_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._ask = _by_http(http, hook, headers) if hook.startswith(("http://", "https://")) else _by_function(hook)
        self._failures, self._asleep_until = 0, float("-inf")
        for outcome in ("allowed", "refused", "failed", "asleep"):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.MODERATED.labels(outcome)

    async def check(self, text: str, param: str) -> None:
        """Raises ApiError: 422 for a text that is refused, 503 when the hook fails and texts are refused then."""
        if time.monotonic() < self._asleep_until:
            return self._without_answer("asleep")
        try:
            async with asyncio.timeout(self._seconds):
                verdict = await self._ask(text)
        except TimeoutError:
            return self._failed("no answer in time")
        except Exception as e:  # the hook is not ours: whatever it raises, its message may quote the text
            return self._failed(str(e) if isinstance(e, HookFailed) else type(e).__name__)
        self._failures = 0
        if verdict is None:
            metrics.MODERATED.labels("allowed").inc()
            return None
        metrics.MODERATED.labels("refused").inc()
        raise ApiError(422, f"this text is not spoken here: {verdict}; nothing was charged", "text_refused", param)

    def _failed(self, why: str) -> None:
        self._failures += 1
        log.warning("the moderation hook failed: %s; the text was %s", why, "spoken unchecked" if self._open else "refused")
        if self._failures >= MAX_FAILURES:
            if self._failures == MAX_FAILURES:
                reports.alarm("the moderation hook does not answer", failures=str(self._failures))
            self._asleep_until = time.monotonic() + PAUSE
        self._without_answer("failed")

    def _without_answer(self, outcome: str) -> None:
        metrics.MODERATED.labels(outcome).inc()
        if not self._open:
            words = "texts cannot be checked just now, and none is spoken unchecked; nothing was charged, try again in a few seconds"
            raise ApiError(503, words, "moderation_unavailable", headers={"Retry-After": str(round(PAUSE))})


def _by_http(http: httpx.AsyncClient, url: str, headers: dict[str, str]) -> Callable[[str], Awaitable[Verdict]]:
    async def ask(text: str) -> Verdict:
        try:
            answer = await http.post(url, json={"text": text}, headers=headers, timeout=None)  # our own limit is around it
            if answer.status_code != 200:
                raise HookFailed(f"status {answer.status_code}")
            told: Any = answer.json()
        except httpx.HTTPError as e:
            raise HookFailed(type(e).__name__) from None
        except ValueError:
            raise HookFailed("an answer that is no JSON") from None
        if not isinstance(told, dict) or not isinstance(told.get("allowed"), bool):
            raise HookFailed('an answer without "allowed": true or false')
        return None if told["allowed"] else _reason(told.get("reason"))

    return ask


def _by_function(name: str) -> Callable[[str], Awaitable[Verdict]]:
    """A function of a text. One that is no coroutine runs in a thread, so that no other request waits for it."""
    module, _, function = name.partition(":")
    try:
        hook = getattr(importlib.import_module(module), function)
    except Exception as e:  # whatever its module raises
        raise ConfigurationError(
            f"FISHSERVE_SAAS_MODERATION is {name!r}, and there is no such function: {type(e).__name__}; it is https://... or package.module:function"
        ) from None
    if not callable(hook):
        raise ConfigurationError(f"FISHSERVE_SAAS_MODERATION is {name!r}, which is no function")
    turns = asyncio.Semaphore(MAX_THREADS)

    async def ask(text: str) -> Verdict:
        if inspect.iscoroutinefunction(hook):
            verdict = await hook(text)
        else:
            verdict = await _in_thread(hook, text, turns)
        if verdict is not None and not isinstance(verdict, str):
            raise HookFailed("an answer that is neither None nor a reason")
        return None if verdict is None else _reason(verdict)

    return ask


async def _in_thread(hook: Callable[[str], Any], text: str, turns: asyncio.Semaphore) -> Any:
    """What the hook answers, from a thread that the end of this process does not wait for."""
    await turns.acquire()
    loop, answer = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def told(result: Any, error: Exception | None) -> None:
        turns.release()
        if not answer.done():
            answer.set_result(result) if error is None else answer.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = hook(text)
        except Exception as e:
            error = e
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(told, result, error)

    threading.Thread(target=work, name="moderation", daemon=True).start()
    return await answer


def _reason(told: object) -> str:
    """The hook's reason as part of a sentence."""
    words = told.strip().rstrip(".") if isinstance(told, str) else ""
    return words if 0 < len(words) <= MAX_REASON and words.isprintable() else "it was refused by this service's moderation"
