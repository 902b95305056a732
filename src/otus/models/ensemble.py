"""Several networks of one kind, trained from different seeds, that answer together: the mean of their logits."""

from collections.abc import Sequence

import torch
from torch import nn

from otus.models.network import FrameNetwork
from otus.selections import NO_WINDOW


class Ensemble(FrameNetwork):
    """Frame logits from a spectrogram, averaged over the members."""

    def __init__(self, members: Sequence[FrameNetwork]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.context_frames = max(m.context_frames for m in members)
        self.block_frames = members[0].block_frames
        self.gains_by_bfloat16 = members[0].gains_by_bfloat16
        self.frozen = tuple(f"members.{i}.{prefix}" for i, m in enumerate(members) for prefix in m.frozen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


class WindowMean(FrameNetwork):
    """The activity logits of a network averaged over windows of `window_frames`, for networks trained on windows.

    Frame f stands for frames [f - window_frames // 2, f - window_frames // 2 + window_frames), as far as they lie in
    the input. Such networks learn nothing of onsets: those logits say never.
    """

    def __init__(self, network: FrameNetwork, window_frames: int) -> None:
        super().__init__()
        self.network = network
        self.window_frames = window_frames
        self.context_frames = network.context_frames + window_frames
        self.block_frames = network.block_frames
        self.gains_by_bfloat16 = network.gains_by_bfloat16
        self.frozen = tuple(f"network.{prefix}" for prefix in network.frozen)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activity logits of every class, then onset logits of every class."""
        activity = self.network(x).chunk(2, dim=1)[0]
        before = self.window_frames // 2
        around = (before, self.window_frames - 1 - before)
        total, count = (
            nn.functional.avg_pool1d(nn.functional.pad(values, around), self.window_frames, stride=1)
            for values in (activity, torch.ones_like(activity[:1, :1]))
        )
        return torch.cat([total / count, torch.full_like(activity, NO_WINDOW)], dim=1)
