"""What a cluster can be told: the `args` of a Ray Serve config file, and the options of `fishserve cluster run`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Routing = Literal["voice", "least_loaded", "round_robin"]


class Options(BaseModel):
    """How many replicas there are, and what each of them gets."""

    model_config = ConfigDict(extra="forbid")

    settings: dict[str, Any] = Field(
        {}, description="The server's settings by name, such as checkpoint or slots; FISHSERVE_* give the rest."
    )
    min_replicas: int = Field(
        1, ge=0, description="Fewest engine replicas. 0: none runs while nobody speaks, and the next request waits for one."
    )
    max_replicas: int = Field(1, ge=1, description="Most engine replicas.")
    idle_seconds: float = Field(300, ge=0, description="With min_replicas 0: seconds without a request after which the last replica ends.")
    doors: int = Field(1, ge=1, description="Replicas of the HTTP APIs.")
    gpus: float | None = Field(None, ge=0, description="GPUs of an engine replica. Empty: 1 if the device is CUDA, else 0.")
    cores: float = Field(1, gt=0, description="CPU cores of an engine replica.")
    busy: Annotated[
        float | None,
        Field(gt=0, description="Requests of a replica above which another one starts. Empty: half its slots on a GPU, else a quarter."),
    ] = None
    routing: Routing = Field("voice", description="voice keeps a voice on few replicas; least_loaded and round_robin ignore voices.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}; the first must not exceed the second"
            )
        if self.gpus and self.gpus > 1 and not self.gpus.is_integer():
            raise ValueError(f"gpus is {self.gpus:g}; it can be a part of one GPU or a whole number of them")
        return self

    @property
    def engine_gpus(self) -> float:
        """GPUs of an engine replica. Ray hides them from one that asks for none. Raises ConfigurationError for a wrong setting."""
        from inference.settings import read  # what only shows its help does not wait for it

        return float(read(**self.settings).device.startswith("cuda")) if self.gpus is None else self.gpus

    @property
    def all_gpus(self) -> float:
        """GPUs for the fewest replicas: those that share a GPU have all of their part on the same one."""
        engines, each = max(1, self.min_replicas), self.engine_gpus
        if not 0 < each < 1:
            return engines * each
        whole, rest = divmod(engines, math.floor(1 / each))
        return whole + rest * each


def missing(options: Options, there: Mapping[str, float]) -> Iterator[str]:
    """What the fewest replicas need and these resources of a Ray cluster lack, a sentence each."""
    engines = max(1, options.min_replicas)
    for name, needed, start in (
        ("CPU", options.doors + engines * options.cores, "--num-cpus"),
        ("GPU", options.all_gpus, "--num-gpus"),
    ):
        if needed > (found := there.get(name, 0)):
            yield f"the Ray cluster has {found:g} {name}s, and {needed:g} are needed; `ray start {start}` says how many a machine has"
