"""An image network of the timm library as feature extractor, with a head that scores frames."""

import difflib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from otus.audio import sha256
from otus.config import TimmSettings
from otus.errors import DataError, MissingPartError
from otus.models.network import FrameNetwork

#: Share of the head's channels that are left out of a training step, and frames that its convolution sees.
_DROPOUT, _HEAD_KERNEL = 0.1, 5

#: Bands and frames are filled up to a multiple of this, the coarsest step of nearly all image networks.
_MULTIPLE = 32


class TimmBackbone(FrameNetwork):
    """Frame logits from a spectrogram: (batch, bands, frames) to (batch, 2 * classes, frames).

    Each map of features, fine or coarse, is reduced to one column of channels by weights over its rows, brought back
    to the frame rate by linear interpolation, and added up. Image networks see far, and some see everything: hence
    recordings are scored in blocks.

    Raises MissingPartError without timm; DataError for a backbone that timm does not have, that does not give maps of
    features for inputs of any size, or whose file of weights is missing, another one than `sha256` says, or does not
    fit. Nothing is ever downloaded.
    """

    block_frames = 512
    context_frames = 64

    def __init__(self, *, bands: int, n_classes: int, settings: TimmSettings) -> None:
        super().__init__()
        self.backbone: Any = _feature_extractor(settings)
        channels = settings.head_channels
        self.collapse = nn.ModuleList(
            nn.Sequential(nn.Conv2d(depth, channels, (rows, 1), bias=False), nn.BatchNorm2d(channels))
            for depth, rows in _map_sizes(self.backbone, bands, settings.backbone)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(channels, channels, _HEAD_KERNEL, padding=_HEAD_KERNEL // 2, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
        )
        self.logits = nn.Conv1d(channels, 2 * n_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -2.0)  # calls are rare: start from a low probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        image = _filled(x)
        summed: torch.Tensor | None = None
        for collapse, features in zip(self.collapse, _maps(self.backbone, image), strict=True):
            steps = collapse(features).squeeze(2)
            at_frames = nn.functional.interpolate(steps, size=image.shape[-1], mode="linear", align_corners=False)
            summed = at_frames if summed is None else summed + at_frames
        assert summed is not None
        logits: torch.Tensor = self.logits(self.head(summed[..., : x.shape[-1]]).to(self.logits.weight.dtype))
        return logits


def _filled(x: torch.Tensor) -> torch.Tensor:
    """The spectrogram as a grey image, with the median level (0) above the bands and after the frames."""
    bands, frames = x.shape[-2:]
    return nn.functional.pad(x.unsqueeze(1), (0, -frames % _MULTIPLE, 0, -bands % _MULTIPLE))


def _feature_extractor(settings: TimmSettings) -> Any:
    """The backbone without its classifier: it returns the maps of features of all its stages, finest first."""
    try:
        import timm
    except ImportError as error:
        raise MissingPartError(
            f"the architecture timm needs the package timm, which cannot be imported ({error}); "
            "install it with: pip install 'otus[timm]'."
        ) from error
    name = settings.backbone
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() lists those that there are."
        raise DataError(f"training.<name>.timm.backbone: timm {timm.__version__} has no {name!r}; {hint}")
    try:
        network = timm.create_model(name, in_chans=1, features_only=True, pretrained=False)
    except Exception as error:  # each backbone has its own way to refuse
        raise _unusable(name, error) from error
    if settings.weights is None:
        return network
    needed = timm.create_model(name, in_chans=1, num_classes=0, pretrained=False).state_dict()
    _check_weights(Path(settings.weights), str(settings.sha256), list(needed))  # timm passes over missing ones
    source = {"file": settings.weights}
    try:
        return timm.create_model(name, in_chans=1, features_only=True, pretrained=True, pretrained_cfg_overlay=source)
    except RuntimeError as error:
        raise DataError(
            f"{settings.weights}: does not fit the backbone {name} ({_one_line(error)}); use the file of exactly this "
            "timm model."
        ) from error


def _check_weights(path: Path, digest: str, needed: list[str]) -> None:
    """DataError unless this is the safetensors file with that digest, and holds weights of all the names `needed`."""
    try:
        found = sha256(path)
        if found != digest:
            raise DataError(
                f"{path}: its SHA-256 is {found}, but training.<name>.timm.sha256 is {digest}; correct the one that "
                "is wrong."
            )
        with safe_open(path, "pt") as file:
            missing = sorted(set(needed) - set(file.keys()))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); training.<name>.timm.weights names a safetensors file on "
            "your disk."
        ) from error
    except SafetensorError as error:
        raise DataError(f"{path}: is no safetensors file ({error}); convert the weights to one.") from error
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: timm takes weights from files named *.safetensors only; rename it.")
    if missing:
        raise DataError(
            f"{path}: lacks {len(missing)} weights of the backbone, such as {missing[0]}; use the file of exactly "
            "this timm model."
        )


def _maps(backbone: Any, image: torch.Tensor) -> list[torch.Tensor]:
    """The maps of features (batch, channels, rows, steps); some backbones have the channels last."""
    maps: list[torch.Tensor] = backbone(image)
    return [m.permute(0, 3, 1, 2) for m in maps] if getattr(backbone, "output_fmt", None) == "NHWC" else maps


def _map_sizes(backbone: Any, bands: int, name: str) -> list[tuple[int, int]]:
    """Channels and rows of each map of features. DataError unless the backbone takes inputs of any length."""
    sizes = []
    backbone.eval()
    try:
        with torch.no_grad():
            for frames in (2 * _MULTIPLE, 3 * _MULTIPLE):
                maps = _maps(backbone, _filled(torch.zeros(1, bands, frames)))
                sizes.append([(int(m.shape[1]), int(m.shape[2])) for m in maps])
    except Exception as error:  # each backbone has its own way to refuse
        raise _unusable(name, error) from error
    if sizes[0] != sizes[1] or [depth for depth, _ in sizes[0]] != backbone.feature_info.channels():
        raise _unusable(name, ValueError("its maps are not channels x frequency x time"))
    backbone.train()
    return sizes[0]


def _unusable(name: str, error: Exception) -> DataError:
    return DataError(
        f"training.<name>.timm.backbone: {name} cannot be used ({_one_line(error)}); take a convolutional network, "
        "such as resnet18 or efficientnet_b0, which gives maps of features for inputs of any size."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(". ")
