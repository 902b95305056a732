"""ANIMAL-SPOT's classifier of windows (Bergler et al. 2022): a ResNet-18 that sees a short spectrogram at once.

The names of modules are those of its checkpoints, so that their weights load as they are.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from otus.config import Resnet18Settings

#: Channels of the four stages, each of two blocks.
_CHANNELS = (64, 128, 256, 512)


class Resnet18(nn.Module):
    """Logits (batch, outputs) of whole windows (batch, 1, frames, bands); output 0 is noise."""

    def __init__(self, settings: Resnet18Settings, n_outputs: int) -> None:
        super().__init__()
        self.encoder = _Encoder(settings.conv_kernel_size, settings.max_pool)
        self.classifier = _Classifier(n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of every window."""
        logits: torch.Tensor = self.classifier(self.encoder(x))
        return logits


class WindowEnsemble(nn.Module):
    """Several networks for windows that answer together: the mean of their logits, before the softmax.

    `gains_by_bfloat16` as in otus.models.network.
    """

    gains_by_bfloat16 = True

    def __init__(self, members: Sequence[Resnet18]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, outputs) of windows (batch, 1, frames, bands)."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


class _Block(nn.Module):
    """Two convolutions and a shortcut. `norms` names the normalisation that follows a convolution."""

    norms: ClassVar[Mapping[str, str]] = {"conv1": "bn1", "conv2": "bn2"}

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.bn2(self.conv2(torch.relu_(self.bn1(self.conv1(x)))))
        return inner.add_(self.shortcut(x)).relu_()


class _Encoder(nn.Module):
    norms: ClassVar[Mapping[str, str]] = {"conv1": "bn1"}

    def __init__(self, kernel: int, max_pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, _CHANNELS[0], kernel, stride=2, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(_CHANNELS[0])
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool == 1 else nn.Identity()
        self.layer1 = _stage(_CHANNELS[0], _CHANNELS[0], 2 if max_pool == 0 else 1)
        self.layer2 = _stage(_CHANNELS[0], _CHANNELS[1], 2)
        self.layer3 = _stage(_CHANNELS[1], _CHANNELS[2], 2)
        self.layer4 = _stage(_CHANNELS[2], _CHANNELS[3], 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu_(self.bn1(self.conv1(x))))
        maps: torch.Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return maps


class _Classifier(nn.Module):
    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(_CHANNELS[-1], n_outputs)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(maps.mean(dim=(2, 3), dtype=self.linear.weight.dtype))
        return logits


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(_Block(channels_in, channels, stride), _Block(channels, channels, 1))
