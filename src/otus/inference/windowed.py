"""Windowed inference: every window is scored on its own, as ANIMAL-SPOT does it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo
from otus.dense import FrameRange
from otus.models import WindowEnsemble
from otus.selections import NO_WINDOW
from otus.windows import WindowFrontend, read_windows, window_inputs

#: So many windows go through the network at once. They start at multiples of that number, so that the last bits of
#: the scores do not depend on how a recording is cut into chunks.
_BATCH = {"cpu": 64, "cuda": 512}

#: About so many samples at the network's rate are read at once.
_READ_SAMPLES = 2**21

#: Logits stay this far from 0: those of a network that is surer are cut, and never look like NO_WINDOW.
_SUREST = 29.0


def score_windows(
    network: WindowEnsemble,
    path: Path,
    info: AudioInfo,
    frontend: WindowFrontend,
    frames: FrameRange,
    *,
    n_classes: int,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording; the second half (onsets) says never.

    A frame stands for the window of which it is the middle: window i of k frames is frame i + k // 2, or the last
    one of a recording that is too short for that. Frames that no window belongs to say never. The logit of a class is
    ln(p / (1 - p)) of its probability. Raises DataError if the recording cannot be decoded, FloatingPointError if a
    score is not finite.
    """
    n_windows = frontend.n_windows(info)
    ahead = min(frontend.window_frames // 2, frontend.n_frames(info) - n_windows)
    first, last = max(0, frames.start - ahead), min(n_windows, frames.end - ahead)
    scores = np.full((2 * n_classes, len(frames)), NO_WINDOW, dtype=np.float32)
    device = next(network.parameters()).device
    full_precision = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), full_precision:
        for start, samples in _batches(path, info, frontend, first, last, _BATCH[device.type]):
            outputs = network(window_inputs(samples.to(device), frontend))
            logits = class_logits(outputs, n_classes).cpu().numpy()
            a, b = max(start, first), min(start + len(logits), last)
            at = ahead - frames.start
            scores[:n_classes, a + at : b + at] = logits[a - start : b - start].T
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{path}: the network gave scores that are not finite.")
    return scores


def class_logits(outputs: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return ln(p / (1 - p)), shape (windows, classes), of the softmax of `outputs` (windows, 1 + classes or more).

    Output 0 is noise, the classes follow. Values beyond plus and minus 29 are cut.
    """
    exact = outputs.double()
    logits = []
    for output in range(1, 1 + n_classes):
        others = torch.cat([exact[:, :output], exact[:, output + 1 :]], dim=1)
        logits.append(exact[:, output] - others.logsumexp(dim=1))
    return torch.stack(logits, dim=1).clamp(-_SUREST, _SUREST).float()


def _batches(
    path: Path, info: AudioInfo, frontend: WindowFrontend, first: int, last: int, size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """The number of the first window and the samples of every batch that holds some of the windows [first, last)."""
    if first >= last:
        return
    end = min(-(-last // size) * size, frontend.n_windows(info))
    hop = frontend.hop_samples
    per_read = size * max(1, _READ_SAMPLES // (size * hop))
    for begin in range(first // size * size, end, per_read):
        until = min(begin + per_read, end)
        samples = read_windows(path, info, frontend, begin, until)
        for start in range(begin, until, size):
            stop = min(start + size, until)
            stretch = (start - begin) * hop, (stop - 1 - begin) * hop + frontend.window_samples
            yield start, samples[slice(*stretch)]
