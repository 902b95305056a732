"""Settings of soundscapes that are built from clips."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Name, Positive, Settings

#: The FLAC format has no higher sample rate.
_HIGHEST_FLAC_RATE = 655_350


class EventSource(Settings):
    """Short clips of one sound, from which soundscapes are built."""

    files: str = Field(description="Glob below `soundscapes.clips` of the clips of this sound.")
    rate_per_min: Positive = Field(2.0, description="Mean number of events per minute (a Poisson process).")
    label: str | None = Field(
        None, pattern=r"^\S+( \S+)*$", description="Label of the events; null = the name of this entry."
    )


class SnrSettings(Settings):
    """The level of events above the background at their place, in dB, drawn from a truncated normal distribution."""

    mean_db: float = Field(10.0, description="Mean of the normal distribution.")
    sd_db: Annotated[float, Field(ge=0.0)] = Field(5.0, description="Its standard deviation; 0 = always the mean.")
    low_db: float = Field(0.0, description="No event is weaker than this.")
    high_db: float = Field(25.0, description="No event is stronger than this.")

    @model_validator(mode="after")
    def _in_order(self) -> "SnrSettings":
        if not self.low_db <= self.mean_db <= self.high_db:
            raise ValueError("low_db <= mean_db <= high_db must hold")
        return self


class SoundscapeSettings(Settings):
    """A corpus of long recordings built from labelled clips and backgrounds, with exact annotations."""

    clips: str = Field(min_length=1, description="Folder of the clips; ${VARIABLES} and ~ are expanded.")
    events: dict[Name, EventSource] = Field(min_length=1, description="The sounds to place, by name.")
    backgrounds: list[str] = Field(min_length=1, description="Globs of the clips that the background is made of.")
    part: str | None = Field(
        None,
        description="Regular expression with (?P<part>...), searched in a clip's path: a soundscape takes clips of one "
        "part only, and is written to the folder part_<part>, so that parts can be the groups of a split.",
    )
    recordings_per_part: int = Field(2, ge=1, description="Soundscapes of each part.")
    duration_s: Positive = Field(600.0, description="Length of each soundscape.")
    sample_rate: int = Field(22050, ge=1000, description="Sample rate of the soundscapes; clips are resampled.")
    seed: int = Field(1, ge=0, description="Seed; the same seed and clips give the same files.")
    snr: SnrSettings = Field(default_factory=SnrSettings, description="Level of the events.")
    overlap: Literal["forbid", "other", "allow"] = Field(
        "other", description="Which events may overlap: none, those of different labels, or all."
    )
    gap_s: Annotated[float, Field(ge=0.0)] = Field(0.1, description="Silence kept between events that do not overlap.")
    fade_s: Annotated[float, Field(ge=0.0)] = Field(0.005, description="Raised-cosine fade at both ends of an event.")
    gate_db: Positive = Field(
        40.0, description="An event is what lies within this many dB of its clip's loudest moment."
    )
    gate_gap_s: Annotated[float, Field(ge=0.0)] = Field(
        0.2, description="Quiet stretches shorter than this do not end an event."
    )
    min_event_s: Positive = Field(0.05, description="Shorter events are not taken from a clip.")
    max_event_s: Positive = Field(5.0, description="Longer events are not taken from a clip.")
    background_dbfs: Annotated[float, Field(ge=-70.0, lt=0.0)] = Field(
        -40.0, description="RMS level of the background; a recording that would clip is lowered as a whole."
    )
    crossfade_s: Positive = Field(0.5, description="Overlap of one background clip with the next.")
    format: Literal["flac", "wav"] = Field("flac", description="File format, 16 bits; wav becomes RF64 beyond 4 GB.")

    @model_validator(mode="after")
    def _part_is_named(self) -> "SoundscapeSettings":
        try:
            named = self.part is None or "part" in re.compile(self.part).groupindex
        except re.error as error:
            raise ValueError(f"part: not a regular expression ({error})") from None
        if not named:
            raise ValueError(f"part: '{self.part}' has no group (?P<part>...)")
        return self

    @model_validator(mode="after")
    def _lengths_in_order(self) -> "SoundscapeSettings":
        if self.min_event_s >= self.max_event_s:
            raise ValueError(f"min_event_s ({self.min_event_s:g}) must lie below max_event_s ({self.max_event_s:g})")
        return self

    @model_validator(mode="after")
    def _rate_fits_format(self) -> "SoundscapeSettings":
        if self.format == "flac" and self.sample_rate > _HIGHEST_FLAC_RATE:
            raise ValueError(f"sample_rate: flac goes up to {_HIGHEST_FLAC_RATE} Hz; use format: wav")
        return self
