"""A small network: convolutions that pool frequency only, dilated convolutions over time, a bidirectional GRU."""

import torch
from torch import nn

from otus.config import CrnnSettings
from otus.models.network import FrameNetwork
from otus.models.temporal import TemporalBlock

#: Each convolution leaves one band of so many.
_POOL = 4

#: The recurrent layer sees the mean of so many frames at once.
_COARSE = 4

#: Frames that are scored at once with a recurrent layer, and the unit of the context around them.
_BLOCK, _BLOCK_CONTEXT = 1024, 64


class Crnn(FrameNetwork):
    """Frame logits from a spectrogram: (batch, bands, frames) to (batch, 2 * classes, frames).

    The recurrent layer takes every fourth frame: what is far away needs no fine time, and recurrence is slow. It makes
    every frame depend on all others, the less the further away, so recordings are scored in blocks.
    """

    def __init__(self, *, bands: int, n_classes: int, settings: CrnnSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        rows, before = bands, 1
        for channels in settings.channels:
            layers += [
                nn.Conv2d(before, channels, (5, 3), stride=(min(_POOL, rows), 1), padding=(2, 1), bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            rows, before = -(-rows // min(_POOL, rows)), channels
        self.spectral = nn.Sequential(*layers)
        width = settings.temporal_channels
        self.collapse = nn.Sequential(nn.Conv1d(before * rows, width, 1, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.temporal = nn.Sequential(*(TemporalBlock(width, d, settings.dropout) for d in settings.dilations))
        units = settings.recurrent_channels
        self.recurrent = nn.GRU(width, units, batch_first=True, bidirectional=True) if units else None
        self.logits = nn.Conv1d(width + 2 * units, 2 * n_classes, 1)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, -2.0)  # calls are rare: start from a low probability
        self.context_frames = len(settings.channels) + sum(settings.dilations)
        if units:
            self.context_frames = _BLOCK_CONTEXT * -(-(self.context_frames + _BLOCK_CONTEXT) // _BLOCK_CONTEXT)
            self.block_frames = _BLOCK

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        trunk = self.temporal(self.collapse(self.spectral(x.unsqueeze(1)).flatten(1, 2)))
        if self.recurrent is not None:
            n_frames = trunk.shape[-1]
            coarse = nn.functional.avg_pool1d(trunk, _COARSE, ceil_mode=True, count_include_pad=False)
            around, _ = self.recurrent(coarse.transpose(1, 2))
            fine = around.transpose(1, 2).repeat_interleave(_COARSE, dim=2)[..., :n_frames]
            trunk = torch.cat([trunk, fine], dim=1)
        logits: torch.Tensor = self.logits(trunk.to(self.logits.weight.dtype))
        return logits
