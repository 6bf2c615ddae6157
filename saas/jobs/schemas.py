"""Request and response schemas of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from inference.audio.encode import openai_rate
from saas.jobs.backend import Options

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class _Speech(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _without_dictionaries(cls, data: Any) -> Any:
        """Dictionaries belong to a server, not to its users: what one adds would be heard by all."""
        for name in ("pronunciation_dictionaries", "pronunciation_dictionary_locators"):
            if isinstance(data, dict) and data.get(name):
                raise PydanticCustomError(
                    "no_dictionaries", "this service has no pronunciation dictionaries; leave {name} out", {"name": name}
                )
        return data


class SpeechBody(_Speech):
    """A text to speak."""

    text: str = Field(min_length=1)
    voice_id: UUID | None = Field(None, description="One of your voices; null: the model's own voice.")
    format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0, description="The pitch stays the same.")
    sample_rate: int | None = Field(None, description="In Hz. null: 44,100, except 48,000 for opus.")
    seed: int | None = Field(None, ge=0, le=2**53, description="With the same seed, the same text is spoken in the same way.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    captions: Literal["srt", "vtt", "json"] | None = Field(None, description="Also make captions; json: when each word is heard.")
    wait_seconds: float = Field(0, ge=0, le=60, description="How long to wait for the result before answering.")

    @property
    def options(self) -> Options:
        """How to speak the text."""
        return Options(self.format, self.speed, self.seed, self.temperature, self.top_p, self.sample_rate, self.captions)


class VoiceId(BaseModel):
    """OpenAI's object form of `voice`."""

    id: str


class OpenAIBody(_Speech):
    """The body of OpenAI's `POST /v1/audio/speech`, plus the model's own controls. Any `model` name is accepted."""

    input: str = Field(min_length=1)
    model: str | None = None
    voice: str | VoiceId = Field("default", description="The id or name of one of your voices; OpenAI's names mean the model's own voice.")
    instructions: str | None = Field(None, description="Accepted for compatibility; this model takes no instructions.")
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    sample_rate: int | None = Field(None, description="In Hz. null: 44,100, except 48,000 for opus and 24,000 for pcm.")
    stream: bool = Field(True, description="false returns the whole file at once, with a Content-Length and, in a WAV header, true sizes.")
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int | None = Field(None, ge=0, le=2**53)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)

    @property
    def options(self) -> Options:
        """How to speak the text."""
        rate = openai_rate(self.response_format, self.sample_rate)
        return Options(self.response_format, self.speed, self.seed, self.temperature, self.top_p, rate)


class Model(BaseModel):
    """A model in OpenAI's format."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "fishserve"


class Models(BaseModel):
    """The list of models, which has one entry."""

    object: Literal["list"] = "list"
    data: list[Model]


class JobOut(BaseModel):
    """A job. `url` is valid for 300 s; get the job again for a new one."""

    id: UUID
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    text: str | None = Field(description="null once it has been kept as long as this service keeps texts.")
    characters: int
    voice_id: UUID | None = None
    options: dict[str, Any]
    reserved: int = Field(description="Credits that were reserved: the most that the job can cost. Speech ends where they end.")
    charged: int = Field(description="Credits that the job cost.")
    seconds: float | None = None
    partial: bool = Field(False, description="It ended before the end of its text; `charged` is the price of the part that was made.")
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(None, description="When its result is deleted.")
    url: str | None = None
    captions_url: str | None = Field(None, description="The captions, if the job asked for some. Valid, kept and deleted as the result is.")


class WebhookBody(BaseModel):
    """RunPod's message about a job. The API uses only its id, and asks RunPod about it."""

    id: str
