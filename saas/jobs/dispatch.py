"""What a job is to a backend that speaks, and what a backend says of it. Knows neither credits nor users' requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, ValidationError

from inference.audio.encode import FORMATS, choose_rate
from inference.errors import FishserveError
from inference.seeds import seed_of
from saas.jobs.repository import ClaimedRow
from saas.storage.bucket import Stored, result_key

Ending = Literal["failed", "cancelled"]


class BackendUnavailable(FishserveError):
    """The backend cannot now: it is full, restarting or not there. `seconds` is when to try again, where it said so."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class JobRejected(FishserveError):
    """The backend never will: what it says is wrong with the job, for its user to read."""


class JobUnknown(FishserveError):
    """The backend knows nothing of a job, or has forgotten it."""


class Result(BaseModel):
    """A result that is in the bucket. The same words in its metadata let it be found again when nobody else remembers it."""

    seconds: float = Field(ge=0)
    frames: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def metadata(self, job_id: str) -> dict[str, str]:
        """What is put with the object, as the RunPod worker puts it, too."""
        return {"job": job_id, "result": self.model_dump_json()}

    @classmethod
    def found(cls, stored: Stored) -> Result | None:
        """The result an object says it is."""
        try:
            return cls.model_validate(json.loads(stored.metadata["result"]))
        except (KeyError, ValueError, ValidationError):
            return None


@dataclass(frozen=True)
class Accepted:
    """The backend has the job under this id, and will say when it is done."""

    backend_id: str


@dataclass(frozen=True)
class Terminated:
    """The backend is done with the job, and there is no result. `message` is for its user."""

    status: Ending
    message: str


@dataclass(frozen=True)
class Options:
    """How a text is to be spoken; what is None is left to the model."""

    format: str = "mp3"
    speed: float = 1.0
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        """Raises RequestError for a sample rate that the format cannot have."""
        choose_rate(self.format, self.sample_rate)

    @property
    def rate(self) -> int:
        """The sample rate of the result in Hz."""
        return choose_rate(self.format, self.sample_rate)

    def asdict(self) -> dict[str, Any]:
        """As it is kept with the job."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def media_type(self) -> str:
        """Of the result. Raw samples say nothing of themselves: they are 16-bit, mono."""
        kind = FORMATS[self.format].media_type
        return f"{kind};rate={self.rate};channels=1" if self.format == "pcm" else kind


@dataclass(frozen=True)
class VoiceClip:
    """Someone to sound like: where the clip lies, its hash, and what is said in it."""

    key: str
    sha256: str | None
    transcript: str


@dataclass(frozen=True)
class Order:
    """A job as a backend needs it."""

    job_id: str
    user_id: str
    idempotency_key: str
    text: str
    options: Options
    voice: VoiceClip | None

    @classmethod
    def of(cls, row: ClaimedRow) -> Order:
        """From a row that was claimed."""
        voice = row.get("voice")
        speaker = VoiceClip(voice["object_key"], voice.get("sha256"), voice["transcript"]) if voice else None
        return cls(row["id"], row["user_id"], row["idempotency_key"], row["text"], Options(**row["options"]), speaker)

    @property
    def key(self) -> str:
        """Where the result goes."""
        return result_key(self.user_id, self.job_id, self.options.format)

    @property
    def seed(self) -> int:
        """The one that was asked for, else the job's own: done again, it says the same in the same way."""
        return seed_of(self.job_id) if self.options.seed is None else self.options.seed


class Speech(Protocol):
    """Speech as it is made: iterated over, the bytes of a file. `seconds` and `frames` are of what was given so far."""

    @property
    def seconds(self) -> float: ...

    @property
    def frames(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def finish(self) -> bytes:
        """The end of a file that is not to go on."""
        ...

    def whole(self, content: bytes) -> bytes:
        """The finished file with true sizes in its header."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A backend that speaks into a connection this process holds. If the process dies, so does the speech, and another begins anew."""

    name: str
    slots: int

    def open(self, order: Order) -> AbstractAsyncContextManager[Speech]:
        """Begin; leaving the block early stops the backend. Raises BackendUnavailable, JobRejected, as does iterating."""
        ...


@runtime_checkable
class Queued(Protocol):
    """A backend that keeps jobs itself, whatever becomes of this process."""

    name: str
    slots: int

    async def send(self, order: Order) -> Result | Accepted | Terminated:
        """Raises BackendUnavailable, JobRejected."""
        ...

    async def status(self, backend_id: str, order_key: str | None) -> Result | Terminated | None:
        """None while it is under way. What is made must be at `order_key`, where one is given. Raises BackendUnavailable, JobUnknown."""
        ...

    async def cancel(self, backend_id: str) -> None:
        """Raises BackendUnavailable."""
        ...

    def token(self, user_id: str, idempotency_key: str) -> str:
        """What a job's webhook must come with."""
        ...


Backend = Streaming | Queued


def sha256(text: str) -> str:
    """In hexadecimal. Half of a surrogate pair counts as a character."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
