"""All settings of the server and the command line, read from FISHSERVE_* variables."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from inference.errors import ConfigurationError

_OLD_NAMES = {"slots": "FISHSERVE_ROWS", "weights": "FISHSERVE_CPU_WEIGHTS"}
"""What settings were called before."""

KEEP_ALIVE_SECONDS = 125
"""Whoever closes an idle connection first must be the client: a request that meets the end of its connection fails. LiveKit and Caddy keep
theirs for 120 s, Go 90, most load balancers 60.
"""


class Settings(BaseSettings):
    """The server's settings. Values given on the command line override these."""

    model_config = SettingsConfigDict(env_prefix="FISHSERVE_", env_ignore_empty=True)

    checkpoint: str | None = Field(None, description="Directory, file or Hugging Face repository of the model; empty: the embedded voice.")
    codec: str | None = Field(
        None,
        description="Codec in place of the checkpoint's: a file, or a directory or repository with one. Empty: its own, or FishSpeech 1.5's.",
    )
    adapter: str | None = Field(None, description="LoRA adapter added to the checkpoint, as PATH or PATH:alpha. Empty: none.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N; a server can have several, comma-separated.")
    weights: Literal["native", "int8"] = Field(
        "native", validation_alias=AliasChoices("weights", "FISHSERVE_WEIGHTS", _OLD_NAMES["weights"]),
        description="int8: decode with 8-bit weights, faster and less exact; on a GPU for up to 8 requests at once.",
    )  # fmt: skip
    fast_layers: Literal["separate", "persistent"] = Field(
        "separate", description="persistent: an experiment on CUDA that no GPU has timed: one kernel for all fast layers of one request's frames.",
    )  # fmt: skip
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads that compute on a CPU. Empty: as many as help; `fishserve doctor` says how many and why."
    )
    slots: int | None = Field(
        None, ge=1, le=512, validation_alias=AliasChoices("slots", "FISHSERVE_SLOTS", _OLD_NAMES["slots"]),
        description="Requests generated at once; more wait in the queue. Empty: 8, on CUDA 64.",
    )  # fmt: skip
    replicas: int = Field(
        1, ge=1, le=8, description="Engines on each device, each with a copy of the weights; what is free for keys and values is shared."
    )
    kv_gib: float | None = Field(
        None, gt=0, description="GiB for keys and values; reduces the slots if they need more. Empty: on CUDA half of the free memory."
    )
    quality_guard: bool = Field(False, description="Judge each segment of speech and speak faulty ones anew, where a request does not say.")
    queue: int = Field(64, ge=1, description="Requests that may wait; further ones are refused with 429.")
    voices_dir: Path = Field(Path("voices"), description="Directory of named voices.")
    voices_bucket: str = Field("", description="S3 bucket of named voices for many machines, s3://BUCKET/PREFIX. Empty: voices_dir.")
    calibrate_times: bool = Field(
        True, description="At its first start with a model that names no alignment heads, the server looks for them, for about a minute."
    )
    cache_dir: Path | None = Field(None, description="Directory for memory-mapped copies of weights; empty: the user's cache folder.")
    host: str = Field("127.0.0.1", description="Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for all its addresses.")
    port: int = Field(
        8080, ge=1, le=65535, validation_alias=AliasChoices("port", "FISHSERVE_PORT", "PORT"), description="Port to listen on."
    )
    port_health: int | None = Field(
        None, ge=1, le=65535, validation_alias=AliasChoices("port_health", "FISHSERVE_PORT_HEALTH", "PORT_HEALTH"),
        description="Second port that answers only /ping, as RunPod's load balancer may ask for; empty: none.",
    )  # fmt: skip

    metrics_port: int | None = Field(None, ge=1024, le=65535, description="Port where the RunPod worker shows its metrics; empty: none.")
    keys_file: Path | None = Field(None, description="File with the hashes of API keys; empty: no authentication.")
    cors_origins: str = Field(
        "", description="Comma-separated origins whose pages may send requests, such as https://example.com. Empty: only the server's own."
    )

    voice_aliases: str = Field("", description="Comma-separated other names of voices, such as alloy=anna, nova=bella. Empty: none.")
    keep_alive_seconds: int = Field(
        KEEP_ALIVE_SECONDS, ge=1, le=3600, description="How long an idle connection stays open for the next request."
    )
    hosts: str = Field(
        "", description="Comma-separated host names of a server without keys, such as tts.example.com, or * for any. "
        "Empty: IP addresses and local names.",
    )  # fmt: skip

    @property
    def origins(self) -> list[str]:
        """The names in `cors_origins`."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def aliases(self) -> dict[str, str]:
        """The names in `voice_aliases`, and their voices."""
        pairs = [[part.strip() for part in pair.split("=")] for pair in self.voice_aliases.split(",") if pair.strip()]
        return {parts[0]: parts[1] for parts in pairs}

    @field_validator("voice_aliases")
    @classmethod
    def _are_pairs(cls, value: str) -> str:
        for pair in filter(str.strip, value.split(",")):
            if len(parts := pair.split("=")) != 2 or not all(map(str.strip, parts)):
                raise ValueError(f"{pair.strip()[:80]!r} is not NAME=VOICE")
        return value

    @property
    def host_names(self) -> list[str]:
        """The names in `hosts`."""
        return [name.strip().lower() for name in self.hosts.split(",") if name.strip()]

    @property
    def devices(self) -> list[str]:
        """The devices of the engines: the names in `device`, each as often as there are replicas."""
        return [name.strip() for name in self.device.split(",") for _ in range(self.replicas)]

    @property
    def kv_bytes(self) -> int | None:
        """The budget for keys and values in bytes."""
        return None if self.kv_gib is None else int(self.kv_gib * 2**30)

    max_body_bytes: int = Field(2_000_000, ge=1000, description="Largest request body.")
    max_upload_bytes: int = Field(25_000_000, ge=1000, description="Largest request body that may hold clips.")


def read(**given: Any) -> Settings:
    """Read the settings. Each of `given` that is not None overrides the environment. Raises ConfigurationError."""
    for name, old in _OLD_NAMES.items():
        if os.environ.get(old):
            logging.getLogger("fishserve").warning("%s is now FISHSERVE_%s; the old name will go in a later version", old, name.upper())
    try:
        return Settings(**{k: v for k, v in given.items() if v is not None})
    except ValidationError as e:
        first = e.errors()[0]
        raise ConfigurationError(
            f"{first['loc'][0]} (FISHSERVE_{str(first['loc'][0]).upper()}) is {first['input']!r}: {first['msg']}"
        ) from None
