"""Fetches clips and uploads results by URL. Every address is checked first."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import httpx

from inference.errors import FishserveError, RequestError
from inference.http.outbound import Pinned, PrivateHost, UnknownHost, certificates, public_address
from inference.spool import PIECE_BYTES, Spool
from worker.job import MAX_CLIP_BYTES, Clip, Upload

FETCH_SECONDS = 30
"""How long fetching a clip may take."""
URL_SECONDS = 300
"""How long a result's URL stays valid."""
ATTEMPTS, FIRST_PAUSE = 4, 0.5
"""Attempts of an upload; seconds before the second attempt, doubled each time."""
_ATTEMPT_SECONDS = 60
BUCKET_SECONDS = 300
"""How long the bucket may take over a request, its retries included."""
_THREADS = 32
_PLAIN = {"Accept-Encoding": "identity"}
"""A few kilobytes of a compressed answer can become gigabytes."""


class StorageError(FishserveError):
    """Storage refused a request, or could not be reached."""


@dataclass(frozen=True)
class Storage:
    """The bucket that the worker has credentials for, if any, and other URLs.

    The bucket's endpoint is trusted; other hosts must be public.
    A bucket or a name server that does not answer holds up threads of its own, and no other job.
    """

    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    bucket: str | None = None

    @classmethod
    def from_environment(cls) -> Storage:
        """Read R2_ENDPOINT, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY and R2_BUCKET_NAME."""
        names = ("R2_ENDPOINT", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET_NAME")
        return cls(*(os.environ.get(name) or None for name in names))

    async def clip(self, asked: Clip) -> Spool:
        """The clip at a job's URL or key, at most MAX_CLIP_BYTES, for the caller to close. Raises RequestError, StorageError."""
        if asked.url is not None:
            return await self.fetch(asked.url)
        bucket, key = self._place(asked, "voice")
        found = await self._ask("get_object", Bucket=bucket, Key=key)
        content = Spool()
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                await asyncio.get_running_loop().run_in_executor(self._threads, partial(_take, found, content))
        except BaseException as e:
            content.close()
            if isinstance(e, FishserveError) or not isinstance(e, Exception):
                raise
            raise StorageError(f"the clip could not be fetched: {type(e).__name__}") from None
        finally:
            found["Body"].close()
        return content

    async def fetch(self, url: str) -> Spool:
        """Fetch a URL's content, at most MAX_CLIP_BYTES, for the caller to close.

        Raises RequestError for a URL that is not allowed, StorageError when it does not answer.
        """
        content = Spool()
        try:
            async with (
                asyncio.timeout(FETCH_SECONDS),
                await self._client(url) as client,
                client.stream("GET", url, headers=_PLAIN) as response,
            ):
                if response.status_code != 200:
                    raise StorageError(f"the clip's address answered {response.status_code}{_reason(await _some(response))}")
                async for piece in response.aiter_raw():
                    if content.size + len(piece) > MAX_CLIP_BYTES:
                        raise RequestError(f"the clip has more than {MAX_CLIP_BYTES:,} bytes", "voice")
                    await content.write(piece)
        except BaseException as e:
            content.close()
            if isinstance(e, httpx.HTTPError | OSError):
                raise StorageError(f"the clip could not be fetched: {type(e).__name__}") from None
            raise
        return content

    async def send(self, upload: Upload, content: Spool, media_type: str, job: str, result: dict[str, Any]) -> dict[str, str]:
        """Upload the content, retrying where that may help, and check that it arrived whole. Raises RequestError, StorageError.

        Returns `{"url": ...}`, a URL valid for URL_SECONDS, with its `key`, or `{}` for an upload to a given URL.
        """
        if upload.url is not None:
            await self._put(upload.url, content, media_type)
            return {}
        bucket, key = self._place(upload, "upload")
        metadata = {"job": job, "result": json.dumps(result)}
        with content.open() as file:
            put = await self._ask("put_object", Bucket=bucket, Key=key, Body=file, ContentType=media_type, Metadata=metadata)
        await _check_whole(put["ETag"], content)
        return self._found(bucket, key)

    async def done(self, upload: Upload, job: str) -> dict[str, Any] | None:
        """The result of this very job, if a worker uploaded it to its key earlier but died before it could report it."""
        if upload.key is None:
            return None
        bucket, key = self._place(upload, "upload")
        try:
            head = await self._ask("head_object", Bucket=bucket, Key=key)
        except StorageError:  # usually there is no object; any other error will recur when sending
            return None
        if head["Metadata"].get("job") != job:
            return None
        return {**json.loads(head["Metadata"]["result"]), **self._found(bucket, key)}

    # -- by URL ----------------------------------------------------------------------------------------------------------------

    async def _put(self, url: str, content: Spool, media_type: str) -> None:
        pause = FIRST_PAUSE
        headers = {"Content-Type": media_type, "Content-Length": str(content.size)} | _PLAIN
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with (
                    asyncio.timeout(_ATTEMPT_SECONDS),
                    await self._client(url) as client,
                    client.stream("PUT", url, content=content.pieces(), headers=headers) as response,
                ):
                    answer = await _some(response)
                if response.status_code < 300:
                    await _check_whole(response.headers.get("ETag", ""), content)
                    return
                problem = f"the address to upload to answered {response.status_code}{_reason(answer)}"
                if response.status_code < 500 and response.status_code != 429:
                    raise StorageError(problem)
            except (httpx.HTTPError, TimeoutError) as e:
                problem = f"the address to upload to does not answer: {type(e).__name__}"
            if attempt == ATTEMPTS:
                raise StorageError(f"{problem}; tried {ATTEMPTS} times")
            await asyncio.sleep(pause)
            pause *= 2

    async def _client(self, url: str) -> httpx.AsyncClient:
        """A client pinned to one checked IP address, even if the name resolves differently a moment later. Raises RequestError."""
        try:
            parts = urlsplit(url)
            port = parts.port or 443
            httpx.URL(url)
        except (ValueError, httpx.InvalidURL):
            raise RequestError("an address is not one: it cannot be read") from None
        own = self.endpoint is not None and (parts.scheme, parts.netloc) == urlsplit(self.endpoint)[:2]
        if not own and parts.scheme != "https":
            raise RequestError(f"an address begins with {parts.scheme[:20]!r}; it must be https")
        if parts.hostname is None:
            raise RequestError("an address names no machine")
        if own:
            return httpx.AsyncClient(timeout=_ATTEMPT_SECONDS, verify=certificates())
        try:
            address = await public_address(parts.hostname, port, self._threads)
        except UnknownHost as e:
            raise StorageError(str(e)) from None
        except PrivateHost as e:
            raise RequestError(str(e)) from None
        return httpx.AsyncClient(timeout=_ATTEMPT_SECONDS, transport=Pinned(address))

    # -- by key ----------------------------------------------------------------------------------------------------------------

    def _place(self, asked: Upload | Clip, field: str) -> tuple[str, str]:
        bucket = asked.bucket or self.bucket
        if not (bucket and self.endpoint and self.access_key and self.secret_key):
            raise RequestError(
                f"a key needs R2_ENDPOINT, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY and R2_BUCKET_NAME; give {field}.url instead", field
            )
        assert asked.key is not None
        return bucket, asked.key

    def _found(self, bucket: str, key: str) -> dict[str, str]:
        url = self._s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=URL_SECONDS)
        return {"key": key, "url": url}

    @cached_property
    def _s3(self) -> Any:
        import boto3
        from botocore.config import Config

        # R2 may refuse the checksums that newer clients add by default.
        config = Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": ATTEMPTS, "mode": "standard"}, connect_timeout=10,
            read_timeout=_ATTEMPT_SECONDS, request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )  # fmt: skip
        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name="auto",
            config=config,
        )  # fmt: skip

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_THREADS, "storage")

    async def _ask(self, what: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            async with asyncio.timeout(BUCKET_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: getattr(self._s3, what)(**arguments))
        except TimeoutError:
            raise StorageError(f"the bucket does not answer: it took more than {BUCKET_SECONDS} s") from None
        except ClientError as e:
            raise StorageError(f"the bucket refused: {e.response['Error'].get('Code')}") from None
        except BotoCoreError as e:
            raise StorageError(f"the bucket does not answer: {type(e).__name__}") from None


def _take(found: dict[str, Any], content: Spool) -> None:
    """Copy an object to the disk. Raises RequestError for one that is too large."""
    if found["ContentLength"] > MAX_CLIP_BYTES:
        raise RequestError(f"the clip has more than {MAX_CLIP_BYTES:,} bytes", "voice")
    for piece in found["Body"].iter_chunks(PIECE_BYTES):
        content.append(piece)


async def _check_whole(etag: str, content: Spool) -> None:
    """Raise StorageError if the upload is damaged. An ETag of 32 hexadecimal digits is the MD5 of the stored bytes; others say nothing."""
    mark = etag.strip('"')
    if len(mark) == 32 and mark != await asyncio.to_thread(content.digest, partial(hashlib.md5, usedforsecurity=False)):
        raise StorageError("what arrived is not what was sent")


async def _some(response: httpx.Response) -> bytes:
    async for piece in response.aiter_raw(2000):
        return piece
    return b""


def _reason(body: bytes) -> str:
    """S3's own error code, from its XML."""
    code = body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode("ascii", "replace")
    return f" ({code})" if code.isalnum() and len(code) < 60 else ""
