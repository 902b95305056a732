"""Settings of one training configuration: the network, what it hears, learns from and is optimised by."""

import math
from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Positive, Settings
from otus.config.networks import (
    Architecture,
    BeatsSettings,
    CrnnSettings,
    DenseResnetSettings,
    Resnet18Settings,
    TcnSettings,
    TimmSettings,
)

#: Batches that a training learns from if nothing is set, within limits of its epochs.
_BATCHES, _EPOCHS = 500, (5, 40)


#: Keys that do nothing, by the choice that makes them so: each is refused unless it has its default.
_UNHEEDED: dict[tuple[str, str], tuple[str, ...]] = {
    ("architecture", "resnet18"): (
        "frontend",
        "clip_s",
        "cut_frames",
        "target_share",
        "balance",
        "optimisation.positive_weight",
        "optimisation.onset_weight",
        "optimisation.focal_gamma",
        "augmentation.tilt_db",
        "augmentation.mix_probability",
        "augmentation.mix_low_db",
        "augmentation.mix_high_db",
        "augmentation.mixup_probability",
        "augmentation.shift_bands",
        "augmentation.shift_time",
        "augmentation.masks",
    ),
    ("architecture", "beats"): ("frontend", "cut_frames"),
    ("objective", "frame"): ("clip_s",),
    ("objective", "clip"): ("cut_frames", "optimisation.onset_weight"),
    ("optimisation.schedule", "cosine"): ("optimisation.plateau_patience", "optimisation.plateau_factor"),
    ("optimisation.schedule", "plateau"): ("optimisation.warm_up",),
    ("optimisation.method", "adam"): ("optimisation.weight_decay",),
}

BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]


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


class AugmentationSettings(Settings):
    """What is done to training cuts, on the device, in the band-power domain. Zero switches a kind off."""

    gain_db: Annotated[float, Field(ge=0.0)] = Field(6.0, description="Random level, plus or minus.")
    tilt_db: Annotated[float, Field(ge=0.0)] = Field(6.0, description="Random linear slope over the bands.")
    mix_probability: Fraction = Field(0.5, description="Chance that another cut is mixed in; calls of both count.")
    mix_low_db: float = Field(-8.0, description="Weakest level of the mixed-in cut.")
    mix_high_db: float = Field(3.0, description="Strongest level of the mixed-in cut.")
    noise_probability: Fraction = Field(0.0, description="Chance that the cut of a noise clip is mixed in.")
    noise_low_db: float = Field(-3.0, description="Smallest ratio of the cut's power to that of the noise.")
    noise_high_db: float = Field(12.0, description="Largest ratio of the cut's power to that of the noise.")
    mixup_probability: Fraction = Field(
        0.0, description="Chance of mixup: inputs and truths of two cuts are averaged with a random weight."
    )
    shift_bands: int = Field(2, ge=0, description="Largest shift along frequency, in bands, up or down.")
    stretch_time: Annotated[float, Field(ge=1.0, le=4.0)] = Field(
        1.0, description="Calls are stretched or squeezed in time by up to this factor; 1 = never. Older pipelines: 2."
    )
    stretch_pitch: Annotated[float, Field(ge=1.0, le=4.0)] = Field(
        1.0, description="Frequencies are scaled by up to this factor; 1 = never. Older pipelines: 1.5."
    )
    shift_time: Fraction = Field(0.0, description="Cuts are rotated in time by up to this share of their length.")
    masks: int = Field(2, ge=0, description="Number of small time masks and of small frequency masks.")

    @model_validator(mode="after")
    def _levels_in_order(self) -> "AugmentationSettings":
        for kind, low, high in (
            ("mix", self.mix_low_db, self.mix_high_db),
            ("noise", self.noise_low_db, self.noise_high_db),
        ):
            if low > high:
                raise ValueError(f"{kind}_low_db ({low:g}) must not lie above {kind}_high_db ({high:g})")
        return self


