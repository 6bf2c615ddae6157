"""A private S3 bucket that holds voices, as far as a store of voices needs one. Every call blocks, for seconds where the bucket does not answer.

Credentials, region and endpoint are those of AWS's own tools: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL_S3, ~/.aws, the role of a machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from inference.errors import ConfigurationError, VoicesUnavailable

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 3, 10, 2
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/[A-Za-z0-9._-]+)*)/?")
_CONFLICTS = (409, 412)
_MISSING = ("404", "NoSuchKey")


class Unchanged(Exception):
    """The object is the one that the caller has already."""


class Conflict(Exception):
    """The object is not the one that the caller wanted to replace."""


@dataclass(frozen=True)
class Stored:
    """An object's content and its ETag, which changes with the content."""

    content: bytes
    etag: str


class Bucket:
    """The objects of `url`, s3://BUCKET/PREFIX. Methods raise VoicesUnavailable."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError for what is no such address, and for settings of AWS's tools that cannot be used."""
        parts = _URL.fullmatch(url)
        if parts is None:
            raise ConfigurationError(f"FISHSERVE_VOICES_BUCKET is {url[:200]!r}; it has the form s3://BUCKET or s3://BUCKET/PREFIX")
        self._name, prefix = parts["bucket"], parts["prefix"].strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        config = Config(
            signature_version="s3v4", s3={"addressing_style": "path" if own else "auto"}, connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS, retries={"max_attempts": ATTEMPTS, "mode": "standard"},
            request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )  # fmt: skip
        try:
            self._s3 = boto3.Session().client("s3", config=config)  # not the default session, which keeps credentials for ever
        except (BotoCoreError, ValueError) as e:
            raise ConfigurationError(f"the bucket of the voices cannot be used: {e}") from None

    def get(self, key: str, known: str | None = None, *, max_bytes: int) -> Stored | None:
        """An object; None where there is none. Raises Unchanged when its ETag is `known`."""
        arguments = {"IfNoneMatch": known} if known else {}
        try:
            found = self._s3.get_object(Bucket=self._name, Key=self._prefix + key, **arguments)
            with found["Body"] as body:
                if found["ContentLength"] > max_bytes:
                    raise VoicesUnavailable(
                        f"{key} in the bucket of the voices has {found['ContentLength']:,} bytes; at most {max_bytes:,} are read"
                    )
                return Stored(body.read(), found["ETag"])
        except ClientError as e:
            if _status(e) == 304:
                raise Unchanged from None
            if e.response["Error"]["Code"] in _MISSING:
                return None
            raise _failure(e) from None
        except BotoCoreError as e:
            raise _failure(e) from None

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            self._s3.head_object(Bucket=self._name, Key=self._prefix + key)
        except ClientError as e:
            if _status(e) == 404:
                return False
            raise _failure(e) from None
        except BotoCoreError as e:
            raise _failure(e) from None
        return True

    def put(self, key: str, content: bytes) -> None:
        """Store an object, whatever there was."""
        self._put(key, content, {})

    def replace(self, key: str, content: bytes, etag: str | None) -> str:
        """Store an object if the one there has this ETag, or if there is none for None; the new ETag. Raises Conflict.

        After VoicesUnavailable the object may have been stored, and also after Conflict: the first answer may have been lost.
        """
        return self._put(key, content, {"IfMatch": etag} if etag else {"IfNoneMatch": "*"})

    def _put(self, key: str, content: bytes, condition: dict[str, str]) -> str:
        try:
            done = self._s3.put_object(Bucket=self._name, Key=self._prefix + key, Body=content, **condition)
        except ClientError as e:
            if condition and (_status(e) in _CONFLICTS or e.response["Error"]["Code"] in _MISSING):
                raise Conflict from None
            raise _failure(e) from None
        except BotoCoreError as e:
            raise _failure(e) from None
        return str(done["ETag"])

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        try:
            self._s3.delete_object(Bucket=self._name, Key=self._prefix + key)
        except (BotoCoreError, ClientError) as e:
            raise _failure(e) from None

    def list(self, under: str) -> Iterator[tuple[str, datetime]]:
        """The keys that begin with `under`, and when each was stored."""
        try:
            for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=self._prefix + under):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._prefix), entry["LastModified"]
        except (BotoCoreError, ClientError) as e:
            raise _failure(e) from None

    def close(self) -> None:
        """Close the connections."""
        self._s3.close()


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _failure(error: Exception) -> VoicesUnavailable:
    """In words without keys, addresses and signatures, which clients must not see."""
    if isinstance(error, ClientError):
        return VoicesUnavailable(f"the bucket of the voices answered {error.response['Error']['Code']}")
    return VoicesUnavailable(f"the bucket of the voices cannot be reached: {type(error).__name__}")
