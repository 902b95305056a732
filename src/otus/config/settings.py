"""Every key of the config file, once: type, default, limits and meaning. The JSON schema is made from these."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import UNKNOWN, Fraction, Name, Positive, Settings
from otus.config.corpus import CorpusSettings
from otus.config.datasets import ClipFileSettings, DatasetSettings, SplitSettings


class FrontendSettings(Settings):
    """The log-mel front end. A null is chosen from the training annotations and written to the model card."""

    sample_rate: int | None = Field(None, gt=0, description="Rate that the network hears; null = the recordings'.")
    hop_s: Positive | None = Field(None, description="Frame hop; null = a sixth of a short call, 1 to 20 ms.")
    window_s: Positive | None = Field(None, description="Analysis window; null = about three hops.")
    bands: int = Field(64, ge=8, le=512, description="Number of frequency bands.")
    low_hz: Annotated[float, Field(ge=0.0)] | None = Field(None, description="Lower edge; null = from annotations.")
    high_hz: Positive | None = Field(None, description="Upper edge; null = from annotations or half the sample rate.")
    scale: Literal["mel", "linear"] | None = Field(None, description="Band spacing; null = linear above 96 kHz.")

    @model_validator(mode="after")
    def _edges_in_order(self) -> "FrontendSettings":
        if self.low_hz is not None and self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) must lie below high_hz ({self.high_hz:g})")
        return self


class NetworkSettings(Settings):
    """The residual network that keeps time resolution (`dense_resnet`)."""

    channels: int = Field(16, ge=4, le=512, description="Channels of the first residual stage.")
    frequency_blocks: int = Field(2, ge=1, le=6, description="Residual blocks that each halve frequency, never time.")
    temporal_channels: int = Field(64, ge=8, le=1024, description="Channels of the temporal trunk.")
    dilations: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        description="Dilations (frames) of the residual temporal blocks.",
    )
    dropout: Fraction = Field(0.1, description="Dropout in the temporal trunk.")


class AugmentationSettings(Settings):
    """What is done to training cuts, on the device, in the band-power domain."""

    gain_db: Annotated[float, Field(ge=0.0)] = Field(6.0, description="Random level, plus or minus.")
    tilt_db: Annotated[float, Field(ge=0.0)] = Field(6.0, description="Random linear slope over the bands.")
    mix_probability: Fraction = Field(0.5, description="Chance that another cut is mixed in.")
    mix_low_db: float = Field(-8.0, description="Weakest level of the mixed-in cut.")
    mix_high_db: float = Field(3.0, description="Strongest level of the mixed-in cut.")
    shift_bands: int = Field(2, ge=0, description="Largest shift along frequency, in bands, up or down.")
    masks: int = Field(2, ge=0, description="Number of small time masks and of small frequency masks.")


class TrainingSettings(Settings):
    """One training configuration: a model is dataset variant x this x fold."""

    architecture: Literal["dense_resnet"] = Field("dense_resnet", description="Network family.")
    network: NetworkSettings = Field(default_factory=NetworkSettings, description="Size of the network.")
    frontend: FrontendSettings = Field(default_factory=FrontendSettings, description="Spectrogram.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Augmentation of training cuts."
    )
    members: int = Field(
        2, ge=1, description="Networks trained from different seeds, whose logits are averaged; time grows with it."
    )
    epochs: int = Field(30, ge=1, description="Largest number of epochs (one validation each).")
    cuts_per_epoch: int | None = Field(
        None, ge=1, description="Training cuts drawn in an epoch; null = so many that every call comes up, 160 or more."
    )
    batch_size: int = Field(16, ge=1, description="Cuts in a batch.")
    cut_frames: int = Field(256, ge=16, description="Length of a training cut in frames.")
    target_share: Fraction = Field(0.6, description="Share of cuts around target clips; the rest lies around noise.")
    learning_rate: Positive = Field(0.003, description="Peak rate of the one-cycle schedule (AdamW).")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(0.01, description="AdamW weight decay.")
    positive_weight: Positive = Field(2.0, description="Loss weight of frames inside a call.")
    onset_weight: Positive = Field(4.0, description="Loss weight of frames at a call's onset.")
    averaging: Fraction = Field(0.98, description="Decay of the running average of the weights that is validated.")
    patience: int = Field(15, ge=1, description="Stop after this many epochs without a better validation.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train; auto takes a GPU if visible.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the training; auto = bf16 where the processor or GPU has it."
    )
    threads: int = Field(1, ge=1, description="CPU threads; the last bits of the weights depend on it.")
    cache_mb: int = Field(
        2000, ge=0, description="Memory for band powers of the recordings; beyond it they are reread."
    )


class ChunkSettings(Settings):
    """How recordings are divided among prediction jobs. No audio is copied."""

    chunk_s: Positive = Field(120.0, description="Longest stretch of a recording that one step scores.")
    context_s: Annotated[float, Field(ge=0.0)] = Field(
        4.0, description="Audio read on either side, so that chunked scores equal unchunked ones."
    )
    shards: int = Field(1, ge=1, description="Prediction jobs per model.")


class PredictionSettings(Settings):
    """Frame scores; no threshold is involved."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to predict.")
    threads: int = Field(1, ge=1, description="CPU threads of a prediction job.")
    max_failed_fraction: Fraction = Field(0.0, description="Share of chunks that may fail before the job fails.")


class DecodingSettings(Settings):
    """The grid of decodings that validation chooses from. Scores are probabilities here.

    The first value of each list is the usual one: another wins only if it is better by more than one call is worth.
    """

    off_thresholds: list[Fraction] = Field(
        default_factory=lambda: [0.3, 0.1, 0.5],
        min_length=1,
        description="A selection lasts while the smoothed score stays above this.",
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
        default_factory=lambda: {"dense": TrainingSettings()},
        min_length=1,
        description="Training configurations by name.",
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
    def _one_way_to_split(self) -> "Config":
        for name, dataset in self.datasets.items():
            if self.split.folds and dataset.fractions:
                raise ValueError(f"datasets.{name}.fractions and split.folds exclude each other; drop one")
            if dataset.fallback_raw and self.corpus.extracts is None:
                raise ValueError(f"datasets.{name}.fallback_raw needs corpus.extracts (what the raw recordings are)")
        return self
