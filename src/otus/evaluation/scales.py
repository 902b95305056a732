"""Networks of different folds are not equally sure of themselves: bring their peak scores onto one scale."""

import numpy as np
from numpy.typing import NDArray

from otus.evaluation.calibration import Mask, Reals

#: A network's own hits count for as much as the hits of all networks where there are so many of them: with fewer, it
#: is rather the common scale that counts.
_HITS_THAT_TELL = 10


def on_scale_of(own: int, peak: Reals, hit: Mask, network: NDArray[np.int64]) -> Reals:
    """Return the peak logits of selections as the network `own` would have given them.

    `network` says which network each selection comes from. Networks differ by a shift: the difference of the mean
    peaks of their hits, each mean drawn towards the median hit of all networks as if that had been seen ten times (a
    shrinkage estimate; with few hits nothing much is shifted). Without a hit nothing is.
    """
    networks = np.unique(network)
    if not hit.any() or np.array_equal(networks, [own]):
        return peak
    common = float(np.median(peak[hit]))
    height = {int(n): _drawn_mean(peak[hit & (network == n)], common) for n in networks}
    shift = np.array([height.get(own, common) - height[int(n)] for n in networks])
    return np.asarray(peak + shift[np.searchsorted(networks, network)])


def _drawn_mean(values: Reals, towards: float) -> float:
    return float((values.sum() + _HITS_THAT_TELL * towards) / (len(values) + _HITS_THAT_TELL))
