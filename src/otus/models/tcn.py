"""A small network: a few convolutions that thin out frequency, then dilated convolutions over time."""

import torch
from torch import nn

from otus.config import TcnSettings
from otus.models.network import FrameNetwork
from otus.models.temporal import TemporalBlock

#: Bands of the spectrogram that the first convolution makes one of, and each further one.
_FIRST, _FURTHER = 4, 2


class _Spectral(nn.Module):
    """Convolution that leaves one band of `thin`, then a residual convolution; time is kept."""

    def __init__(self, channels_in: int, channels: int, thin: int) -> None:
        super().__init__()
        self.thinning = nn.Sequential(
            nn.Conv2d(channels_in, channels, (thin + 1, 3), stride=(thin, 1), padding=(thin // 2, 1), bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.body = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        thinned = self.thinning(x)
        out: torch.Tensor = self.body(thinned).add_(thinned).relu_()
        return out


class Tcn(FrameNetwork):
    """Frame logits from a spectrogram: (batch, bands, frames) to (batch, 2 * classes, frames).

    All convolutions see a bounded stretch of time; otus.models.crnn adds a recurrent layer.
    """

    def __init__(self, *, bands: int, n_classes: int, settings: TcnSettings) -> None:
        super().__init__()
        stages, rows, before = [], bands, 1
        for number, channels in enumerate(settings.channels):
            thin = _FURTHER if number else _FIRST
            stages.append(_Spectral(before, channels, thin))
            rows, before = (rows - 1) // thin + 1, channels
        self.spectral = nn.Sequential(*stages)
        width = settings.temporal_channels
        self.collapse = nn.Sequential(nn.Conv1d(before * rows, width, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.temporal = nn.Sequential(*(TemporalBlock(width, d, settings.dropout) for d in settings.dilations))
        self.logits = nn.Conv1d(width, 2 * n_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -2.0)  # calls are rare: start from a low probability
        self.context_frames = 2 * len(settings.channels) + sum(settings.dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        trunk = self.collapse(self.spectral(x.unsqueeze(1)).flatten(1, 2))
        logits: torch.Tensor = self.logits(self.temporal(trunk).to(self.logits.weight.dtype))
        return logits
