"""Request and response schemas of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from inference.audio.encode import openai_rate
from saas.jobs.dispatch import Options

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]


class SpeechBody(BaseModel):
    """A text to speak."""

    text: str = Field(min_length=1)
    voice_id: UUID | None = Field(None, description="One of your voices; null: the model's own.")
    format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0, description="At the same pitch.")
    sample_rate: int | None = Field(None, description="Hz; null: 44,100, and 48,000 for opus.")
    seed: int | None = Field(None, ge=0, le=2**53, description="The same seed says the same text in the same way.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    wait_seconds: float = Field(0, ge=0, le=60, description="Answer when it is done, if it is so soon.")

    @property
    def options(self) -> Options:
        """How it is to be spoken."""
        return Options(self.format, self.speed, self.seed, self.temperature, self.top_p, self.sample_rate)


class VoiceId(BaseModel):
    """OpenAI's object form of `voice`."""

    id: str


class OpenAIBody(BaseModel):
    """OpenAI's `POST /v1/audio/speech`, and the model's own controls. Any `model` name is accepted."""

    input: str = Field(min_length=1)
    model: str | None = None
    voice: str | VoiceId = Field("default", description="The id or name of one of your voices; OpenAI's names mean the model's own.")
    instructions: str | None = Field(None, description="Accepted for compatibility; this model takes no instructions.")
    response_format: Format = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    sample_rate: int | None = Field(None, description="Hz; null: 44,100, but 48,000 for opus and 24,000 for pcm.")
    stream: bool = Field(True, description="False waits for the whole, which then has a Content-Length and a WAV header with true sizes.")
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int | None = Field(None, ge=0, le=2**53)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)

    @property
    def options(self) -> Options:
        """How it is to be spoken."""
        rate = openai_rate(self.response_format, self.sample_rate)
        return Options(self.response_format, self.speed, self.seed, self.temperature, self.top_p, rate)


class Model(BaseModel):
    """A model as OpenAI describes one."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "fishserve"


class Models(BaseModel):
    """The models there are: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class JobOut(BaseModel):
    """A job. `url` is good for 300 s; ask again for another."""

    id: UUID
    status: Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
    text: str
    characters: int
    voice_id: UUID | None = None
    options: dict[str, Any]
    reserved: int = Field(description="Credits that were set aside: the most it can cost.")
    charged: int = Field(description="Credits it cost.")
    seconds: float | None = None
    bytes: int | None = None
    sha256: str | None = None
    error: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = Field(None, description="When its result is deleted.")
    url: str | None = None


class WebhookBody(BaseModel):
    """What RunPod says of a job. Nothing in it is believed but the id, which is asked about."""

    id: str
