"""Chooses the store of voices that the settings name."""

from __future__ import annotations

from pathlib import Path

from inference.extras import needs
from inference.voices.store import VoiceStore


def open_store(directory: Path, bucket: str) -> VoiceStore:
    """The voices of a bucket (s3://BUCKET/PREFIX), or of a directory if there is none. Raises ConfigurationError, MissingExtra."""
    if not bucket:
        return VoiceStore(directory)
    with needs("s3", "FISHSERVE_VOICES_BUCKET"):
        from inference.voices.bucket_store import BucketVoiceStore

        return BucketVoiceStore(bucket)