class OptimisationSettings(Settings):
    """How the weights are found."""

    method: Literal["adamw", "adam"] = Field("adamw", description="Optimiser; adam takes no weight decay.")
    learning_rate: Positive = Field(0.003, description="Rate, at its peak if it is scheduled.")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(0.01, description="AdamW weight decay.")
    beta1: BelowOne = Field(0.9, description="Momentum.")
    beta2: BelowOne = Field(0.99, description="Decay of the squared gradients.")
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine",
        description="cosine: up over the warm-up, then down along a cosine to almost nothing; plateau: lowered when "
        "validation gets no better, as ANIMAL-SPOT does it.",
    )
    warm_up: Fraction = Field(0.2, description="Share of the steps over which a cosine rises.")
    plateau_patience: int = Field(
        4, ge=0, description="Validations without progress that are tolerated; after the next one the rate is lowered."
    )
    plateau_factor: BelowOne = Field(0.5, description="What the rate is multiplied with then.")
    gradient_norm: Positive = Field(5.0, description="Longer gradients are cut to this length.")
    averaging: Fraction = Field(0.98, description="Decay of the running average of the weights; 0 = no average.")
    focal_gamma: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Focal loss: frames that are right already count less by this power; 0 = off."
    )
    positive_weight: Positive = Field(2.0, description="Loss weight of frames (or clips) of a call.")
    onset_weight: Positive = Field(4.0, description="Loss weight of frames at a call's onset.")


