"""Every key of the config file, once: type, default, limits and meaning. The JSON schema is made from these."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import UNKNOWN, Fraction, Name, Positive, Settings
from otus.config.corpus import CorpusSettings
from otus.config.datasets import ClipFileSettings, DatasetSettings, SplitSettings
from otus.config.external import ExternalSettings
from otus.config.prediction import ChunkSettings, PredictionSettings
from otus.config.training import TrainingSettings


class DecodingSettings(Settings):
    """The grid of decodings that validation chooses from. Scores are probabilities here.

    The first value of each list is the usual one: another wins only if it is better by more than half a call is worth.
    """

    merge: Literal["hysteresis", "threshold", "union"] = Field(
        "hysteresis",
        description="How frames become selections. hysteresis: while the score stays above an off-threshold, if its "
        "peak reaches the on-threshold; threshold: while it stays above one threshold; union: all windows above one "
        "threshold, joined where they touch, as ANIMAL-SPOT does it.",
    )
    off_thresholds: list[Fraction] = Field(
        default_factory=lambda: [0.3, 0.1, 0.5],
        min_length=1,
        description="A selection lasts while the smoothed score stays above this; for `threshold` and `union` the "
        "thresholds to choose from.",
    )
    onset_thresholds: list[Fraction] = Field(
        default_factory=lambda: [1.0, 0.3],
        min_length=1,
        description="An onset peak above this starts a new selection inside a running one; 1 = never.",
    )
    gaps: list[Annotated[float, Field(ge=0.0)]] = Field(
        default_factory=lambda: [0.0, 0.25],
        min_length=1,
        description="Selections closer than this are merged, in units of the median training call.",
    )
    smoothing: Annotated[float, Field(ge=0.0)] = Field(
        0.1, description="Moving average of the scores, in units of the median training call."
    )
    min_duration: Annotated[float, Field(ge=0.0)] = Field(
        0.5, description="Shortest selection, in units of the 5 % quantile of training calls."
    )


class EvaluationSettings(Settings):
    """Matching, the choice of the operating point, intervals."""

    iou: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field(
        default_factory=lambda: [0.4], min_length=1, description="IoU thresholds; the first decides."
    )
    thresholds: list[Fraction] = Field(
        default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        description="Fixed thresholds reported beside the chosen one.",
    )
    decoding: DecodingSettings = Field(default_factory=DecodingSettings, description="Scores to selections.")
    decoding_of: dict[Name, DecodingSettings] = Field(
        default_factory=dict, description="Another decoding for the training configuration of that name."
    )
    calibration: Literal["platt", "temperature", "isotonic", "none"] = Field(
        "platt",
        description="How the peak score of a selection becomes the probability that it is a hit, fitted on "
        "validation; isotonic needs some hundred selections.",
    )
    bootstrap: int = Field(2000, ge=0, description="Resamples of the groups for the 95 % intervals.")


class ForestSettings(Settings):
    """The random-forest post-filter."""

    trees: int = Field(300, ge=10, description="Trees.")
    min_samples_leaf: int = Field(2, ge=1, description="Smallest leaf.")
    candidate_recall: Fraction = Field(
        0.95,
        description="Candidates come from the threshold that keeps this share of the best validation recall.",
    )
    window_s: Positive | None = Field(None, description="Analysis window of the features; null = the model's.")
    mfcc: int = Field(13, ge=1, le=40, description="Number of MFCC.")


class ReportSettings(Settings):
    """The HTML report."""

    examples: int = Field(6, ge=0, description="Spectrograms of hits, of misses and of false alarms, each.")
    audio: bool = Field(True, description="Embed the sound of each example.")


class Config(Settings):
    """The whole config file."""

    results_dir: str = Field(
        "results", pattern=r"^[^{}]+$", description="Folder of everything that Otus writes; without curly brackets."
    )
    seed: int = Field(1, ge=0, description="Every random choice is derived from it.")
    corpus: CorpusSettings = Field(description="Recordings and annotations.")
    split: SplitSettings = Field(default_factory=SplitSettings, description="Train, validation and test.")
    datasets: dict[Name, DatasetSettings] = Field(
        default_factory=lambda: {"grouped": DatasetSettings()},
        min_length=1,
        description="Dataset variants by name.",
    )
    clip_files: ClipFileSettings = Field(
        default_factory=ClipFileSettings, description="Images and cut-out sounds of the clips."
    )
    training: dict[Name, TrainingSettings] = Field(
        default_factory=lambda: {"default": TrainingSettings()},
        min_length=1,
        description="Training configurations by name.",
    )
    external: dict[Name, ExternalSettings] = Field(
        default_factory=dict, description="Detectors of others, by name: judged beside the networks on the same splits."
    )
    chunking: ChunkSettings = Field(default_factory=ChunkSettings, description="Chunks and shards.")
    prediction: PredictionSettings = Field(default_factory=PredictionSettings, description="Scoring.")
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings, description="Metrics.")
    forest: ForestSettings = Field(default_factory=ForestSettings, description="Post-filter.")
    report: ReportSettings = Field(default_factory=ReportSettings, description="Report.")

    @model_validator(mode="after")
    def _targets_are_named_once(self) -> "Config":
        if not self.corpus.targets:
            raise ValueError("corpus.targets: name at least one label to detect, e.g. targets: [boobook]")
        if UNKNOWN in self.corpus.targets:
            raise ValueError("corpus.targets: 'unknown' names what is neither target nor noise; use another label")
        if "micro" in self.corpus.targets:
            raise ValueError("corpus.targets: 'micro' names the row that pools all labels; give the label another name")
        twice = [label for label, count in Counter(self.corpus.targets).items() if count > 1]
        if twice:
            raise ValueError(f"corpus.targets: '{twice[0]}' is named twice; name every label once")
        return self

    @model_validator(mode="after")
    def _decodings_have_trainings(self) -> "Config":
        for name in self.evaluation.decoding_of:
            if name not in self.training:
                known = ", ".join(self.training)
                raise ValueError(f"evaluation.decoding_of.{name}: no such training configuration; there are {known}")
        return self

    @model_validator(mode="after")
    def _external_detectors_fit(self) -> "Config":
        for name, detector in self.external.items():
            if name in self.training:
                raise ValueError(f"external.{name}: a training configuration has this name; take another")
            detector.check_targets(name, self.corpus.targets)
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> "Config":
        for name, dataset in self.datasets.items():
            if self.split.folds and dataset.fractions:
                raise ValueError(f"datasets.{name}.fractions and split.folds exclude each other; drop one")
            if self.split.test_groups and (dataset.fractions or dataset.leaky):
                what = "fractions" if dataset.fractions else f"strategy: {dataset.strategy}"
                raise ValueError(f"datasets.{name}.{what} and split.test_groups exclude each other; drop one")
            if self.split.by != "group" and dataset.leaky:
                raise ValueError(
                    f"datasets.{name}.strategy: {dataset.strategy} deals single clips, so no fold can test all of one "
                    f"{self.split.by}; take grouped or proportional_by_tape, or drop split.by"
                )
            if dataset.fallback_raw and self.corpus.extracts is None:
                raise ValueError(f"datasets.{name}.fallback_raw needs corpus.extracts (what the raw recordings are)")
        return self
