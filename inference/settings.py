"""Every knob of the server and the command line, read from FISHSERVE_* variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Values given on the command line win over these."""

    model_config = SettingsConfigDict(env_prefix="FISHSERVE_", env_ignore_empty=True)

    checkpoint: str | None = Field(None, description="Directory or Hugging Face repository of the model; empty: the embedded voice.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    rows: int = Field(8, ge=1, le=512, description="Requests generated at once; more wait their turn.")
    voices_dir: Path = Field(Path("voices"), description="Where named voices live.")
    cache_dir: Path | None = Field(None, description="Where memory-mapped copies of weights are kept; empty: the user's cache folder.")
    host: str = Field("127.0.0.1", description="Address to listen on: 127.0.0.1, 0.0.0.0 or ::.")
    port: int = Field(8080, ge=1024, le=65535, description="Port to listen on.")
    max_body_bytes: int = Field(2_000_000, ge=1000, description="Largest request body.")
