"""Scoring a stretch of a recording with a network that scores frames: the same in validation and in prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from otus.errors import StageError
from otus.models import FrameNetwork

#: Frames that a network of bounded context scores at once, which bounds memory however long a chunk is: on a CPU no
#: more than stay in its cache. Where they do not fit it is half of them, and so on, down to the fewest.
_MOST_FRAMES, _CPU_FRAMES, _FEWEST_FRAMES = 8192, 1024, 256

#: What torch says where the processor's memory does not suffice, and cuBLAS, cuFFT and cuDNN where the GPU's does not.
_NO_MEMORY = ("can't allocate memory", "_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")


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
    at_once: int | None = None,
    on_less: Callable[[int], object] = lambda at_once: None,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording of `n_frames` frames.

    `read` gives the network's input (bands, frames) for frames [start, end) that lie in the recording; `outside` is
    the input where there is no recording. About `at_once` frames are scored at once, in whole blocks if the network
    has these; None is what suits the device. Where memory runs out it is half of them from then on, which `on_less` is
    told. Raises StageError if the fewest do not fit either.

    Pieces start at multiples of their length in the recording. On a CPU each has the shape that it has in the whole
    recording, with `outside` for what no wanted frame depends on: so not even the last bits depend on how it is cut.
    """
    most = piece_frames(network, at_once)
    pieces: list[NDArray[np.float32]] = []
    start = frames.start
    while start < frames.end:
        wanted = FrameRange(start, min((start // most + 1) * most, frames.end))
        try:
            logits = _logits(network, read, wanted, most, n_frames=n_frames, outside=outside)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if most <= (network.block_frames or _FEWEST_FRAMES):
                raise StageError(
                    f"memory ran out while {most} frames were scored, and it cannot be fewer at a time; take a "
                    "smaller network, or a device with more memory."
                ) from error
            most = piece_frames(network, most // 2)
            on_less(most)
            continue
        pieces.append(logits)
        start = wanted.end
    return np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), dtype=np.float32)


def piece_frames(network: FrameNetwork, at_once: int | None) -> int:
    """Return the frames that a network scores at once if that is to be about `at_once`; None: what suits its device."""
    if network.block_frames is not None:
        return max(1, (at_once or 1) // network.block_frames) * network.block_frames
    usual = _CPU_FRAMES if next(network.parameters()).device.type == "cpu" else _MOST_FRAMES
    return at_once or usual


def frames_to_read(network: FrameNetwork, frames: FrameRange, n_frames: int) -> FrameRange:
    """Return the frames of a recording of `n_frames` that the scores of `frames` are made of."""
    seen = _seen(network, frames, n_frames)
    return FrameRange(max(0, seen.start), min(n_frames, seen.end))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether this is how torch says that the memory of the GPU or of the processor does not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _NO_MEMORY)


def _seen(network: FrameNetwork, frames: FrameRange, n_frames: int) -> FrameRange:
    """What the network gets for some frames; a network of blocks gets whole ones, which may reach outside."""
    context, block = network.context_frames, network.block_frames
    if block is None:
        return FrameRange(max(0, frames.start - context), min(n_frames, frames.end + context))
    return FrameRange(frames.start // block * block - context, -(-frames.end // block) * block + context)


def _logits(
    network: FrameNetwork,
    read: Callable[[int, int], torch.Tensor],
    wanted: FrameRange,
    most: int,
    *,
    n_frames: int,
    outside: float,
) -> NDArray[np.float32]:
    """What the network gives for frames that lie in one piece of `most`."""
    weights = next(network.parameters())
    piece = _piece(wanted, most, n_frames, weights.device)
    seen, there = _seen(network, piece, n_frames), frames_to_read(network, wanted, n_frames)
    with torch.inference_mode():
        inside = read(there.start, there.end).to(weights)
        features = torch.nn.functional.pad(inside, (there.start - seen.start, seen.end - there.end), value=outside)
        logits = _scored(network, features)
        first = seen.start if network.block_frames is None else seen.start + network.context_frames
        return logits[:, wanted.start - first : wanted.end - first].float().cpu().numpy()


def _piece(wanted: FrameRange, most: int, n_frames: int, device: torch.device) -> FrameRange:
    """What is scored for the frames wanted of a piece: all of it where the last bits shall not depend on them."""
    if device.type != "cpu":
        return wanted
    begin = wanted.start // most * most
    return FrameRange(begin, min(begin + most, n_frames))


def _scored(network: FrameNetwork, features: torch.Tensor) -> torch.Tensor:
    """Logits (2 * classes, frames) of features (bands, frames); of blocks without the context at either end."""
    if network.block_frames is None:
        logits: torch.Tensor = network(features.unsqueeze(0))
        return logits[0]
    context, block = network.context_frames, network.block_frames
    blocks = features.unfold(1, block + 2 * context, block).transpose(0, 1).contiguous()
    inner: torch.Tensor = network(blocks)[..., context : context + block]
    return inner.transpose(0, 1).flatten(1)
