"""Scoring a stretch of a recording with a network that scores frames: the same in validation and in prediction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from otus.models import FrameNetwork

#: Frames that a network of bounded context scores at once; bounds memory however long a chunk is.
_MOST_FRAMES = 8192


@dataclass(frozen=True)
class FrameRange:
    """Frames [start, end) of a recording."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def score_stretch(
    network: FrameNetwork,
    read: Callable[[int, int], torch.Tensor],
    frames: FrameRange,
    *,
    n_frames: int,
    outside: float,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording of `n_frames` frames.

    `read` gives the network's input (bands, frames) for frames [start, end) that lie in the recording; `outside` is
    the input where there is no recording.
    """
    device = next(network.parameters()).device
    pieces = []
    with torch.inference_mode():
        for start, end, first, last in _blocks(network, frames, n_frames):
            inside = read(max(0, first), min(last, n_frames)).to(device)
            features = torch.nn.functional.pad(inside, (max(0, -first), max(0, last - n_frames)), value=outside)
            logits = network(features.unsqueeze(0))[0, :, start - first : end - first]
            pieces.append(logits.float().cpu().numpy())
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), dtype=np.float32)


def _blocks(network: FrameNetwork, frames: FrameRange, n_frames: int) -> Iterator[tuple[int, int, int, int]]:
    """Frames to score, and frames to read for them; the latter may lie outside the recording."""
    context, block = network.context_frames, network.block_frames
    if block is None:
        for start in range(frames.start, frames.end, _MOST_FRAMES):
            end = min(start + _MOST_FRAMES, frames.end)
            yield start, end, max(0, start - context), min(n_frames, end + context)
        return
    for first in range(frames.start // block * block, frames.end, block):
        start, end = max(first, frames.start), min(first + block, frames.end)
        yield start, end, first - context, first + block + context
