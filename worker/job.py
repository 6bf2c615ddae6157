"""The worker's job format: input, result, and their validation."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from inference.errors import RequestError
from inference.text.captions import KEY_SUFFIX

INLINE_BYTES = 1_000_000
"""Most base64 characters in one message through RunPod's queue, which drops larger answers."""
MAX_CAPTIONS = 200_000
"""Most characters of captions in a result, as JSON: half an hour of speech or more. Longer ones need an upload."""
MAX_CLIP_BYTES = 25_000_000
"""The largest clip, in a job or at a URL."""
_KEY = r"^[A-Za-z0-9][A-Za-z0-9!_.*'()/ -]{0,1023}$"


def _decoded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > MAX_CLIP_BYTES * 4 // 3 + 4:
        raise ValueError(f"it has more than {MAX_CLIP_BYTES:,} bytes")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None


def _check_place(key: str | None, bucket: str | None) -> None:
    if key is not None and ".." in key.split("/"):
        raise ValueError("a key has no '..'")
    if bucket is not None and key is None:
        raise ValueError("a bucket needs a key")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Clip(_Strict):
    """A voice to imitate: a clip, as an https URL, in base64, or a key in a bucket for which the worker has credentials; and its transcript."""

    text: str = Field(min_length=1, max_length=2000)
    url: str | None = None
    audio: Annotated[bytes | None, BeforeValidator(_decoded)] = None
    key: str | None = Field(None, pattern=_KEY)
    bucket: str | None = Field(None, description="None: R2_BUCKET_NAME.")

    @model_validator(mode="after")
    def _one_source(self) -> Clip:
        if [self.url, self.audio, self.key].count(None) != 2:
            raise ValueError("a clip has either a url or audio, in base64, or a key")
        _check_place(self.key, self.bucket)
        return self


Speaker = Annotated[
    Annotated[str, Tag("name")] | Annotated[Clip, Tag("clip")], Discriminator(lambda value: "clip" if isinstance(value, dict) else "name")
]


class Upload(_Strict):
    """Where to upload the audio: a presigned PUT URL, or a key in a bucket for which the worker has credentials.

    Captions go to a URL of their own, or to the key with KEY_SUFFIX behind it.
    """

    url: str | None = None
    captions_url: str | None = None
    key: str | None = Field(None, pattern=_KEY)
    bucket: str | None = Field(None, description="None: R2_BUCKET_NAME.")

    @model_validator(mode="after")
    def _one_target(self) -> Upload:
        if (self.url is None) == (self.key is None):
            raise ValueError("an upload has either a url or a key")
        if self.captions_url is not None and self.url is None:
            raise ValueError(f"a captions_url needs a url; with a key, captions go to that key with {KEY_SUFFIX} behind it")
        _check_place(self.key, self.bucket)
        return self

    @property
    def captions(self) -> Upload | None:
        """Where to upload the captions; None: nowhere."""
        if self.key is not None:
            return Upload.model_validate({"key": self.key + KEY_SUFFIX, "bucket": self.bucket})
        return None if self.captions_url is None else Upload.model_validate({"url": self.captions_url})


class Job(_Strict):
    """A job's `input`. Unknown fields are refused by name."""

    version: Literal[1] = 1
    text: str | None = None
    segments: list[str] | None = Field(None, min_length=1, max_length=1000, description="Instead of text: its paragraphs.")
    voice: Speaker | None = None
    format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    sample_rate: int | None = None
    speed: float = 1.0
    stream: bool = Field(False, description="Yield the file piece by piece as it is made.")
    upload: Upload | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    normalize: bool | None = None
    chunk_length: int = 200
    max_new_tokens: int | None = None
    captions: Literal["srt", "vtt", "json"] | None = Field(None, description="Also make captions, or the times of words as JSON.")
    max_seconds: float | None = Field(None, ge=0, description="Stop after so many seconds of speech, before speed changes them.")
    traceparent: str = Field("", max_length=512, description="The span that the job's spans belong to, as W3C Trace Context writes it.")

    @model_validator(mode="after")
    def _one_text(self) -> Job:
        if (self.text is None) == (self.segments is None):
            raise ValueError("a job has either text or segments")
        return self

    @property
    def spoken(self) -> str:
        """The whole text to speak."""
        return self.text if self.text is not None else "\n\n".join(self.segments or ())


def parse(given: Any) -> Job:
    """Parse a job's input. Raises a RequestError that says which field is wrong and why."""
    try:
        return Job.model_validate(given)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part)[:80] for part in first["loc"][:5]) or "input"
        if first["type"] == "extra_forbidden":
            raise RequestError(f"{where} is not a field of a job; its fields are {', '.join(Job.model_fields)}") from None
        value = "" if first["type"] in ("missing", "value_error") else f" is {_shown(first['input'])}"
        raise RequestError(f"{where}{value}: {first['msg'].removeprefix('Value error, ')}", where) from None


def _shown(value: Any) -> str:
    """A value in an error. Only the type of one that may be large or deep: to write it out would take long, or fail."""
    if isinstance(value, str):
        return repr(value[:80])
    plain = value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e30)
    return repr(str(value)) if plain else f"a {type(value).__name__}"
