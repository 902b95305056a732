"""A residual network that keeps time resolution: frequency is halved again and again, time never.

All convolutions see a bounded stretch of time, so that a recording scored in chunks with `context_frames` on either
side gives the same scores as in one piece.
"""

from itertools import pairwise

import torch
from torch import nn

from otus.config import DenseResnetSettings
from otus.models.network import FrameNetwork


class _FrequencyBlock(nn.Module):
    """Residual block (two 3x3 convolutions) that halves frequency and keeps time."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride=(2, 1), padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d((2, 1), ceil_mode=True), nn.Conv2d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(x).add_(self.shortcut(x)).relu_()
        return out


class _TemporalBlock(nn.Module):
    """Residual block with one dilated convolution over time."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.body(x)
        return out


class DenseResnet(FrameNetwork):
    """Frame logits from a spectrogram: (batch, bands, frames) to (batch, 2 * classes, frames)."""

    def __init__(self, *, bands: int, n_classes: int, settings: DenseResnetSettings) -> None:
        super().__init__()
        widths = [round(settings.channels * 1.5**i) for i in range(settings.frequency_blocks + 1)]
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], (5, 3), stride=(2, 1), padding=(2, 1), bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.frequency = nn.Sequential(*(_FrequencyBlock(a, b) for a, b in pairwise(widths)))
        rows = bands
        for _ in range(settings.frequency_blocks + 1):
            rows = -(-rows // 2)
        self.collapse = nn.Conv2d(widths[-1], settings.temporal_channels, (rows, 1))
        self.temporal = nn.Sequential(
            *(_TemporalBlock(settings.temporal_channels, d, settings.dropout) for d in settings.dilations)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(settings.temporal_channels), nn.ReLU())
        self.logits = nn.Conv1d(settings.temporal_channels, 2 * n_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -2.0)  # calls are rare: start from a low probability
        self.context_frames = 1 + 2 * settings.frequency_blocks + sum(settings.dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        trunk = self.collapse(self.frequency(self.stem(x.unsqueeze(1)))).squeeze(2)
        logits: torch.Tensor = self.logits(self.head(self.temporal(trunk)).to(self.logits.weight.dtype))
        return logits
