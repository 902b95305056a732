"""The convolutions over time of the small networks."""

import torch
from torch import nn


class TemporalBlock(nn.Module):
    """Residual dilated convolution over time: (batch, channels, frames) to the same."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` with what the convolution makes of it added."""
        out: torch.Tensor = x + self.body(x)
        return out
