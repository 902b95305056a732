"""Several networks of one kind, trained from different seeds, that answer together: the mean of their logits."""

from collections.abc import Sequence

import torch
from torch import nn

from otus.models.dense_resnet import DenseResnet


class Ensemble(nn.Module):
    """Frame logits from a spectrogram, averaged over the members."""

    def __init__(self, members: Sequence[DenseResnet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        #: Frames on either side that an output frame depends on.
        self.context_frames: int = max(m.context_frames for m in members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)
