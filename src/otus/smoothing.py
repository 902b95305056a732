"""Three ways to smooth scores over time; none shifts a call."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from otus.config.evaluation import Smoothing

Reals = NDArray[np.float64]


def smooth(scores: Reals, width: int, by: Smoothing = "mean") -> Reals:
    """Return the scores smoothed over `width` values (made odd).

    mean: the centred moving average; edges average over what is there. median: the centred moving median; beyond the
    edges the scores are mirrored. ema: the weight of a score that is k away is r**k to both sides, of what is there;
    r is such that the weights have the standard deviation of those of the mean:
    2 r / (1 - r)**2 = (width**2 - 1) / 12.
    """
    half = width // 2
    if half == 0 or len(scores) == 0:
        return scores
    if by == "median":
        return np.asarray(median_filter(scores, size=2 * half + 1, mode="reflect"), dtype=np.float64)
    if by == "ema":
        return _two_sided(scores, 2 * half + 1)
    total = np.concatenate([[0.0], np.cumsum(scores)])
    first = np.maximum(np.arange(len(scores)) - half, 0)
    last = np.minimum(np.arange(len(scores)) + half + 1, len(scores))
    return np.asarray((total[last] - total[first]) / (last - first))


def _two_sided(scores: Reals, width: int) -> Reals:
    """The mean with weights r**k to both sides."""
    from scipy.signal import lfilter  # takes a second to import

    variance = (width**2 - 1) / 12
    ratio = (variance + 1 - math.sqrt(2 * variance + 1)) / variance

    def sums(values: Reals) -> Reals:
        ahead = lfilter([1.0], [1.0, -ratio], values)
        behind = lfilter([1.0], [1.0, -ratio], values[::-1])[::-1]
        return np.asarray(ahead + behind - values)

    return sums(scores) / sums(np.ones(len(scores)))
