"""Settings of chunking and prediction: which stretch of sound goes where, and how it is scored."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Positive, Settings


class ChunkSettings(Settings):
    """How recordings are divided among prediction jobs. No audio is copied unless `files` asks for it."""

    chunk_s: Positive = Field(120.0, description="Longest stretch of a recording that one step scores.")
    context_s: Annotated[float, Field(ge=0.0)] = Field(
        4.0,
        description="Context on either side of a chunk, for programs that read chunks alone (files, external "
        "detectors); scores of networks never depend on it.",
    )
    shards: Annotated[int, Field(ge=1)] | None = Field(
        1, description="Prediction jobs per model; null = as many as shard_min asks for."
    )
    shard_min: Positive | None = Field(
        None,
        description="With shards: null, about so many minutes of audio in a prediction job. Their number follows from "
        "the corpus before anything is read, so it is a guess from file sizes until there is an inventory.",
    )
    files: bool = Field(
        False, description="Also write every chunk with its context as a WAV file, for programs outside Otus."
    )

    @property
    def shard_s(self) -> float:
        """Seconds of audio that a shard is meant to hold where `shard_min` decides: never less than a chunk."""
        return max(60.0 * (self.shard_min or 0.0), self.chunk_s)

    def shards_for(self, audio_s: float) -> int:
        """Return the number of shards of so much audio: `shards`, or as many as hold about `shard_min` each."""
        return self.shards or max(1, math.ceil(round(audio_s / self.shard_s, 6)))

    @model_validator(mode="after")
    def _one_way_to_shard(self) -> "ChunkSettings":
        if (self.shards is None) == (self.shard_min is None):
            raise ValueError("chunking: set either shards, or shards: null and shard_min")
        return self


class PredictionSettings(Settings):
    """Frame scores; no threshold is involved."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to predict.")
    threads: int = Field(1, ge=1, description="CPU threads of a prediction job.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Numbers that the network computes with. auto: bfloat16 where the device has it and the network "
        "gains by it, float32 for imported networks, whose scores are then those of the program they come from.",
    )
    batch: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Windows that go through the network at once (16 frames of a network that scores frames, or its "
        "block if that is longer); null = what suits the device.",
    )
    readers: int = Field(1, ge=1, description="Threads that read and decode ahead of the network.")
    retries: int = Field(
        2, ge=0, description="How often a chunk is tried again after an error that may pass (disk, network drive)."
    )
    max_failed_fraction: Fraction = Field(
        0.0, description="Share of the chunks that a network has to score that may fail before the job fails."
    )
