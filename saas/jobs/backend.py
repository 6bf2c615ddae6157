"""The interface between jobs and speech backends: what a backend gets and what it answers. Knows neither credits nor users' requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, ValidationError

from inference.audio.encode import FORMATS, choose_rate
from inference.errors import FishserveError
from inference.seeds import seed_of
from inference.text.words import Word
from saas.jobs.repository import ClaimedRow
from saas.storage.bucket import Stored, result_key

Ending = Literal["failed", "cancelled"]
Fault = Literal["unavailable", "key", "disk", "failed", "lost"]
"""How speech failed: the backend did not answer or was full, it refused our key, this server's disk is full, a worker failed, a job was lost."""


class BackendUnavailable(FishserveError):
    """The backend cannot do this now: it is full, restarting or unreachable. `seconds` is the time until a retry, if it said so."""

    def __init__(self, message: str, seconds: float | None = None, fault: Fault = "unavailable") -> None:
        super().__init__(message)
        self.seconds, self.fault = seconds, fault


class JobRejected(FishserveError):
    """The backend will never accept the job. The message tells the user what is wrong with it."""


class LeftForLater(FishserveError):
    """This process could not finish a job, which is not over: another attempt speaks it, and it is charged then."""


class JobUnknown(FishserveError):
    """The backend knows nothing of a job, or has forgotten it."""


class Result(BaseModel):
    """A result in the bucket. Its metadata repeat these fields, so that the result can be found when no process remembers it."""

    seconds: float = Field(ge=0)
    frames: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    partial: bool = Field(False, description="The file ends before the text does.")

    def metadata(self, job_id: str) -> dict[str, str]:
        """The object's metadata, in the same format that the RunPod worker writes."""
        return {"job": job_id, "result": self.model_dump_json()}

    @classmethod
    def found(cls, stored: Stored) -> Result | None:
        """The result that an object's metadata describe; None if they describe none."""
        try:
            return cls.model_validate(json.loads(stored.metadata["result"]))
        except (KeyError, ValueError, ValidationError):
            return None


@dataclass(frozen=True)
class Accepted:
    """The backend has the job under this id, and will report when it is done."""

    backend_id: str


@dataclass(frozen=True)
class Underway:
    """The backend has not finished the job. `seconds` of its audio are made, as far as the backend has told."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Terminated:
    """The job ended at the backend without a result. `message` is for the job's user."""

    status: Ending
    message: str


@dataclass(frozen=True)
class Options:
    """How to speak a text. The model decides the options that are None."""

    format: str = "mp3"
    speed: float = 1.0
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    sample_rate: int | None = None
    captions: str | None = None

    def __post_init__(self) -> None:
        """Raises RequestError for a sample rate that the format cannot have."""
        choose_rate(self.format, self.sample_rate)

    @property
    def rate(self) -> int:
        """The sample rate of the result in Hz."""
        return choose_rate(self.format, self.sample_rate)

    def asdict(self) -> dict[str, Any]:
        """The options as stored with the job."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def media_type(self) -> str:
        """The media type of the result. Raw samples have no header: they are 16-bit, mono."""
        kind = FORMATS[self.format].media_type
        return f"{kind};rate={self.rate};channels=1" if self.format == "pcm" else kind


@dataclass(frozen=True)
class VoiceClip:
    """A voice to imitate: the key of its clip, the clip's hash and its transcript."""

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
    budget: float | None
    """Seconds of speech that the reservation buys, before `options.speed` changes them; the backend stops there. None: no limit."""

    @classmethod
    def of(cls, row: ClaimedRow) -> Order:
        """The order for a claimed row."""
        voice = row.get("voice")
        speaker = VoiceClip(voice["object_key"], voice.get("sha256"), voice["transcript"]) if voice else None
        options, seconds = Options(**row["options"]), row["budget_seconds"]
        budget = None if seconds is None else seconds * options.speed
        return cls(row["id"], row["user_id"], row["idempotency_key"], row["text"] or "", options, speaker, budget)

    @property
    def key(self) -> str:
        """The key of the result in the bucket."""
        return result_key(self.user_id, self.job_id, self.options.format)

    @property
    def seed(self) -> int:
        """The requested seed, else the job's own, so that a retry speaks the text in the same way."""
        return seed_of(self.job_id) if self.options.seed is None else self.options.seed


class Speech(Protocol):
    """Speech as it is generated. Iterating yields the bytes of a file; `seconds` and `frames` count the speech so far."""

    @property
    def seconds(self) -> float: ...

    @property
    def frames(self) -> int: ...

    @property
    def partial(self) -> bool:
        """Whether the budget ended it before the text did."""
        ...

    @property
    def words(self) -> Sequence[Word]:
        """The words so far and their times in the file, if the order has captions."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def finish(self) -> bytes:
        """The last bytes of the file; nothing may follow them."""
        ...

    def true_sizes(self, size: int) -> tuple[int, bytes]:
        """What the finished file of `size` bytes must have in its header instead of what was written: the position, and the bytes."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A backend that speaks over a connection of this process. If the process dies, the speech is lost and another process starts over."""

    name: str

    @property
    def slots(self) -> int:
        """How many jobs it is given at once."""
        ...

    def open(self, order: Order) -> AbstractAsyncContextManager[Speech]:
        """Start speaking; leaving the block early stops the backend. Opening and iterating raise BackendUnavailable and JobRejected."""
        ...


@runtime_checkable
class Queued(Protocol):
    """A backend with its own queue, whose jobs outlive this process."""

    name: str

    @property
    def slots(self) -> int:
        """How many jobs are sent at the same moment."""
        ...

    async def send(self, order: Order) -> Result | Accepted | Terminated:
        """Raises BackendUnavailable, JobRejected."""
        ...

    async def status(self, backend_id: str, order_key: str | None, speed: float) -> Result | Terminated | Underway:
        """How the job is. Its result must be at `order_key`, if given. Raises BackendUnavailable, JobUnknown."""
        ...

    async def cancel(self, backend_id: str) -> None:
        """Raises BackendUnavailable."""
        ...

    def token(self, user_id: str, idempotency_key: str) -> str:
        """The token that a job's webhook must carry; of a job's id and that token, its mark, which no look at the database is needed for."""
        ...


Backend = Streaming | Queued


def sha256(text: str) -> str:
    """SHA-256 in hexadecimal. Half of a surrogate pair counts as a character."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