class TrainingSettings(Settings):
    """One training configuration: a model is dataset variant x this x fold."""

    architecture: Architecture = Field(
        "tcn",
        description="tcn: small and fast; crnn: the same with a recurrent layer; dense_resnet: residual network that "
        "keeps time; resnet18: ANIMAL-SPOT's network and windows; beats: a BEATs checkpoint of yours (extra `beats`); "
        "timm: an image backbone by name (extra `timm`).",
    )
    tcn: TcnSettings = Field(default_factory=TcnSettings, description="Size of a tcn.")
    crnn: CrnnSettings = Field(default_factory=CrnnSettings, description="Size of a crnn.")
    dense_resnet: DenseResnetSettings = Field(
        default_factory=DenseResnetSettings, description="Size of a dense_resnet."
    )
    resnet18: Resnet18Settings = Field(default_factory=Resnet18Settings, description="Windows of a resnet18.")
    beats: BeatsSettings | None = Field(None, description="Checkpoint and stages of a beats.")
    timm: TimmSettings | None = Field(None, description="Backbone of a timm.")
    objective: Literal["frame", "clip"] = Field(
        "frame",
        description="frame: every frame learns whether it lies in a call, and whether one starts; clip: whole windows "
        "learn whether they show a call, as older pipelines do it (always for resnet18).",
    )
    clip_s: Positive | None = Field(
        None, description="Window of objective: clip; null = the median call. A resnet18 has window_s instead."
    )
    frontend: FrontendSettings = Field(default_factory=FrontendSettings, description="Spectrogram.")
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Augmentation of training cuts."
    )
    optimisation: OptimisationSettings = Field(
        default_factory=OptimisationSettings, description="Optimiser, schedule, loss weights."
    )
    members: int = Field(
        2, ge=1, description="Networks trained from different seeds, whose logits are averaged; time grows with it."
    )
    epochs: int | None = Field(
        None,
        ge=0,
        description="Largest number of epochs; null = so many that about 500 batches are learnt from, 5 to 40; 0 takes "
        "the checkpoint of a resnet18 as it is.",
    )
    validate_every: int = Field(1, ge=1, description="Epochs from one validation to the next.")
    patience: int = Field(
        15,
        ge=1,
        description="Stop after this many validations without a better one. They use the usual decodings, whatever "
        "evaluation.decoding says, so that another decoding needs no other training.",
    )
    cuts_per_epoch: int | None = Field(
        None,
        ge=1,
        description="Training cuts drawn in an epoch; null = so many that every call comes up, 160 or more. Of a "
        "resnet18 it is clips, each at most once, those of an epoch chosen at random; null = all.",
    )
    batch_size: int = Field(16, ge=1, description="Cuts in a batch.")
    cut_frames: int = Field(256, ge=16, description="Length of a training cut in frames.")
    target_share: float = Field(
        0.6, ge=0.1, le=1.0, description="Share of cuts around target clips; the rest lies around noise."
    )
    balance: Literal["none", "labels", "groups", "both"] = Field(
        "none",
        description="Which target clips come up equally often: those of every label, of every group, of both; "
        "rare ones then come up several times before a frequent one comes again. An epoch has at most four cuts for "
        "every target clip: if these are too few for all clips of the frequent ones, each epoch takes other clips of "
        "them at random.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train; auto takes a GPU if visible.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the training; auto = bf16 where the processor or GPU has it."
    )
    threads: int = Field(1, ge=1, description="CPU threads; the last bits of the weights depend on it.")
    cache_mb: int = Field(
        2000,
        ge=0,
        description="Memory for band powers of the recordings (spectra of the clips for resnet18); beyond it they are "
        "reread.",
    )
    tensorboard: bool = Field(False, description="Also write learning curves for TensorBoard (extra `tensorboard`).")

    def n_epochs(self, n_batches: int) -> int:
        """Return the number of epochs, of so many batches each, if none is set."""
        least, most = _EPOCHS
        return self.epochs if self.epochs is not None else max(least, min(most, math.ceil(_BATCHES / n_batches)))

    @property
    def network(
        self,
    ) -> TcnSettings | CrnnSettings | DenseResnetSettings | Resnet18Settings | BeatsSettings | TimmSettings:
        """The settings of the network that was chosen."""
        sections = {
            "tcn": self.tcn,
            "crnn": self.crnn,
            "dense_resnet": self.dense_resnet,
            "resnet18": self.resnet18,
            "beats": self.beats,
            "timm": self.timm,
        }
        chosen = sections[self.architecture]
        assert chosen is not None  # see _network_is_complete
        return chosen

    @model_validator(mode="after")
    def _network_is_complete(self) -> "TrainingSettings":
        for name in ("tcn", "crnn", "dense_resnet", "resnet18", "beats", "timm"):
            if name in self.model_fields_set and name != self.architecture and getattr(self, name) != _default(name):
                raise ValueError(f"{name} is set but the architecture is {self.architecture}; drop one of them")
        if self.architecture in ("beats", "timm") and getattr(self, self.architecture) is None:
            raise ValueError(f"architecture {self.architecture} needs the key {self.architecture}")
        if self.epochs == 0 and not (self.architecture == "resnet18" and self.resnet18.checkpoint):
            raise ValueError("epochs: 0 needs architecture resnet18 and resnet18.checkpoint")
        return self

    @model_validator(mode="after")
    def _everything_is_heeded(self) -> "TrainingSettings":
        for (choice, value), keys in _UNHEEDED.items():
            for key in keys if attrgetter(choice)(self) == value else ():
                if attrgetter(key)(self) != _default(key):
                    raise ValueError(f"{key} is set, but {choice}: {value} does nothing with it; drop it")
        if self.beats:
            self._check_beats(self.beats)
        return self

    def _check_beats(self, beats: BeatsSettings) -> None:
        """Refuse what a BEATs cannot do."""
        if self.objective == "clip":
            raise ValueError("architecture beats knows the objective frame only")
        if self.augmentation != _default("augmentation") and beats.cache_tokens and not beats.unfreeze_blocks:
            raise ValueError("augmentation is set, but kept tokens are not augmented; set beats.cache_tokens: false")


def _default(key: str) -> object:
    """What a setting is when nobody sets it; `key` may have dots."""
    value: object = attrgetter(key)(TrainingSettings.model_construct())
    return value
