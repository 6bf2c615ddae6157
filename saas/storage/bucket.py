"""One private bucket, as the API sees it: addresses that expire, and objects, which pass through it piece by piece.

Its keys are chosen here and in SQL, never by a client.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inference.errors import ConfigurationError, FishserveError, RequestError
from inference.spool import PIECE_BYTES, Spool
from inference.text.captions import KEY_SUFFIX
from saas.settings import Settings

URL_SECONDS = 300
"""How long a presigned URL for a user is valid."""
UPLOADS, RESULTS, VOICES = "uploads/", "results/", "voices/"
"""Key prefixes. S3's lifecycle rules select objects by these alone. SQL chooses the keys of voices."""
UPLOAD_DAYS, RESULT_DAYS = 1, 90
"""Days after which the bucket itself deletes objects with these prefixes. Results are deleted long before: SQL decides when."""
_CORS = Path(__file__).with_name("cors.json")
_CONNECTIONS, _THREADS = 32, 16
_REOPENED = 3
"""How often in a row a connection that brings nothing is opened again."""
Answer = TypeVar("Answer")


class StorageError(FishserveError):
    """The bucket refused, or could not be reached."""


@dataclass(frozen=True)
class Upload:
    """A presigned PUT: send the bytes there with these headers."""

    url: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Stored:
    """The bucket's description of an object. `metadata` was stored with it."""

    bytes: int
    content_type: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Listed:
    """An object in a list."""

    key: str
    changed_at: datetime


def upload_key(key: str) -> str:
    """Where a client uploads an object, before the API has checked it and copied it to `key`: a presigned URL outlives the check."""
    return UPLOADS + key


def result_key(user_id: str, job_id: str, extension: str) -> str:
    """The same job always has the same key, so that doing it twice leaves one file."""
    return f"{RESULTS}users/{user_id}/jobs/{job_id}.{extension}"


