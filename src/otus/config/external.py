"""Settings of external detectors: programs of others that read sound files and write what they found."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Positive, Settings


class HawkEarsSettings(Settings):
    """What HawkEars 2 is asked for; null = its own default."""

    data_root: str | None = Field(
        None, description="Folder that `hawkears init` has filled; null = the working folder."
    )
    models: Annotated[int, Field(ge=1)] | None = Field(None, description="Networks of its ensemble, the first ones.")
    low_band: bool | None = Field(None, description="Whether to run its networks for drumming grouse as well.")
    label_field: Literal["codes", "names", "alt_codes", "alt_names"] = Field(
        "codes",
        description="What its labels are: codes of 4 letters, common names, codes of 6 letters, or Latin names.",
    )
    segment_s: Positive | None = Field(
        None, description="Length of its selections; null = as long as the score stays above min_score."
    )


class ExternalSettings(Settings):
    """One detector of others. It runs on every chunk, as a sound file, in its own environment."""

    runner: Literal["command", "hawkears"] = Field(
        description="command: any program, once per sound file; hawkears: HawkEars 2.3 or newer through its Python "
        "package, all sound files of a job in one process (HawkEars 1 is a command with format: hawkears1)."
    )
    environment: str | None = Field(
        None,
        description="Folder of the Conda or virtual environment that has the detector (path from the working folder); "
        "null = that of the job.",
    )
    command: list[str] = Field(
        default_factory=list,
        description="Program and arguments; {input} is the sound file, {folder} an empty folder of its own, {output} "
        "the file in it that the program must write, {threads} the threads it may use. No shell is involved.",
    )
    output: str | None = Field(
        None,
        description="Name of what the program writes into {folder}, with * for what varies, where it cannot be told "
        "{output}.",
    )
    format: Literal["csv", "raven", "audacity", "json", "hawkears1", "hawkears2"] = Field(
        "csv",
        description="Format of what the program writes; times are in seconds from the start of the sound file. "
        "hawkears1, hawkears2: their CSV files.",
    )
    columns: dict[Literal["start", "end", "label", "score"], str] = Field(
        default_factory=dict, description="Names of the columns (csv, raven) or keys (json), where they are others."
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="The detector's label -> a target; others are dropped. Empty: its labels are the targets.",
    )
    scores: Literal["probability", "number"] = Field(
        "probability",
        description="What its scores are: between 0 and 1, or any number that is larger for surer selections.",
    )
    min_score: float | None = Field(
        None, description="Selections below this score are dropped, before anything is judged; null = none are."
    )
    gap_s: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="Selections of a label that overlap, touch or lie no further apart than this are one; null = they "
        "stay as the detector reports them.",
    )
    hawkears: HawkEarsSettings = Field(default_factory=HawkEarsSettings, description="For runner: hawkears.")
    low_hz: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Lower end of the band that the forest's measures look at."
    )
    high_hz: Positive | None = Field(
        None, description="Upper end of the band that the forest's measures look at; null = half the sample rate."
    )
    sample_rate: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Sample rate of the sound files that it gets; null = the recording's."
    )
    timeout_s: Positive = Field(600.0, description="Longest time for one sound file; then the program is stopped.")
    threads: int = Field(1, ge=1, description="CPU threads of a job.")
    gpu: bool = Field(False, description="Whether a job asks for a GPU.")
    max_failed_fraction: Fraction = Field(0.0, description="Share of chunks that may fail before the job fails.")

    def label_map(self, targets: Sequence[str]) -> dict[str, str]:
        """Return the detector's label -> target for every label that counts."""
        return self.labels or {target: target for target in targets}

    def check_targets(self, name: str, targets: Sequence[str]) -> None:
        """Raise ValueError if a label is mapped to what is no target of the corpus."""
        for label, target in self.labels.items():
            if target not in targets:
                known = ", ".join(targets)
                raise ValueError(f"external.{name}.labels.{label}: '{target}' is no target; there are {known}")

    @model_validator(mode="after")
    def _settings_fit_the_runner(self) -> "ExternalSettings":
        if self.high_hz is not None and self.high_hz <= self.low_hz:
            raise ValueError("high_hz is not above low_hz")
        if self.scores == "probability" and self.min_score is not None and not 0.0 <= self.min_score <= 1.0:
            raise ValueError("min_score is no probability; take one between 0 and 1, or set scores: number")
        if self.runner == "command":
            self._check_command()
        else:
            self._check_hawkears()
        return self

    def _check_command(self) -> None:
        if not self.command:
            raise ValueError("command: name the program, e.g. command: [detect, --in, '{input}', --out, '{output}']")
        used = {word for word in ("{input}", "{output}", "{folder}") if any(word in part for part in self.command)}
        if "{input}" not in used:
            raise ValueError("command: {input} (the sound file) is missing")
        if ("{output}" in used) == (self.output is not None):
            raise ValueError("either command has {output}, or output names the file that the program writes")
        if self.output is not None and ("/" in self.output or self.output in ("", ".", "..")):
            raise ValueError("output is the name of a file in {folder}, without folders")
        if self.hawkears != HawkEarsSettings():
            raise ValueError("hawkears has no effect with runner: command; drop it")
        if self.columns and self.format not in ("csv", "raven", "json"):
            raise ValueError(f"columns has no effect with format: {self.format}; drop it")
        if self.format == "raven" and {"start", "end"} & self.columns.keys():
            raise ValueError("columns: start and end of a Raven table have names of their own; drop them")

    def _check_hawkears(self) -> None:
        idle = [name for name in ("command", "output", "columns") if getattr(self, name)]
        if self.format != "csv":
            idle.append("format")
        if idle:
            raise ValueError(f"{idle[0]} has no effect with runner: hawkears; drop it")
        if self.scores != "probability":
            raise ValueError("scores: HawkEars reports probabilities; drop it")
        if self.hawkears.segment_s is None and not self.min_score:
            raise ValueError(
                "min_score: HawkEars would report one selection per label and file; set e.g. min_score: 0.2, or "
                "hawkears.segment_s"
            )
