"""Dense inference: every frame is scored once, with the context that the network sees, wherever a chunk is cut."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo
from otus.dense import FrameRange, score_stretch
from otus.frontend import Frontend, read_features
from otus.models import FrameNetwork
from otus.windows import WindowFrontend


def frames_of_chunk(
    start_sample: int, end_sample: int, info: AudioInfo, frontend: Frontend | WindowFrontend
) -> FrameRange:
    """Return the frames whose centres lie in samples [start, end) of the recording; the last chunk takes the rest.

    Exact integer arithmetic, so that the chunks of a recording share out its frames without gap or overlap.
    """
    last = end_sample >= info.n_samples
    return FrameRange(
        _first_frame_at(start_sample, info, frontend),
        frontend.n_frames(info) if last else _first_frame_at(end_sample, info, frontend),
    )


def _first_frame_at(sample: int, info: AudioInfo, frontend: Frontend | WindowFrontend) -> int:
    """The first frame i with centre (i + 1/2) * hop / rate >= sample / recording rate."""
    hop, rate, native = frontend.hop_samples, frontend.sample_rate, info.sample_rate
    return max(0, -(-(2 * sample * rate - hop * native) // (2 * hop * native)))


def score_frames(
    network: FrameNetwork,
    path: Path,
    info: AudioInfo,
    frontend: Frontend,
    medians: torch.Tensor,
    frames: FrameRange,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording.

    Raises DataError if the recording cannot be decoded, FloatingPointError if a score is not finite.
    """
    device = next(network.parameters()).device
    scores = score_stretch(
        network,
        lambda first, last: read_features(path, info, frontend, first, last, medians, device),
        frames,
        n_frames=frontend.n_frames(info),
        outside=frontend.outside,
    )
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{path}: the network gave scores that are not finite.")
    return scores
