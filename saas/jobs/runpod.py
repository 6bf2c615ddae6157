"""RunPod Serverless: jobs for the worker of this repository, by the queue's HTTP API. Results go to the bucket, not through the queue."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from pydantic import ValidationError

from inference import tracing
from inference.text.captions import CAPTION_FORMATS, KEY_SUFFIX
from saas.jobs.backend import Accepted, BackendUnavailable, JobRejected, JobUnknown, Order, Result, Terminated, Underway
from saas.storage.bucket import Bucket

SYNC_CHARACTERS, SYNC_SECONDS, MAX_SYNC = 200, 8, 16
"""For texts up to this long, wait this many seconds, for this many jobs at once: the result is ready before a webhook would be."""
EXECUTION_SECONDS, TTL_SECONDS = 600, 3600
"""How long a job may run, and how long it may wait and run in total."""
ADDRESS_SECONDS = TTL_SECONDS
"""How long presigned URLs for workers without the bucket's credentials are valid: so long may a job wait and run before its result is uploaded."""
KEY_SECONDS = 60
"""How long a job waits when RunPod refuses the API key: a person must give another one."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNDER_WAY = ("IN_QUEUE", "IN_PROGRESS")
_FAULT = Terminated("failed", "the machine that was speaking failed; try again")
_ENDS = {
    "CANCELLED": Terminated("cancelled", "the job was cancelled"),
    "TIMED_OUT": Terminated("failed", "speaking took too long and was stopped; send a shorter text"),
}


class RunPod:
    """One queue endpoint, which is sent at most `slots` jobs at the same moment.

    `by_key`: its workers have the bucket's credentials, and a job carries keys, which are worth nothing to others. Otherwise each job carries
    presigned URLs for its clip and its result. Each job is sent by aiohttp, which takes a fifth of the processor time that httpx takes.
    """

    name = "runpod"

    def __init__(
        self, bucket: Bucket, base_url: str, endpoint: str, api_key: str, public_url: str, *, by_key: bool = True,
        slots: int = 32,
    ) -> None:  # fmt: skip
        self._bucket, self._base, self._public = bucket, f"{base_url}/{endpoint}", public_url
        self._session: aiohttp.ClientSession | None = None
        self._headers, self._by_key, self.slots = {"Authorization": f"Bearer {api_key}"}, by_key, slots
        self._held = 0
        self._secret = hmac.digest(api_key.encode(), b"fishserve webhooks", "sha256")

    def token(self, user_id: str, idempotency_key: str) -> str:
        """The token in a job's webhook. It can be derived again from the job's row; the database stores only its hash."""
        return hmac.new(self._secret, f"{user_id}/{idempotency_key}".encode(), hashlib.sha256).hexdigest()

    async def send(self, order: Order) -> Result | Accepted | Terminated:
        """As Queued.send. A broken connection may leave a second job behind, whose result is the same file."""
        with tracing.call("RunPod job", **{"fishserve.job": order.job_id}) as trace:
            return await self._send(order, trace)

    async def _send(self, order: Order, trace: dict[str, str]) -> Result | Accepted | Terminated:
        """`trace` may have the `traceparent` that the worker's spans belong to."""
        body = {
            "input": self._input(order) | {name: trace[name] for name in ("traceparent",) if name in trace}, "webhook": self._webhook(order),
            "policy": {"executionTimeout": 1000 * EXECUTION_SECONDS, "ttl": 1000 * TTL_SECONDS},
        }  # fmt: skip
        if len(order.text) > SYNC_CHARACTERS or self._held >= MAX_SYNC:
            answer = await self._ask("POST", "run", body)
        else:
            self._held += 1
            try:
                answer = await self._ask("POST", f"runsync?wait={1000 * SYNC_SECONDS}", body, seconds=SYNC_SECONDS + 10)
            finally:
                self._held -= 1
        if "id" not in answer:
            raise BackendUnavailable("RunPod gave the job no id")
        outcome = self._read(answer, order.key, order.options.speed)
        return Accepted(_checked(answer["id"])) if isinstance(outcome, Underway) else outcome

    async def status(self, backend_id: str, order_key: str | None, speed: float) -> Result | Terminated | Underway:
        """As Queued.status."""
        return self._read(await self._ask("GET", f"status/{_checked(backend_id)}"), order_key, speed)

    async def cancel(self, backend_id: str) -> None:
        """As Queued.cancel. A job that has ended or is unknown needs no cancelling."""
        try:
            await self._ask("POST", f"cancel/{_checked(backend_id)}")
        except JobUnknown:
            return

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _input(self, order: Order) -> dict[str, Any]:
        given = order.options.asdict() | {"version": 1, "text": order.text, "seed": order.seed}
        if order.budget is not None:
            given["max_seconds"] = order.budget
        bucket = self._bucket
        if order.voice:
            address = {"url": bucket.get_url(order.voice.key, seconds=ADDRESS_SECONDS)}
            given["voice"] = {"text": order.voice.transcript} | (
                {"key": order.voice.key, "bucket": bucket.name} if self._by_key else address
            )
        if self._by_key:
            given["upload"] = {"key": order.key, "bucket": bucket.name}
        else:
            given["upload"] = {"url": bucket.put_url(order.key, order.options.media_type, None, seconds=ADDRESS_SECONDS).url}
            if kind := order.options.captions:
                captions = bucket.put_url(order.key + KEY_SUFFIX, CAPTION_FORMATS[kind].media_type, None, seconds=ADDRESS_SECONDS)
                given["upload"]["captions_url"] = captions.url
        return given

    def _webhook(self, order: Order) -> str:
        token = self.token(order.user_id, order.idempotency_key)
        query = urlencode({"job": order.job_id, "token": token, "mark": self.token(order.job_id, token)})
        return f"{self._public}/api/webhook/runpod?{query}"

    async def _ask(self, method: str, path: str, body: Any = None, *, seconds: float = 10) -> dict[str, Any]:
        if self._session is None:  # a session belongs to a running loop
            connector = aiohttp.TCPConnector(limit=0, ssl=httpx.create_ssl_context())  # its certificates, as of all that is asked here
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, proxy=_proxy(self._base))
        try:
            async with self._session.request(
                method, f"{self._base}/{path}", json=body, timeout=aiohttp.ClientTimeout(total=seconds), allow_redirects=False
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as e:
            raise BackendUnavailable(f"RunPod does not answer: {type(e).__name__}") from None
        sending = path == "run" or path.startswith("runsync")
        if response.status == 404 and not sending:
            raise JobUnknown("RunPod does not know the job")
        if response.status == 400 and sending:
            raise JobRejected("RunPod refused the job")
        if response.status in (401, 403):
            raise BackendUnavailable("RunPod refuses RUNPOD_API_KEY", KEY_SECONDS, "key")
        if response.status >= 300:
            after = response.headers.get("Retry-After", "")
            raise BackendUnavailable(f"RunPod answered {response.status}", float(after) if after.isascii() and after.isdigit() else None)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise BackendUnavailable("RunPod's answer cannot be read")
        return answer

    def _read(self, answer: dict[str, Any], order_key: str | None, speed: float) -> Result | Terminated | Underway:
        status = answer.get("status")
        if status == "COMPLETED":
            return self._result(answer.get("output"), order_key)
        if status in _UNDER_WAY:
            return Underway(_progress(answer.get("output")) / speed)
        return _ENDS.get(status or "") or Terminated("failed", _sentence(answer.get("error")))

    def _result(self, output: Any, order_key: str | None) -> Result | Terminated:
        """The worker's last output: the result, or the sentence that says why there is none."""
        last = output[-1] if isinstance(output, list) and output else output
        if not isinstance(last, dict) or "error" in last:
            return Terminated("failed", _sentence(last.get("error") if isinstance(last, dict) else None))
        try:
            made = Result.model_validate(last)
        except ValidationError:
            return _FAULT
        return _FAULT if self._by_key and order_key is not None and last.get("key") != order_key else made


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for a URL. aiohttp would look for it anew in a thread for each request, and for a password in ~/.netrc."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def _checked(backend_id: Any) -> str:
    """The id as part of a URL. Raises JobUnknown for a value that cannot be one of RunPod's ids."""
    if not isinstance(backend_id, str) or not _ID.fullmatch(backend_id):
        raise JobUnknown("that is no id of a RunPod job")
    return quote(backend_id)


def _progress(output: Any) -> float:
    """The seconds of speech of the worker's last report, before speed; 0 before the first."""
    seconds = output.get("seconds") if isinstance(output, dict) else None
    return float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 1_000_000 else 0.0


def _sentence(error: Any) -> str:
    """The worker's one sentence for people. For a crash, whose text belongs in the log, a sentence that only says so."""
    words = error.strip() if isinstance(error, str) else ""
    return words if words and len(words) <= 500 and not words.startswith("{") and "\n" not in words else _FAULT.message
