"""Where a clip holds sound: the level of every 5 ms, and the stretches above a threshold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from otus.audio import Samples

FRAME_S = 0.005

#: Half a step of 16 bits: what stays below it is digital silence.
SILENCE = 0.5 / 32768


@dataclass(frozen=True)
class Loudness:
    """How loud a clip is over time: the RMS of each frame around `mean`, the mean of all frames that are not silent.

    A silent frame, digital zeros or any other constant, has the level 0. Frame i covers the samples
    [i * frame_samples, (i + 1) * frame_samples), the last one those that are left.
    """

    levels: NDArray[np.float64]
    mean: float
    frame_samples: int
    n_samples: int

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return the samples [start, end) of the frames [first, last)."""
        return first * self.frame_samples, min(last * self.frame_samples, self.n_samples)


def measure(blocks: Iterable[Samples], sample_rate: int) -> Loudness:
    """Return the loudness of a clip that comes in blocks; every block but the last holds whole frames.

    A clip without samples has no frames. Samples that are no numbers make levels that are none.
    """
    frame = frame_length(sample_rate)
    sums, squares, counts = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for block in blocks:
        edges = np.arange(0, len(block), frame)
        exact = block.astype(np.float64)
        sums.append(np.add.reduceat(exact, edges))
        squares.append(np.add.reduceat(exact**2, edges))
        counts.append(np.diff(np.append(edges, len(block))))
    total, square, count = map(np.concatenate, (sums, squares, counts))
    n_samples = int(count.sum())
    own, power = total / count, square / count
    with np.errstate(invalid="ignore"):
        silent = power - own**2 < SILENCE**2
        mean = float(total[~silent].sum() / max(count[~silent].sum(), 1.0))
        around = np.sqrt(np.maximum(power - 2.0 * mean * own + mean**2, 0.0))
    return Loudness(np.where(silent, 0.0, around), mean, frame, n_samples)


def frame_length(sample_rate: int) -> int:
    """Return the number of samples in a frame."""
    return max(1, round(FRAME_S * sample_rate))


def loud_stretches(levels: NDArray[np.float64], threshold: float, bridge: int) -> list[tuple[int, int]]:
    """Return the stretches of frames [first, last) that reach `threshold`; gaps of up to `bridge` frames are closed."""
    loud = np.flatnonzero(levels >= threshold)
    if not len(loud):
        return []
    cuts = np.flatnonzero(np.diff(loud) > bridge + 1)
    firsts = loud[np.append(0, cuts + 1)]
    lasts = loud[np.append(cuts, len(loud) - 1)] + 1
    return [(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]
