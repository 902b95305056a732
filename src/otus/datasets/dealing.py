"""Dealing: items to sides in given shares, evenly by what they weigh or within strata."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal(loads: NDArray[np.float64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return a bin per row of `loads` (items x quantities) so that bin b holds about shares[b] of every quantity.

    Greedy, largest items first: each goes where the sum of squared overfull shares stays smallest; draws are
    broken by `seed`. No bin stays empty if there are items enough: the last ones fill it.
    """
    totals = loads.sum(axis=0)
    parts = loads / np.where(totals > 0, totals, 1.0)
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(parts)), -parts.max(axis=1)))
    filled = np.zeros((len(shares), parts.shape[1]))
    capacity = np.asarray(shares, dtype=float)[:, None]
    bins = np.zeros(len(parts), dtype=np.int64)
    empty = np.ones(len(shares), dtype=bool)
    for dealt, item in enumerate(order):
        before = ((filled / capacity) ** 2).sum(axis=1)
        after = (((filled + parts[item]) / capacity) ** 2).sum(axis=1)
        cost = (after - before) * capacity[:, 0]
        if empty.sum() >= len(order) - dealt:
            cost[~empty] = np.inf
        bins[item] = int(np.argmin(cost))
        empty[bins[item]] = False
        filled[bins[item]] += parts[item]
    return bins


def deal_in_strata(strata: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return a bin per item so that every stratum is shared out to within one item, and so are all strata together.

    In a stratum of n items bin b gets floor(n * shares[b]) or the next whole number: what is left over goes to the
    bins that have had too little so far. Which items those are is drawn by `seed`.
    """
    generator = np.random.default_rng(seed)
    portion = np.asarray(shares, dtype=float) / sum(shares)
    bins = np.zeros(len(strata), dtype=np.int64)
    owed = np.zeros(len(portion))
    order = np.argsort(strata, kind="stable")
    borders = np.flatnonzero(np.diff(strata[order])) + 1
    for members in np.split(order, borders) if len(order) else []:
        items = generator.permutation(members)
        ideal = portion * len(items)
        counts = np.floor(ideal + 1e-9).astype(np.int64)
        owed += ideal - counts
        partial = np.flatnonzero(ideal - counts > 1e-9)
        most_owed = partial[np.argsort(-owed[partial], kind="stable")]
        raised = most_owed[: len(items) - int(counts.sum())]
        counts[raised] += 1
        owed[raised] -= 1.0
        bins[items] = np.repeat(np.arange(len(portion)), counts)
    return bins
