"""Dense inference: every frame is scored once, with the context that the network sees, wherever a chunk is cut."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from otus.audio import AudioInfo
from otus.frontend import Frontend, read_band_power, relative_log_power

#: Frames that the network scores at once; bounds memory however long a chunk is.
_BLOCK_FRAMES = 8192


@dataclass(frozen=True)
class FrameRange:
    """Frames [start, end) of a recording."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def frames_of_chunk(start_sample: int, end_sample: int, info: AudioInfo, frontend: Frontend) -> FrameRange:
    """Return the frames whose centres lie in samples [start, end) of the recording; the last chunk takes the rest.

    Exact integer arithmetic, so that the chunks of a recording share out its frames without gap or overlap.
    """
    last = end_sample >= info.n_samples
    return FrameRange(
        _first_frame_at(start_sample, info, frontend),
        frontend.n_frames(info) if last else _first_frame_at(end_sample, info, frontend),
    )


def _first_frame_at(sample: int, info: AudioInfo, frontend: Frontend) -> int:
    """The first frame i with centre (i + 1/2) * hop / rate >= sample / recording rate."""
    hop, rate, native = frontend.hop_samples, frontend.sample_rate, info.sample_rate
    return max(0, -(-(2 * sample * rate - hop * native) // (2 * hop * native)))


def score_frames(
    network: nn.Module,
    path: Path,
    info: AudioInfo,
    frontend: Frontend,
    medians: torch.Tensor,
    frames: FrameRange,
    *,
    context_frames: int,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording.

    Raises DataError if the recording cannot be decoded, FloatingPointError if a score is not finite.
    """
    total = frontend.n_frames(info)
    pieces = []
    for start in range(frames.start, frames.end, _BLOCK_FRAMES):
        end = min(start + _BLOCK_FRAMES, frames.end)
        first, last = max(0, start - context_frames), min(total, end + context_frames)
        power = read_band_power(path, info, frontend, first, last)
        features = relative_log_power(power, medians).unsqueeze(0).to(device)
        with torch.inference_mode():
            logits = network(features)[0, :, start - first : end - first]
        pieces.append(logits.float().cpu().numpy())
    scores = np.concatenate(pieces, axis=1) if pieces else np.zeros((0, 0), dtype=np.float32)
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{path}: the network gave scores that are not finite.")
    return scores
