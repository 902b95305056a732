"""Every key of the config file, once: type, default, limits and meaning. The JSON schema is made from these."""

from collections import Counter

from pydantic import Field, model_validator

from otus.config.base import UNKNOWN, Name, Settings
from otus.config.corpus import CorpusSettings
from otus.config.datasets import ClipFileSettings, DatasetSettings, SplitSettings
from otus.config.evaluation import EvaluationSettings
from otus.config.external import ExternalSettings
from otus.config.forest import ForestSettings
from otus.config.prediction import ChunkSettings, PredictionSettings
from otus.config.training import TrainingSettings

#: Labels that result tables use themselves.
_TAKEN = {
    "micro": "the row that pools all labels",
    "macro": "the row that averages the labels",
    "nothing": "what stands for no call in confusion.csv",
}


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
        for name, what in _TAKEN.items():
            if name in self.corpus.targets:
                raise ValueError(f"corpus.targets: '{name}' names {what}; give the label another name")
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
    def _choices_have_targets(self) -> "Config":
        for label in self.evaluation.choice_of:
            if label not in self.corpus.targets:
                raise ValueError(
                    f"evaluation.choice_of.{label}: no such target label; there are {', '.join(self.corpus.targets)}"
                )
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
