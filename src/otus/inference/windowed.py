"""Windowed inference: every window is scored on its own, as ANIMAL-SPOT does it."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from otus.audio import AudioInfo, resampled_length
from otus.dense import FrameRange, is_out_of_memory
from otus.errors import StageError
from otus.models import WindowEnsemble
from otus.selections import NO_WINDOW
from otus.windows import WindowFrontend, window_inputs

#: Logits stay this far from 0: those of a network that is surer are cut, and never look like NO_WINDOW.
_SUREST = 29.0


def windows_of_frames(frames: FrameRange, info: AudioInfo, frontend: WindowFrontend) -> FrameRange:
    """Return the numbers of the windows that frames of a recording stand for; there may be none.

    A frame stands for the window of which it is the middle: window i of k frames is frame i + k // 2, or the last
    one of a recording that is too short for that.
    """
    ahead, n_windows = _ahead(info, frontend), frontend.n_windows(info)
    first = min(max(0, frames.start - ahead), n_windows)
    return FrameRange(first, max(first, min(n_windows, frames.end - ahead)))


def samples_of_windows(windows: FrameRange, info: AudioInfo, frontend: WindowFrontend) -> tuple[int, int]:
    """Return the samples [start, end), counted at the network's rate, of a recording that its windows cover."""
    if not len(windows):
        return 0, 0
    end = (windows.end - 1) * frontend.hop_samples + frontend.window_samples
    n_samples = resampled_length(info.n_samples, info.sample_rate, frontend.sample_rate)
    return windows.start * frontend.hop_samples, min(end, n_samples)


def score_windows(
    network: WindowEnsemble,
    read: Callable[[int, int], torch.Tensor],
    info: AudioInfo,
    frontend: WindowFrontend,
    frames: FrameRange,
    *,
    n_classes: int,
    batch: int,
    on_less: Callable[[int], object] = lambda batch: None,
) -> NDArray[np.float32]:
    """Return the logits (2 * classes, frames) of a stretch of a recording; the second half (onsets) says never.

    `read` gives samples [start, end) (n,) of the recording at the network's rate, on the network's device. `batch`
    windows go through the network at once; where memory runs out it is half of them from then on, which `on_less` is
    told. Frames that no window belongs to say never. The logit of a class is ln(p / (1 - p)) of its probability.
    Raises StageError if one window does not fit into memory.

    Batches start at multiples of their length in the recording. On a CPU they are always whole, with silence for
    windows that nobody wants: so not even the last bits depend on how a recording is cut.
    """
    windows = windows_of_frames(frames, info, frontend)
    scores = np.full((2 * n_classes, len(frames)), NO_WINDOW, dtype=np.float32)
    to_frame = _ahead(info, frontend) - frames.start
    start = windows.start
    while start < windows.end:
        wanted = FrameRange(start, min((start // batch + 1) * batch, windows.end))
        try:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                outputs = _outputs(network, read, info, frontend, wanted, batch)
                logits = class_logits(outputs, n_classes).cpu().numpy()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if batch == 1:
                raise StageError(
                    "memory ran out while a single window was scored; take a smaller network, or a device with more "
                    "memory."
                ) from error
            batch //= 2
            on_less(batch)
            continue
        scores[:n_classes, wanted.start + to_frame : wanted.end + to_frame] = logits.T
        start = wanted.end
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


def _ahead(info: AudioInfo, frontend: WindowFrontend) -> int:
    """How many frames a window's own is after the one that it starts with."""
    return min(frontend.window_frames // 2, frontend.n_frames(info) - frontend.n_windows(info))


def _outputs(
    network: WindowEnsemble,
    read: Callable[[int, int], torch.Tensor],
    info: AudioInfo,
    frontend: WindowFrontend,
    wanted: FrameRange,
    batch: int,
) -> torch.Tensor:
    """The network's outputs for windows that lie in one batch."""
    weights = next(network.parameters())
    samples = read(*samples_of_windows(wanted, info, frontend))
    before = 0
    if weights.device.type == "cpu":
        begin = wanted.start // batch * batch
        before = wanted.start - begin
        after = min(begin + batch, frontend.n_windows(info)) - wanted.end
        hop = frontend.hop_samples
        samples = torch.nn.functional.pad(samples, (before * hop, after * hop))
    inputs = window_inputs(samples, frontend).to(weights.dtype)
    outputs: torch.Tensor = network(inputs)
    return outputs[before : before + len(wanted)]