class Bucket:
    """Blocking calls run in threads of its own, so that a bucket that does not answer holds up nothing else.

    All methods except those that create presigned URLs raise StorageError.
    """

    def __init__(self, endpoint: str, access_key: str, secret_key: str, name: str) -> None:
        self.name = name
        # R2 may refuse the checksums that newer clients add by default.
        config = Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 3, "mode": "standard"}, connect_timeout=5,
            read_timeout=60, max_pool_connections=_CONNECTIONS, request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )  # fmt: skip
        self._s3 = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="auto", config=config
        )
        self._threads = ThreadPoolExecutor(_THREADS, "bucket")

    @classmethod
    def of(cls, settings: Settings) -> Bucket:
        """The bucket of the R2_* settings. Raises ConfigurationError when one is missing."""
        secret = settings.r2_secret_access_key
        if not (settings.r2_endpoint and settings.r2_access_key_id and secret and settings.r2_bucket_name):
            raise ConfigurationError("a bucket needs R2_ENDPOINT, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY and R2_BUCKET_NAME")
        return cls(settings.r2_endpoint, settings.r2_access_key_id, secret.get_secret_value(), settings.r2_bucket_name)

    # -- addresses ---------------------------------------------------------------------------------------------------------------

    def get_url(self, key: str, *, seconds: int = URL_SECONDS, filename: str | None = None) -> str:
        """A presigned URL to read an object. Browsers save it under `filename`, if given."""
        parameters = {"Bucket": self.name, "Key": key}
        if filename:
            parameters["ResponseContentDisposition"] = f'attachment; filename="{filename}"'
        return str(self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds))

    def put_url(self, key: str, content_type: str, size: int | None, *, seconds: int = URL_SECONDS) -> Upload:
        """A presigned URL to upload an object of this type and, unless `size` is None, exactly this many bytes: both are signed."""
        parameters: dict[str, Any] = {"Bucket": self.name, "Key": key, "ContentType": content_type}
        if size is not None:
            parameters["ContentLength"] = size
        url = self._s3.generate_presigned_url("put_object", Params=parameters, ExpiresIn=seconds)
        return Upload(str(url), {"Content-Type": content_type})

    # -- objects -----------------------------------------------------------------------------------------------------------------

    async def head(self, key: str) -> Stored | None:
        """The description of an object; None when there is no object."""
        found = await self._ask("head_object", Key=key, missing_ok=True)
        return None if found is None else Stored(found["ContentLength"], found.get("ContentType", ""), found["Metadata"])

    async def open(self, key: str) -> Download | None:
        """An object to be read piece by piece, and closed; None when there is no object."""
        found = await self._ask("get_object", Key=key, missing_ok=True)
        return None if found is None else Download(self, key, found)

    async def fetch(self, key: str, most: int) -> Spool | None:
        """The object on this machine's disk, for the caller to close; None when there is no object. Raises RequestError above `most` bytes."""
        download = await self.open(key)
        if download is None:
            return None
        spool = Spool()
        try:
            if download.bytes > most:
                raise RequestError(f"the object has more than {most:,} bytes")
            async for piece in download:
                await spool.write(piece)
        except OSError as e:
            spool.close()
            raise StorageError(f"the object cannot be kept on this server's disk: {e.strerror}") from None
        except BaseException:
            spool.close()
            raise
        finally:
            download.close()
        return spool

    async def put(self, key: str, content: Spool, content_type: str, metadata: dict[str, str] | None = None) -> None:
        """Write an object, whole or not at all."""
        with content.open() as file:
            await self._ask("put_object", Key=key, Body=file, ContentType=content_type, Metadata=metadata or {})

    async def delete(self, key: str) -> None:
        """Delete an object, and a result's captions with it. A missing object counts as deleted."""
        await self._ask("delete_object", Key=key)
        if key.startswith(RESULTS):
            await self._ask("delete_object", Key=key + KEY_SUFFIX)

    async def objects(self, prefix: str) -> AsyncIterator[Listed]:
        """The objects whose keys begin with a prefix, a page at a time."""
        more: dict[str, Any] = {}
        while True:
            page = await self._ask("list_objects_v2", Prefix=prefix, **more)
            for found in page.get("Contents", ()):
                yield Listed(found["Key"], found["LastModified"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    # -- the bucket --------------------------------------------------------------------------------------------------------------

    async def reachable(self) -> None:
        """Raises StorageError when the bucket is unreachable or refuses the credentials."""
        await self._ask("head_bucket")

    async def apply(self, origin: str) -> None:
        """Allow only pages of this origin to use presigned URLs, and set lifecycle rules that delete objects nothing else has deleted."""
        await self._ask("put_bucket_cors", CORSConfiguration=cors(origin))
        await self._ask("put_bucket_lifecycle_configuration", LifecycleConfiguration=LIFECYCLE)

    async def cors_origins(self) -> list[str]:
        """The origins whose pages may use the bucket's presigned URLs."""
        found = await self._ask("get_bucket_cors", missing_ok=True)
        return [origin for rule in (found or {}).get("CORSRules", ()) for origin in rule["AllowedOrigins"]]

    async def forgets(self) -> dict[str, int]:
        """Expiry in days, per key prefix."""
        found = await self._ask("get_bucket_lifecycle_configuration", missing_ok=True)
        rules = [rule for rule in (found or {}).get("Rules", ()) if rule["Status"] == "Enabled" and "Days" in rule.get("Expiration", {})]
        return {rule.get("Filter", {}).get("Prefix", ""): rule["Expiration"]["Days"] for rule in rules}

    def close(self) -> None:
        """Close its connections. What waits for an answer is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._s3.close()

    async def in_thread(self, work: Callable[[], Answer]) -> Answer:
        """Do what blocks."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _ask(self, what: str, *, missing_ok: bool = False, **arguments: Any) -> Any:
        return await self.in_thread(lambda: self.request(what, missing_ok=missing_ok, **arguments))

    def request(self, what: str, *, missing_ok: bool = False, **arguments: Any) -> Any:
        """Ask the bucket, in this thread. None when there is no such thing and that is `missing_ok`."""
        try:
            return getattr(self._s3, what)(Bucket=self.name, **arguments)
        except ClientError as e:
            code = e.response["Error"].get("Code")
            if missing_ok and code in ("404", "NoSuchKey", "NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration"):
                return None
            raise StorageError(f"the bucket refused: {code}") from None
        except BotoCoreError as e:
            raise StorageError(f"the bucket does not answer: {type(e).__name__}") from None


class Download:
    """An object on its way from the bucket. Iterating asks for no more than is taken.

    A connection that breaks, such as one that the bucket gives up while a slow client reads, is opened again where it broke.
    """

    def __init__(self, bucket: Bucket, key: str, found: dict[str, Any]) -> None:
        self._bucket, self._key, self._body, self._mark = bucket, key, found["Body"], found["ETag"]
        self.bytes: int = found["ContentLength"]
        self._busy, self._over = threading.Lock(), False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        at = failed = 0
        while at < self.bytes:
            try:
                piece = await self._bucket.in_thread(partial(self._read, at, failed > 0))
            except (BotoCoreError, OSError) as e:
                if (failed := failed + 1) > _REOPENED:
                    raise StorageError(f"the bucket does not answer: {type(e).__name__}") from None
                continue
            at, failed = at + len(piece), 0
            yield piece

    def close(self) -> None:
        """Let go of the connection, or have the thread that reads from it do so."""
        self._over = True
        if self._busy.acquire(blocking=False):
            self._body.close()
            self._busy.release()

    def _read(self, start: int, again: bool) -> bytes:
        try:
            with self._busy:
                if again:
                    self._body.close()
                    self._body = self._bucket.request("get_object", Key=self._key, Range=f"bytes={start}-", IfMatch=self._mark)["Body"]
                piece: bytes = self._body.read(PIECE_BYTES)
        finally:
            if self._over:
                self.close()
        if not piece:
            raise OSError("the object ended early")
        return piece


LIFECYCLE = {
    "Rules": [
        {"ID": f"forget {prefix}", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}}
        for prefix, days in ((UPLOADS, UPLOAD_DAYS), (RESULTS, RESULT_DAYS))
    ]
}


def cors(origin: str) -> dict[str, Any]:
    """The policy of cors.json for the app's origin."""
    policy: dict[str, Any] = json.loads(_CORS.read_text(encoding="utf-8").replace("APP_ORIGIN", origin))
    return policy
