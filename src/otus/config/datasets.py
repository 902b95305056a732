"""Settings of splits, of dataset variants, and of the files written for them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Positive, Settings


class SplitSettings(Settings):
    """Who is tested: cross-validation folds, or one split by fractions or by the recordings sheet."""

    folds: int | None = Field(
        None,
        ge=2,
        description="Grouped cross-validation: every recording is tested once by a model that never saw it. At least "
        "3, or 2 with `by`.",
    )
    by: Literal["group", "site", "recorder", "date", "daypart"] = Field(
        "group",
        description="What a fold tests: a share of the groups; or everything of one site, recorder, date or daypart "
        "(day: 6 to 18 h, else night), by models trained and validated on groups of the others. `folds` is then the "
        "number of such values.",
    )
    test_groups: list[str] = Field(
        default_factory=list,
        description="Without folds: the groups to test on; those to validate on are drawn from the others.",
    )
    test_fraction: Fraction = Field(
        0.2, gt=0.0, lt=1.0, description="Without folds, groups or a sheet: share of recordings to test on."
    )
    val_fraction: Fraction = Field(
        0.25,
        gt=0.0,
        lt=1.0,
        description="Share of the other recordings to validate on (thresholds, early stopping).",
    )

    @model_validator(mode="after")
    def _folds_are_enough(self) -> "SplitSettings":
        if self.by == "group" and self.folds == 2:
            raise ValueError("folds: 2 leaves nothing to validate on; take 3 or more, or split by site or daypart")
        if self.by != "group" and self.folds is None:
            raise ValueError(f"by: {self.by} needs folds, the number of its values")
        if self.folds is not None and self.test_groups:
            raise ValueError("folds and test_groups exclude each other; drop one")
        return self


class HardNegativeSettings(Settings):
    """False alarms of an earlier model, as noise clips."""

    selections: str = Field(
        min_length=1,
        description="Selections of an earlier model: an Otus selections.parquet, or a CSV or Raven table that names "
        "recordings; ${VARIABLES} and ~ are expanded.",
    )
    per_target: Positive = Field(
        1.0,
        description="At most so many per target clip: those with the best scores, or the first rows of a text table.",
    )


Strategy = Literal[
    "grouped",
    "proportional_by_tape",
    "random",
    "random_more_noise",
    "quality_balanced",
    "clipwise_balanced",
    "quality_and_clipwise_balanced",
]

#: Strategies that deal single clips, so that one recording stands on several sides.
LEAKY_STRATEGIES: frozenset[Strategy] = frozenset(
    ("random", "random_more_noise", "quality_balanced", "clipwise_balanced", "quality_and_clipwise_balanced")
)


class DatasetSettings(Settings):
    """One way of building training data (a dataset variant)."""

    strategy: Strategy = Field(
        "grouped",
        description="How train, val and test are drawn. grouped: whole groups, so that calls, hours and recordings are "
        "shared out evenly; proportional_by_tape: whole groups at random. The others deal single clips, as older "
        "pipelines did, at random or in equal parts of each quality, recording or both: leaky, for comparison.",
    )
    seed: int | None = Field(None, ge=0, description="Seed of this variant; null = the config's.")
    fractions: tuple[Fraction, Fraction, Fraction] | None = Field(
        None, description="Shares of train, val and test, which add up to 1; null = as `split` says."
    )
    min_quality: float | None = Field(
        None,
        description="Calls of a lower quality (the number in 'Q2' or '2') are no target clips, and no noise either; "
        "they still count in evaluation. Calls without a quality are kept.",
    )
    noise_per_target: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="Mined noise clips per target clip (0.5 = one for every second call), drawn from time that no "
        "annotation touches; null = 4, or 8 for random_more_noise.",
    )
    noise_from: Literal["all", "own"] = Field(
        "all", description="Where the noise for a call is mined: in all labelled recordings, or in the call's own."
    )
    margin_s: Annotated[float, Field(ge=0.0)] = Field(
        0.1, description="Mined noise keeps this distance from every annotation."
    )
    min_noise_s: Positive = Field(1.0, description="Shortest mined noise clip; longer calls have noise as long.")
    fallback_raw: bool = Field(
        False,
        description="With noise_from own: where an extract has no room for the noise of its calls, take it from the "
        "rest of its raw recording, which nobody has labelled (needs corpus.extracts).",
    )
    max_per_recording: int | None = Field(
        None, ge=1, description="At most so many target clips of one label and recording, drawn at random."
    )
    class_balance: Annotated[float, Field(ge=1.0)] | None = Field(
        None,
        description="No target label has more than this many times the train clips of the rarest one; null = no limit.",
    )
    hard_negatives: HardNegativeSettings | None = Field(None, description="False alarms to learn from.")

    @model_validator(mode="after")
    def _fractions_add_up(self) -> "DatasetSettings":
        if self.fractions is not None and abs(sum(self.fractions) - 1.0) > 1e-6:
            raise ValueError(f"fractions must add up to 1, not {sum(self.fractions):g}")
        if self.fractions is not None and min(self.fractions) <= 0.0:
            raise ValueError("fractions: train, val and test must each have a share")
        return self

    @model_validator(mode="after")
    def _fallback_is_of_the_call(self) -> "DatasetSettings":
        if self.fallback_raw and self.noise_from != "own":
            raise ValueError("fallback_raw goes with noise_from: own (the call's recording, else the rest of its tape)")
        return self

    @property
    def leaky(self) -> bool:
        """Whether one recording may stand on several sides."""
        return self.strategy in LEAKY_STRATEGIES

    @property
    def noise_share(self) -> float:
        """Mined noise clips per target clip."""
        if self.noise_per_target is not None:
            return self.noise_per_target
        return 8.0 if self.strategy == "random_more_noise" else 4.0


class ClipImageSettings(Settings):
    """Spectrogram images of clips."""

    window_s: Positive = Field(0.02, description="Length of the Hann window.")
    hop_s: Positive = Field(0.005, description="Step of the window.")
    low_hz: Annotated[float, Field(ge=0.0)] = Field(0.0, description="Lower edge of the picture.")
    high_hz: Positive | None = Field(None, description="Upper edge; null = half the sample rate.")
    dynamic_range_db: Positive = Field(60.0, description="What lies further below the loudest point is darkest.")
    colours: str = Field("magma", description="A colour map of matplotlib.")
    context_s: Annotated[float, Field(ge=0.0)] = Field(0.0, description="Sound shown before and after the clip.")
    max_per_class: int | None = Field(None, ge=1, description="At most so many images of a label; null = all clips.")
    sheet_tiles: int = Field(48, ge=1, le=400, description="Clips on the contact sheet of each label.")

    @model_validator(mode="after")
    def _edges_in_order(self) -> "ClipImageSettings":
        if self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) must lie below high_hz ({self.high_hz:g})")
        return self


class ClipFileSettings(Settings):
    """What is written beside the clips table of every dataset variant."""

    spectrograms: ClipImageSettings | None = Field(None, description="PNG images and contact sheets; {} = defaults.")
    audio: bool = Field(
        False, description="Cut out every clip as a WAV file under its ANIMAL-SPOT name, linked beside the lists."
    )
