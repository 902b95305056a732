"""Settings of the networks, one class per architecture."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from otus.config.base import Fraction, Positive, Settings

Architecture = Literal["tcn", "crnn", "dense_resnet", "resnet18", "beats", "timm"]

Dilations = list[Annotated[int, Field(ge=1)]]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class TcnSettings(Settings):
    """A small network: convolutions that thin out frequency, dilated convolutions over time."""

    channels: list[Annotated[int, Field(ge=4, le=512)]] = Field(
        default_factory=lambda: [16, 32, 48],
        min_length=1,
        description="Channels of the stages; the first leaves a quarter of the bands, each further one a half.",
    )
    temporal_channels: int = Field(64, ge=8, le=1024, description="Channels of the temporal trunk.")
    dilations: Dilations = Field(
        default_factory=lambda: [1, 2, 4, 8, 16], description="Dilations (frames) of the temporal convolutions."
    )
    dropout: Fraction = Field(0.1, description="Dropout in the temporal trunk.")


class CrnnSettings(Settings):
    """A small network with a recurrent layer on top of its convolutions."""

    channels: list[Annotated[int, Field(ge=4, le=512)]] = Field(
        default_factory=lambda: [16, 32, 48],
        min_length=1,
        description="Channels of the convolutions; each leaves a quarter of the bands.",
    )
    temporal_channels: int = Field(64, ge=8, le=1024, description="Channels of the temporal trunk.")
    dilations: Dilations = Field(
        default_factory=lambda: [1, 2, 4, 8], description="Dilations (frames) of the temporal convolutions."
    )
    recurrent_channels: int = Field(32, ge=0, le=512, description="Units of the GRU in each direction; 0 = no GRU.")
    dropout: Fraction = Field(0.1, description="Dropout in the temporal trunk.")


class DenseResnetSettings(Settings):
    """The residual network that keeps time resolution."""

    channels: int = Field(16, ge=4, le=512, description="Channels of the first residual stage.")
    frequency_blocks: int = Field(2, ge=1, le=6, description="Residual blocks that each halve frequency, never time.")
    temporal_channels: int = Field(64, ge=8, le=1024, description="Channels of the temporal trunk.")
    dilations: Dilations = Field(
        default_factory=lambda: [1, 2, 4, 8, 16],
        description="Dilations (frames) of the residual temporal blocks.",
    )
    dropout: Fraction = Field(0.1, description="Dropout in the temporal trunk.")


class Resnet18Settings(Settings):
    """ANIMAL-SPOT's network on its windows (Bergler et al. 2022). Frequencies come from here, not from `frontend`."""

    window_s: Positive = Field(0.4, description="Length of a window.")
    hop_s: Positive = Field(0.05, description="From the start of one window to the next.")
    sample_rate: int = Field(48000, gt=0, description="Rate that the network hears.")
    pre_emphasis: Fraction = Field(0.98, description="Coefficient of the pre-emphasis of each window.")
    n_fft: int = Field(2048, ge=64, description="Samples of the spectrogram's window.")
    hop_samples: int = Field(1024, ge=16, description="Samples from one spectrum to the next.")
    bins: int = Field(128, ge=16, description="Frequency bins that the network sees.")
    low_hz: Annotated[float, Field(ge=0.0)] = Field(0.0, description="Lower edge.")
    high_hz: Positive = Field(4000.0, description="Upper edge.")
    compression: Literal["linear", "mel"] = Field("linear", description="Spacing of the bins.")
    min_max_norm: bool = Field(True, description="Scale every window to 0..1; else a fixed range of dB.")
    conv_kernel_size: int = Field(7, ge=3, description="Kernel of the first convolution.")
    max_pool: Literal[0, 1, 2] = Field(
        2, description="After the first convolution: 1 = max pooling; 0 = stride 2 instead; 2 = neither."
    )
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="An ANIMAL-SPOT .pk to start from; with epochs: 0 it is taken as it is. Its own spectrogram "
        "settings win over those here. ${VARIABLES} and ~ are expanded.",
    )
    sha256: Sha256 | None = Field(None, description="SHA-256 that the checkpoint must have.")

    @model_validator(mode="after")
    def _checkpoint_of_digest(self) -> "Resnet18Settings":
        if self.sha256 and not self.checkpoint:
            raise ValueError("sha256 is set, but there is no checkpoint that it could be compared with; set checkpoint")
        return self


class BeatsSettings(Settings):
    """A BEATs encoder (Chen et al. 2022) with a frame head; 16 kHz, one token each 160 ms (extra `beats`)."""

    checkpoint: str = Field(
        min_length=1,
        description="Official BEATs checkpoint on your disk; never downloaded. ${VARIABLES} and ~ are expanded.",
    )
    sha256: Sha256 = Field(description="SHA-256 that the checkpoint must have.")
    head_channels: int = Field(128, ge=8, description="Channels of the frame head.")
    cache_tokens: bool = Field(
        True,
        description="What the frozen encoder makes of the recordings is kept in memory, within cache_mb; stage 1 is "
        "then many times faster, and not augmented, whatever augmentation says (stage 2 is). With or without, "
        "cuts_per_epoch and batch_size count blocks of 5.12 s.",
    )
    unfreeze_blocks: int = Field(
        0, ge=0, description="Stage 2: so many of the last blocks learn as well, from the best of stage 1; 0 = none."
    )
    unfreeze_learning_rate: Positive = Field(1e-5, description="Peak rate of the unfrozen blocks in stage 2.")
    unfreeze_epochs: int = Field(10, ge=1, description="Largest number of epochs of stage 2.")
    min_gain: Annotated[float, Field(ge=0.0)] = Field(
        0.01, description="Stage 2 is kept only if validation gains more than this."
    )


class TimmSettings(Settings):
    """An image backbone of the timm library as feature extractor, with a frame head."""

    backbone: str = Field(min_length=1, description="Name in timm, e.g. `resnet18` or `efficientnet_b0`.")
    weights: str | None = Field(
        None, min_length=1, description="Safetensors file with the backbone's weights; null = random. Never downloaded."
    )
    sha256: Sha256 | None = Field(None, description="SHA-256 that the weights must have.")
    head_channels: int = Field(64, ge=8, description="Channels of the frame head.")

    @model_validator(mode="after")
    def _digest_of_weights(self) -> "TimmSettings":
        if self.weights and not self.sha256:
            raise ValueError("weights need sha256, the digest that the file must have")
        if self.sha256 and not self.weights:
            raise ValueError("sha256 is set, but there are no weights that it could be compared with; set weights")
        return self
