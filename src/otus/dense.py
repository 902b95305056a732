"""Scoring a stretch of a recording with a network that scores frames: the same in validation and in prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from otus.errors import StageError
from otus.models import FrameNetwork

#: Frames that a network of bounded context scores at once, which bounds memory however long a chunk is. Where these do
#: not fit it is half of them, and so on, down to the fewest.
_MOST_FRAMES, _FEWEST_FRAMES = 8192, 256


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
    the input where there is no recording. What does not fit into memory is scored in smaller pieces. Raises StageError
    if the smallest does not fit either, or if the network scores whole blocks.
    """
    most = network.block_frames or _MOST_FRAMES
    pieces: list[NDArray[np.float32]] = []
    start = frames.start
    while start < frames.end:
        end, first, last = _piece(network, start, frames.end, n_frames, most)
        try:
            logits = _logits(network, read, first, last, n_frames=n_frames, outside=outside)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if network.block_frames is not None or most <= _FEWEST_FRAMES:
                raise StageError(
                    f"memory ran out while {last - first} frames were scored, and it cannot be fewer at a time; take a "
                    "smaller network, or a device with more memory."
                ) from error
            most //= 2
            continue
        pieces.append(logits[:, start - first : end - first])
        start = end
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), dtype=np.float32)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether this is how torch says that the memory of the GPU or of the processor does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _logits(
    network: FrameNetwork,
    read: Callable[[int, int], torch.Tensor],
    first: int,
    last: int,
    *,
    n_frames: int,
    outside: float,
) -> NDArray[np.float32]:
    """What the network gives for frames [first, last), of which some may lie outside the recording."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        inside = read(max(0, first), min(last, n_frames)).to(device)
        features = torch.nn.functional.pad(inside, (max(0, -first), max(0, last - n_frames)), value=outside)
        logits: torch.Tensor = network(features.unsqueeze(0))
        return logits[0].float().cpu().numpy()


def _piece(network: FrameNetwork, start: int, end: int, n_frames: int, most: int) -> tuple[int, int, int]:
    """Where a piece of frames to score ends, and the frames to read for it; these may lie outside the recording."""
    context, block = network.context_frames, network.block_frames
    if block is None:
        stop = min(start + most, end)
        return stop, max(0, start - context), min(n_frames, stop + context)
    begin = start // block * block
    return min(begin + block, end), begin - context, begin + block + context
